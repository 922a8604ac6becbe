//! What a pod is born with: its object after the injector, a uid, a token.

use std::fs;
use std::io::Read;

use serde_json::Value;
use weir_control_plane::injector::{InjectorSettings, NamespaceContext, Outcome, inject};

use super::{SYSTEM_NAMESPACE, Supervisor};
use crate::cni;
use crate::error::{Doing, Error, Result};
use crate::manifest::Workload;
use crate::volume::Identity;

impl Supervisor {
    /// The pod a template makes, after the injector.
    pub(super) fn patched(&self, workload: &Workload, name: &str, uid: &str) -> Result<Value> {
        let mut pod = workload.template.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = workload.namespace.as_str().into();
        pod["metadata"]["uid"] = uid.into();
        pod["spec"]["nodeName"] = crate::node::NAME.into();
        if pod["spec"]["serviceAccountName"].is_null() {
            pod["spec"]["serviceAccountName"] = "default".into();
        }
        if !self.node.settings.mesh || workload.namespace == SYSTEM_NAMESPACE {
            return Ok(pod);
        }
        let namespace = self.node.manifests.namespaces.get(&workload.namespace);
        let namespace = namespace.cloned().unwrap_or_default();
        let context = NamespaceContext {
            name: workload.namespace.clone(),
            labels: namespace.labels,
            annotations: namespace.annotations,
        };
        let cni = self.node.settings.cni;
        let injector = InjectorSettings {
            cni,
            ..InjectorSettings::default()
        };
        match inject(&pod, &context, &injector) {
            Ok(Outcome::Injected(mut patched)) => {
                if cni && self.node.settings.rootless {
                    cni::mark(&mut patched);
                }
                Ok(patched)
            }
            Ok(Outcome::Skipped(why)) => {
                self.node.say(format!("{name}: not in the mesh: {why}"));
                Ok(pod)
            }
            Err(refusal) => Err(Error::Request(format!(
                "the injector refuses {name}: {refusal}"
            ))),
        }
    }

    /// A fresh token, left where the control plane looks for it.
    pub(super) fn identity(&self, namespace: &str, pod: &str) -> Result<Identity> {
        if !self.node.settings.mesh || namespace == SYSTEM_NAMESPACE {
            return Ok(Identity::default());
        }
        let token = hex(&random::<32>()?);
        let folder = self.node.tokens().join(namespace);
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        let path = folder.join(pod);
        fs::write(&path, &token).doing(|| format!("write {}", path.display()))?;
        let bundle = self.node.trust_bundle();
        Ok(Identity {
            token,
            trust_bundle: fs::read_to_string(&bundle)
                .doing(|| format!("read {}", bundle.display()))?,
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .doing(|| "read /dev/urandom".to_owned())?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn uuid() -> Result<String> {
    let all = hex(&random::<16>()?);
    let parts = [
        &all[..8],
        &all[8..12],
        &all[12..16],
        &all[16..20],
        &all[20..],
    ];
    Ok(parts.join("-"))
}
