//! Which of several control planes writes status: the holder of a Lease.
//!
//! ```text
//!   nobody holds it, or its holder has not renewed it for its duration ──▶ take it ──▶ renew, and again, …
//!                    ▲                                                                  │
//!                    └──────── lost: not renewed in time, or somebody else's; given up ◀┘
//! ```
//!
//! Every write carries the version that was read, so of two who take it one fails. Time is measured here, by how
//! long the Lease stayed as it was: the clock of another machine decides nothing. In its annotations those who do not
//! hold it [tell](super::peers) what they count, and all of them what an operator [holds](super::holds).

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::holds::Holds;
use super::peers::Peers;
use super::trust::builtin;
use crate::source::kubernetes::chain;
use crate::source::kubernetes::contact::Contact;

pub const LEASE: &str = "weir-control-plane";
const DURATION: Duration = Duration::from_secs(15);
/// Several attempts fit into the duration.
const RENEW_EVERY: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(3);
/// Somebody else may write at the same moment; then it is read anew.
const WRITES_MAX: usize = 3;

pub struct Lease {
    leases: Api<DynamicObject>,
    holder: String,
    /// What was seen last, and since when.
    seen: Option<(Value, Instant)>,
    renewed: Option<Instant>,
    held: watch::Sender<bool>,
}

impl Lease {
    pub fn new(client: Client, namespace: &str, holder: &str) -> Self {
        let resource = builtin("coordination.k8s.io", "v1", "Lease", "leases");
        Self {
            leases: Api::namespaced_with(client, namespace, &resource),
            holder: holder.to_owned(),
            seen: None,
            renewed: None,
            held: watch::Sender::new(false),
        }
    }

    /// Whether it is held, now and whenever that changes.
    pub fn held(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Until the control plane stops; then somebody else may have it.
    pub async fn run(
        mut self,
        contact: Contact,
        mut peers: Peers,
        mut holds: Holds,
        mut stopping: watch::Receiver<bool>,
    ) {
        loop {
            let attempts = self.attempts(&mut peers, &mut holds);
            let attempt = tokio::time::timeout(PATIENCE, attempts).await;
            let has_looked = matches!(attempt, Ok(Ok(_)));
            if has_looked {
                contact.made();
            }
            match attempt {
                Ok(Ok(true)) => self.renewed = Some(Instant::now()),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => {
                    tracing::debug!(error = chain(&error), "the Lease is not renewed")
                }
                Err(_) => tracing::debug!("the Lease is not renewed: no answer"),
            }
            // Given up before anybody else may take it.
            let still = self
                .renewed
                .is_some_and(|at| at.elapsed() + RENEW_EVERY < DURATION);
            let changed = self
                .held
                .send_if_modified(|held| std::mem::replace(held, still) != still);
            if changed {
                let word = if still { "held" } else { "not held any more" };
                tracing::info!(lease = LEASE, "{word}");
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = holds.news(), if has_looked => {}
                _ = stopping.wait_for(|stopping| *stopping) => break,
            }
        }
        if self.held.send_replace(false) {
            match tokio::time::timeout(PATIENCE, self.give_up()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = chain(&error), "the Lease expires"),
                Err(_) => tracing::debug!("the Lease expires: no answer"),
            }
        }
    }

    /// So that nobody has to wait until it expires.
    async fn give_up(&self) -> kube::Result<()> {
        let Some(mut lease) = self.leases.get_opt(LEASE).await? else {
            return Ok(());
        };
        let spec = lease.data["spec"].as_object_mut();
        let spec = spec.filter(|spec| {
            spec.get("holderIdentity")
                .is_some_and(|it| *it == self.holder)
        });
        // Some versions of the API take no empty one.
        if spec.is_some_and(|spec| spec.remove("holderIdentity").is_some()) {
            self.leases
                .replace(LEASE, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }

    async fn attempts(&mut self, peers: &mut Peers, holds: &mut Holds) -> kube::Result<bool> {
        let mut attempt = self.attempt(peers, holds).await;
        for _ in 1..WRITES_MAX {
            match attempt {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    attempt = self.attempt(peers, holds).await;
                }
                other => return other,
            }
        }
        attempt
    }

    /// Takes it or renews it; whether it is ours then.
    async fn attempt(&mut self, peers: &mut Peers, holds: &mut Holds) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(LEASE).await? else {
            let resource = builtin("coordination.k8s.io", "v1", "Lease", "leases");
            let spec = self.spec(0);
            let mut lease = DynamicObject::new(LEASE, &resource).data(json!({ "spec": spec }));
            let merged = holds.tell(lease.metadata.annotations.get_or_insert_default());
            self.leases.create(&PostParams::default(), &lease).await?;
            holds.agree(merged);
            return Ok(true);
        };
        let spec = lease.data["spec"].clone();
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let ours = holder == self.holder;
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let since = self.seen.as_ref().map(|(_, since)| since.elapsed());
        let expired = holder.is_empty() || since.is_some_and(|since| since >= DURATION);
        let is_holder = ours || expired;
        let annotations = lease.metadata.annotations.get_or_insert_default();
        if is_holder {
            peers.learn(annotations, DURATION);
            let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
            lease.data["spec"] = self.spec(transitions + i64::from(!ours));
        } else {
            peers.tell(annotations);
        }
        // Whoever has let it expire is gone.
        peers.meet(annotations, if is_holder { "" } else { holder });
        let merged = holds.merge(annotations);
        self.leases
            .replace(LEASE, &PostParams::default(), &lease)
            .await?;
        holds.agree(merged);
        Ok(is_holder)
    }

    fn spec(&self, transitions: i64) -> Value {
        // A MicroTime has six digits.
        let now = crate::time::rfc3339(crate::journal::now_ms()).replace("Z", "000Z");
        json!({
            "holderIdentity": self.holder,
            "leaseDurationSeconds": DURATION.as_secs(),
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }
}
