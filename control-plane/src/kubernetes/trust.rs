//! The mesh's trust bundle, where Kubernetes wants it: in a ConfigMap of every namespace with sidecars, which mount
//! it, and in the `caBundle` of our webhooks, by which the API server knows them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use prost::bytes::Bytes;
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
const SETTLE: Duration = Duration::from_millis(300);
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
        let mut namespaces = self.namespaces.changes();
        loop {
            let bundle = self.mesh.trust_bundle();
            namespaces.borrow_and_update();
            let told = self.told();
            let published = tokio::time::timeout(PATIENCE, self.publish(&told)).await;
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
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = namespaces.changed() => {}
                () = self.wanted(&bundle, &told) => {}
            }
        }
    }

    /// Returns when there is another bundle, or a sidecar where nobody was told of this one: a pod may ask to be in the
    /// mesh in a namespace that does not, and waits for its volume until then.
    async fn wanted(&self, bundle: &Arc<[Bytes]>, told: &BTreeSet<String>) {
        let mut versions = self.mesh.versions();
        loop {
            versions.borrow_and_update();
            if self.mesh.trust_bundle() != *bundle || self.mesh.has_sidecars_outside(told) {
                return;
            }
            if versions.changed().await.is_err() {
                return std::future::pending().await;
            }
            // A change seldom comes alone, and each look is at every pod.
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// The namespaces that are to have it.
    fn told(&self) -> BTreeSet<String> {
        let mut told = self.mesh.namespaces_with_sidecars();
        told.extend(self.namespaces.enabled());
        told
    }

    /// Everywhere, whatever goes wrong at one place; the first of what did.
    async fn publish(&self, namespaces: &BTreeSet<String>) -> kube::Result<()> {
        let pem = {
            let authority = self.authority.lock();
            let authority = authority.unwrap_or_else(PoisonError::into_inner);
            authority.trust_bundle_pem(SystemTime::now())
        };
        let mut told = Ok(());
        for kind in WEBHOOK_KINDS {
            told = told.and(self.tell_webhooks(kind, &pem).await);
        }
        for namespace in namespaces {
            told = told.and(self.tell_namespace(namespace, &pem).await);
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
