//! The mesh's trust bundle, where Kubernetes wants it: in a ConfigMap of every namespace with sidecars, which mount
//! it, and in the `caBundle` of our webhooks, by which the API server knows them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::namespaces::Namespaces;
use crate::authority::Authority;
use crate::mesh::Mesh;
use crate::source::kubernetes::chain;

/// The injector's volume mounts the ConfigMap of this name.
pub const TRUST_CONFIG_MAP: &str = "weir-trust-bundle";
const TRUST_KEY: &str = "ca.crt";
pub const FIELD_MANAGER: &str = "weir-control-plane";
/// Somebody may have changed or removed what was published.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// For all namespaces together.
const PATIENCE: Duration = Duration::from_secs(60);
const WEBHOOK_KINDS: [&str; 2] = [
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

#[derive(Clone)]
pub struct TrustPublisher {
    pub client: Client,
    pub mesh: Mesh,
    pub authority: Arc<Mutex<Authority>>,
    pub namespaces: Namespaces,
    /// The Service that webhook configurations name.
    pub namespace: String,
    pub service: String,
}

impl TrustPublisher {
    /// Runs for as long as the process does.
    pub async fn run(self) {
        let (mut versions, mut namespaces) = (self.mesh.versions(), self.namespaces.changes());
        loop {
            let bundle = self.mesh.trust_bundle();
            namespaces.borrow_and_update();
            let published = tokio::time::timeout(PATIENCE, self.publish()).await;
            let wait = match published {
                Ok(Ok(())) => LOOK_EVERY,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = chain(&error),
                        "the trust bundle could not be published"
                    );
                    RETRY_AFTER
                }
                Err(_) => {
                    tracing::warn!(
                        "the trust bundle could not be published: the API server does not answer"
                    );
                    RETRY_AFTER
                }
            };
            let renewed = async {
                while versions.changed().await.is_ok() {
                    if *self.mesh.trust_bundle() != *bundle {
                        return;
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = namespaces.changed() => {}
                () = renewed => {}
            }
        }
    }

    /// Everywhere, whatever goes wrong at one place; the first of what did.
    pub async fn publish(&self) -> kube::Result<()> {
        let pem = {
            let authority = self.authority.lock();
            let authority = authority.unwrap_or_else(PoisonError::into_inner);
            authority.trust_bundle_pem(SystemTime::now())
        };
        let mut told = Ok(());
        for kind in WEBHOOK_KINDS {
            told = told.and(self.tell_webhooks(kind, &pem).await);
        }
        let with_sidecars = self.mesh.namespaces_with_sidecars();
        let all: BTreeSet<String> = (self.namespaces.enabled().into_iter())
            .chain(with_sidecars)
            .collect();
        for namespace in all {
            told = told.and(self.tell_namespace(&namespace, &pem).await);
        }
        told
    }

    async fn tell_namespace(&self, namespace: &str, pem: &str) -> kube::Result<()> {
        let resource = builtin("", "v1", "ConfigMap", "configmaps");
        let maps: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": TRUST_CONFIG_MAP, "labels": { "app.kubernetes.io/managed-by": "weir" } },
            "data": { TRUST_KEY: pem },
        });
        if let Some(found) = maps.get_opt(TRUST_CONFIG_MAP).await?
            && found.data["data"] == map["data"]
        {
            return Ok(());
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match maps
            .patch(TRUST_CONFIG_MAP, &params, &Patch::Apply(&map))
            .await
        {
            // The namespace is going, or gone.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!(namespace, reason = status.message, "no trust bundle there");
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    /// Those whose Service is ours, whatever their names are.
    async fn tell_webhooks(&self, kind: &str, pem: &str) -> kube::Result<()> {
        use base64::Engine;
        let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
        let plural = format!("{}s", kind.to_lowercase());
        let resource = builtin("admissionregistration.k8s.io", "v1", kind, &plural);
        let configurations: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut told = Ok(());
        for mut found in configurations.list(&ListParams::default()).await? {
            let name = found.metadata.name.clone().unwrap_or_default();
            if self.set_bundle(&mut found.data, &bundle) {
                // With the version that was read: of two writers, one reads again.
                match configurations
                    .replace(&name, &PostParams::default(), &found)
                    .await
                {
                    Ok(_) => tracing::info!(kind, name, "caBundle is up to date"),
                    Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                    // Whoever made another one that names us has to see to it himself.
                    Err(kube::Error::Api(status)) if status.code == 403 => {
                        tracing::warn!(kind, name, reason = status.message, "no caBundle there");
                    }
                    Err(error) => told = told.and(Err(error)),
                }
            }
        }
        told
    }

    /// Whether anything changed.
    fn set_bundle(&self, configuration: &mut Value, bundle: &str) -> bool {
        let mut changed = false;
        let webhooks = configuration["webhooks"].as_array_mut();
        for webhook in webhooks.into_iter().flatten() {
            let client = &mut webhook["clientConfig"];
            let service = &client["service"];
            let ours = service["name"] == self.service.as_str()
                && service["namespace"] == self.namespace.as_str();
            if ours && client["caBundle"] != bundle {
                client["caBundle"] = json!(bundle);
                changed = true;
            }
        }
        changed
    }
}

pub fn builtin(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
