//! Writes the status of our kinds, by server-side apply, while the Lease is held.
//!
//! Once a second at most, and only what is not as it should be: a change that a thousand sidecars acknowledge one
//! after another costs a few writes, not a thousand.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_config::{Kind, ResourceRef};

use super::{ancestors, counts};
use crate::journal::now_ms;
use crate::kubernetes::trust::FIELD_MANAGER;
use crate::mesh::Mesh;
use crate::source::kubernetes::register::{Entry, Register};
use crate::source::kubernetes::{chain, resource};

const EVERY: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 8;
/// In one round; the next comes a second later.
const WRITES_MAX: usize = 200;
const PATIENCE: Duration = Duration::from_secs(5);

pub struct StatusWriter {
    client: Client,
    mesh: Mesh,
    register: Register,
    /// What was written, and what the API server made of it.
    written: HashMap<ResourceRef, (Value, Value)>,
    /// Versions of all that a status follows from, as of the last round that had nothing left to do.
    settled: Option<(u64, u64, u64)>,
}

/// A status that is not as it should be.
struct Write {
    resource: ResourceRef,
    ancestors: Value,
}

impl StatusWriter {
    pub fn new(client: Client, mesh: Mesh, register: Register) -> Self {
        Self {
            client,
            mesh,
            register,
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
        let now = (
            self.mesh.version(),
            self.mesh.acknowledgements(),
            self.register.revision(),
        );
        if self.settled == Some(now) {
            return;
        }
        let writes = self.writes();
        let all_of_them = writes.len() < WRITES_MAX;
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
                    self.written
                        .insert(write.resource, (write.ancestors, status));
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
        self.settled = (all_of_them && !failed).then_some(now);
    }

    fn writes(&mut self) -> Vec<Write> {
        let now = crate::time::rfc3339(now_ms() / 1000 * 1000).replace(".000Z", "Z");
        let mut entries = self.register.entries();
        // Routes have a status of another shape, which others write in, too.
        entries.retain(|(resource, _)| resource.kind.is_ours());
        self.written
            .retain(|resource, _| entries.binary_search_by(|(it, _)| it.cmp(resource)).is_ok());
        let mut writes = Vec::new();
        for (resource, entry) in entries {
            let enforcement = match counts(resource.kind) {
                true => self.mesh.enforcement(&resource.name).unwrap_or_default(),
                false => Vec::new(),
            };
            let ancestors = ancestors(&resource, &entry, &enforcement, &now);
            if self.is_due(&resource, &entry, &ancestors) {
                writes.push(Write {
                    resource,
                    ancestors,
                });
            }
            if writes.len() == WRITES_MAX {
                break;
            }
        }
        writes
    }

    fn is_due(&self, resource: &ResourceRef, entry: &Entry, ancestors: &Value) -> bool {
        if entry.status["ancestors"] == *ancestors {
            return false;
        }
        // Of what an older schema of the server leaves out, writing it again makes no more.
        let written = self.written.get(resource);
        written.is_none_or(|(wanted, got)| wanted != ancestors || *got != entry.status)
    }
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
