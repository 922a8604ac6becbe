//! One sidecar's stream, from Hello to its end.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Status, Streaming};
use weir_config::pb;
use weir_config::pb::from_proxy::Message;
use weir_config::resource::ObjectName;

use super::PushServer;
use super::facts::{Facts, clean};
use super::ledger::Ledger;
use crate::journal::{Fact, Journal, now_ms};
use crate::mesh::Membership;
use crate::proxies::Proxies;
use crate::questions::Questions;

/// Changes of policy wait this long for what belongs to them; endpoints do not.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// An app that calls more addresses than this at a time is scanning a network.
const SUBSCRIPTIONS_MAX: usize = 20_000;

pub(super) struct Session {
    pod: ObjectName,
    membership: Membership,
    ledger: Ledger,
    facts: Facts,
    journal: Journal,
    proxies: Proxies,
    questions: Questions,
    outbound: mpsc::Sender<Result<pb::ToProxy, Status>>,
    stalled_after: Duration,
}

/// Why a stream is over.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    Broken(String),
    Stalled(u64),
    Replaced,
    CertificateExpired,
    Stopping,
    Protocol(String),
}

impl Session {
    pub(super) fn new(
        server: &PushServer,
        pod: &ObjectName,
        outbound: mpsc::Sender<Result<pb::ToProxy, Status>>,
    ) -> Self {
        Self {
            pod: pod.clone(),
            membership: server.mesh.join(pod),
            ledger: Ledger::default(),
            facts: Facts::new(server, pod),
            journal: server.journal.clone(),
            proxies: server.proxies.clone(),
            questions: server.questions.clone(),
            outbound,
            stalled_after: server.stalled_after,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbound: Streaming<pb::FromProxy>,
        certificate_left: Duration,
        mut replaced: oneshot::Receiver<()>,
        mut stopping: watch::Receiver<bool>,
    ) -> End {
        let expiry = sleep(certificate_left);
        tokio::pin!(expiry);
        let mut asking = self.questions.listen();
        loop {
            let idle = self.ledger.is_idle();
            let owed_since = self.ledger.waiting_since().unwrap_or_else(Instant::now);
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(pb::FromProxy { message: Some(message) })) => {
                        if let Err(problem) = self.hear(message) {
                            return End::Protocol(problem);
                        }
                    }
                    // A message of a newer protocol, which this control plane cannot know.
                    Ok(Some(pb::FromProxy { message: None })) => {}
                    Ok(None) => return End::Closed,
                    Err(status) => return End::Broken(status.message().to_owned()),
                },
                () = self.worth_sending(), if idle => {
                    if self.send().is_err() {
                        return End::Closed;
                    }
                }
                () = sleep_until(owed_since + self.stalled_after), if !idle => return End::Stalled(self.ledger.sent_version),
                question = asking.recv() => {
                    if let Ok(question) = question {
                        self.ask(question);
                    }
                }
                () = &mut expiry => return End::CertificateExpired,
                _ = &mut replaced => return End::Replaced,
                _ = stopping.wait_for(|stopping| *stopping) => return End::Stopping,
            }
        }
    }

    async fn worth_sending(&self) {
        if !self.ledger.has_queued() {
            self.membership.mailbox().ripe(DEBOUNCE).await;
        }
    }

    fn send(&mut self) -> Result<(), ()> {
        let next = self.ledger.next(|| self.membership.mailbox().take());
        let news = self.membership.collect(&next);
        let version = news.version;
        let push = self.ledger.push(news, Instant::now());
        for reason in self.ledger.take_too_large() {
            self.refused(version, reason);
        }
        let Some(push) = push else { return Ok(()) };
        self.proxies
            .update(&self.pod, |proxy| proxy.sent_version = push.version);
        // The channel has room for it: the one before was answered, so it was read.
        self.outbound.try_send(Ok(push)).map_err(|_| ())
    }

    /// Pushes come first: a question takes no place that one of them or the last word needs.
    fn ask(&self, question: pb::Question) {
        if self.outbound.capacity() > 2 {
            let question = pb::ToProxy {
                question: Some(question),
                ..pb::ToProxy::default()
            };
            // It fails only when the stream is gone, which the loop notices.
            let _ = self.outbound.try_send(Ok(question));
        }
    }

    fn hear(&mut self, message: Message) -> Result<(), String> {
        self.proxies
            .update(&self.pod, |proxy| proxy.last_seen_ms = now_ms());
        match message {
            Message::Hello(_) => return Err("Hello came twice".to_owned()),
            Message::Subscribe(pb::Subscribe { address }) => {
                if self.membership.subscriptions() >= SUBSCRIPTIONS_MAX {
                    return Err(format!(
                        "more than {SUBSCRIPTIONS_MAX} addresses subscribed to"
                    ));
                }
                self.membership.subscribe(parse(&address)?);
                self.count_destinations();
            }
            Message::Unsubscribe(pb::Unsubscribe { address }) => {
                self.membership.unsubscribe(parse(&address)?);
                self.count_destinations();
            }
            Message::Ack(ack) => self.acked(ack.nonce),
            Message::Nack(nack) => self.nacked(nack),
            Message::Fact(fact) => self.facts.heard(fact),
            Message::Standing(standing) => self.facts.stands(standing),
            Message::Explained(explained) => self.questions.answered(&self.pod, explained),
        }
        Ok(())
    }

    fn acked(&mut self, nonce: u64) {
        let Some(acked) = self.ledger.ack(nonce) else {
            return;
        };
        self.membership.acknowledged(&acked.held);
        let has_refused = self.ledger.has_refused();
        self.proxies.update(&self.pod, |proxy| {
            proxy.acked_version = acked.version;
            if !has_refused {
                proxy.last_nack.clear();
            }
        });
        if acked.rollout {
            self.journal.note(Fact::PushAcknowledged {
                pod: self.pod.to_string(),
                version: acked.version,
            });
        }
    }

    fn nacked(&mut self, nack: pb::Nack) {
        let Some(version) = self.ledger.nack(nack.nonce) else {
            return;
        };
        self.refused(version, clean(&nack.reason));
    }

    fn refused(&self, version: u64, reason: String) {
        tracing::warn!(pod = %self.pod, version, reason, "push refused");
        self.proxies
            .update(&self.pod, |proxy| proxy.last_nack.clone_from(&reason));
        self.journal.note(Fact::PushRefused {
            pod: self.pod.to_string(),
            version,
            reason,
        });
    }

    fn count_destinations(&self) {
        let count = self.membership.subscriptions();
        self.proxies
            .update(&self.pod, |proxy| proxy.destinations = count);
    }
}

fn parse(address: &str) -> Result<SocketAddr, String> {
    address
        .parse()
        .map_err(|_| "an address that is not ip:port".to_owned())
}

impl End {
    /// What the sidecar is told; `None` when it is not there to hear it.
    pub(super) fn status(&self) -> Option<Status> {
        match self {
            Self::Closed | Self::Broken(_) => None,
            Self::Protocol(_) => Some(Status::invalid_argument(self.to_string())),
            Self::Stalled(_) | Self::Replaced | Self::CertificateExpired | Self::Stopping => {
                Some(Status::unavailable(self.to_string()))
            }
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the sidecar"),
            Self::Broken(reason) => write!(f, "the connection broke: {reason}"),
            Self::Stalled(version) => {
                write!(f, "no answer to version {version} for too long: dropped")
            }
            Self::Replaced => f.write_str("a newer connection of the same pod took its place"),
            Self::CertificateExpired => f.write_str("its certificate has expired"),
            Self::Stopping => f.write_str("the control plane stops"),
            Self::Protocol(problem) => write!(f, "it broke the protocol: {problem}"),
        }
    }
}
