//! Writes the status of our kinds, by server-side apply, while the Lease is held.
//!
//! Once a second at most, and only what is not as it should be: a change that a thousand sidecars acknowledge one
//! after another costs a few writes, not a thousand. Breakers flap where policies do not: what only they change waits
//! for [`BREAKERS_EVERY`].

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use weir_config::{Kind, ResourceRef};

use super::{ancestors, outages};
use crate::breakers::Breakers;
use crate::journal::now_ms;
use crate::kubernetes::peers::Others;
use crate::kubernetes::trust::FIELD_MANAGER;
use crate::mesh::Mesh;
use crate::source::kubernetes::register::Register;
use crate::source::kubernetes::{chain, resource};

const EVERY: Duration = Duration::from_secs(1);
/// At most one write of a policy's breakers in this time.
const BREAKERS_EVERY: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 8;
/// In one round; the next comes a second later.
const WRITES_MAX: usize = 200;
const PATIENCE: Duration = Duration::from_secs(5);

pub struct StatusWriter {
    client: Client,
    mesh: Mesh,
    breakers: Breakers,
    register: Register,
    others: Others,
    written: HashMap<ResourceRef, Written>,
    /// What a status follows from, as of the last round that had nothing left to do.
    settled: Option<Cause>,
}

/// The versions of all that a status follows from, and how many faults are over.
type Cause = (u64, u64, u64, u64, u64, usize);

struct Written {
    wanted: Value,
    /// What the API server made of it.
    got: Value,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Not,
    /// Only breakers have changed, and they were written a moment ago.
    Later,
    Now,
}

/// A status that is not as it should be.
struct Write {
    resource: ResourceRef,
    ancestors: Value,
}

impl StatusWriter {
    /// `others`: what other control planes count.
    pub fn new(
        client: Client,
        mesh: Mesh,
        breakers: Breakers,
        register: Register,
        others: Others,
    ) -> Self {
        Self {
            client,
            mesh,
            breakers,
            register,
            others,
            written: HashMap::new(),
            settled: None,
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(mut self, mut held: watch::Receiver<bool>) {
        while held.wait_for(|held| *held).await.is_ok() {
            self.round().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn round(&mut self) {
        let now_ms = now_ms();
        let cause = (
            self.mesh.version(),
            self.mesh.acknowledgements(),
            self.breakers.revision(),
            self.register.revision(),
            self.others.revision(),
            self.mesh.faults_over(now_ms),
        );
        if self.settled == Some(cause) {
            return;
        }
        let (writes, nothing_left) = self.writes(now_ms);
        let client = &self.client;
        let results = stream::iter(writes)
            .map(|write| async move {
                let result = tokio::time::timeout(PATIENCE, apply(client, &write)).await;
                (write, result)
            })
            .buffer_unordered(AT_ONCE);
        let results: Vec<_> = results.collect().await;
        let mut failed = false;
        for (write, result) in results {
            match result {
                Ok(Ok(status)) => {
                    let written = Written {
                        wanted: write.ancestors,
                        got: status,
                        at: Instant::now(),
                    };
                    self.written.insert(write.resource, written);
                }
                // It is gone: there is nothing to say any more.
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                Ok(Err(error)) => {
                    failed = true;
                    let (resource, error) = (write.resource.to_string(), chain(&error));
                    tracing::warn!(resource, error, "its status was not written");
                }
                Err(_) => failed = true,
            }
        }
        self.settled = (nothing_left && !failed).then_some(cause);
    }

    /// And whether there is nothing left to write after them.
    fn writes(&mut self, now_ms: u64) -> (Vec<Write>, bool) {
        let mut entries = self.register.entries();
        // Routes have a status of another shape, which others write in, too.
        entries.retain(|(resource, _)| resource.kind.is_ours());
        self.written
            .retain(|resource, _| entries.binary_search_by(|(it, _)| it.cmp(resource)).is_ok());
        let not_closed = self.breakers.not_closed();
        let (mut writes, mut nothing_left) = (Vec::new(), true);
        for (resource, entry) in entries {
            let enforcement = self.mesh.enforcement(&resource, &not_closed);
            let mut enforcement = enforcement.unwrap_or_default();
            self.others
                .add(&resource, entry.generation, &mut enforcement);
            let ancestors = ancestors(&resource, &entry, &enforcement, now_ms);
            let written = self.written.get(&resource);
            match due(written, &entry.status, &ancestors, Instant::now()) {
                Due::Not => {}
                Due::Later => nothing_left = false,
                Due::Now => writes.push(Write {
                    resource,
                    ancestors,
                }),
            }
            if writes.len() == WRITES_MAX {
                nothing_left = false;
                break;
            }
        }
        (writes, nothing_left)
    }
}

/// `status`: as the API has it.
fn due(written: Option<&Written>, status: &Value, ancestors: &Value, now: Instant) -> Due {
    if status["ancestors"] == *ancestors {
        return Due::Not;
    }
    let Some(written) = written else {
        return Due::Now;
    };
    // Of what an older schema of the server leaves out, writing it again makes no more.
    if written.wanted == *ancestors && written.got == *status {
        return Due::Not;
    }
    let is_recent = now.saturating_duration_since(written.at) < BREAKERS_EVERY;
    if is_recent && without_breakers(&written.wanted) == without_breakers(ancestors) {
        return Due::Later;
    }
    Due::Now
}

fn without_breakers(ancestors: &Value) -> Value {
    let mut rest = ancestors.clone();
    for ancestor in rest.as_array_mut().into_iter().flatten() {
        if let Some(conditions) = ancestor["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["type"] != outages::NAME);
        }
    }
    rest
}

/// The status as the API server has it then.
async fn apply(client: &Client, write: &Write) -> kube::Result<Value> {
    let (kind, name) = (write.resource.kind, &write.resource.name);
    let objects: Api<DynamicObject> = match kind {
        Kind::MeshConfig => Api::all_with(client.clone(), &resource(kind)),
        _ => Api::namespaced_with(client.clone(), &name.namespace, &resource(kind)),
    };
    let status = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": { "name": name.name },
        "status": { "ancestors": write.ancestors },
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut written = objects
        .patch_status(&name.name, &params, &Patch::Apply(&status))
        .await?;
    Ok(written.data["status"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ancestors(enforced: &str, breakers: Option<&str>) -> Value {
        let mut conditions = vec![json!({ "type": "Enforced", "message": enforced })];
        conditions.extend(breakers.map(|told| json!({ "type": outages::NAME, "message": told })));
        json!([{ "conditions": conditions }])
    }

    #[test]
    fn breakers_that_flap_cost_a_write_in_some_seconds_and_all_else_costs_it_at_once() {
        let at = Instant::now();
        let wanted = ancestors("1 of 2", Some("1 of 2 callers holds cart-0 open"));
        let got = json!({ "ancestors": wanted });
        let written = Written {
            wanted: wanted.clone(),
            got: got.clone(),
            at,
        };
        let due = |new: &Value, after| due(Some(&written), &got, new, at + after);
        let soon = Duration::from_secs(1);
        assert_eq!(due(&wanted, soon), Due::Not);
        for breakers in [None, Some("2 of 2 callers hold cart-0 open")] {
            let flapped = ancestors("1 of 2", breakers);
            assert_eq!(due(&flapped, soon), Due::Later);
            assert_eq!(due(&flapped, BREAKERS_EVERY), Due::Now);
        }
        assert_eq!(due(&ancestors("2 of 2", None), soon), Due::Now);
    }
}
