//! The network's configuration as it comes on stdin, as far as it concerns this plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::failure::{Code, Failure};

/// Oldest first. Before 0.3.0 there was no chain, and nothing to pass on.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// With this capability the runtime hands over the pod's annotations, and nobody need be asked for them.
pub(super) const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Keys of the specification that say nothing to this plugin; those of `cni.dev/` are the runtime's own.
const OF_OTHERS: [&str; 8] = [
    "name",
    "type",
    "capabilities",
    "args",
    "dns",
    "ipam",
    "disableCheck",
    "cniVersions",
];

#[derive(Debug)]
pub(super) struct Network {
    pub(super) version: &'static str,
    /// What the plugin before this one has made.
    pub(super) previous: Option<Value>,
    /// Credentials for the API server.
    pub(super) kubeconfig: Option<PathBuf>,
    /// Their pods are never ours, and must start when nobody can be asked.
    excluded: Vec<String>,
    /// The pod's, when the runtime hands them over.
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Network {
    pub(super) fn read(text: &[u8]) -> Result<Self, Failure> {
        let read: Value = serde_json::from_slice(text).map_err(|error| {
            Failure::new(
                Code::Unreadable,
                format!("the network's configuration is no JSON: {error}"),
            )
        })?;
        let Value::Object(fields) = read else {
            return Err(wrong("the network's configuration is no object".to_owned()));
        };
        let version = version(&fields)?;
        let mut network = Self {
            version,
            previous: None,
            kubeconfig: None,
            excluded: Vec::new(),
            annotations: None,
        };
        for (name, value) in fields {
            match name.as_str() {
                "cniVersion" => {}
                "prevResult" => network.previous = Some(value),
                "kubeconfig" => {
                    let path = value.as_str().ok_or_else(|| {
                        wrong(format!("kubeconfig: expected a path, found {value}"))
                    })?;
                    network.kubeconfig = Some(path.into());
                }
                "excludeNamespaces" => {
                    network.excluded = serde_json::from_value(value)
                        .map_err(|error| wrong(format!("excludeNamespaces: {error}")))?;
                }
                "runtimeConfig" => network.annotations = annotations(&value)?,
                other if OF_OTHERS.contains(&other) || other.starts_with("cni.dev/") => {}
                other => {
                    return Err(Failure::new(
                        Code::UnsupportedField,
                        format!("{other} is not known here"),
                    )
                    .with("weir-cni has kubeconfig and excludeNamespaces"));
                }
            }
        }
        Ok(network)
    }

    pub(super) fn is_excluded(&self, namespace: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == namespace)
    }

    /// Whether the network's version has a command that came later.
    pub(super) fn has(&self, version: &str) -> bool {
        let place = |wanted| VERSIONS.iter().position(|known| *known == wanted);
        place(self.version) >= place(version)
    }
}

fn version(fields: &Map<String, Value>) -> Result<&'static str, Failure> {
    let said = fields
        .get("cniVersion")
        .and_then(Value::as_str)
        .unwrap_or("0.1.0");
    let known = VERSIONS.into_iter().find(|known| *known == said);
    known.ok_or_else(|| {
        Failure::new(
            Code::IncompatibleVersion,
            format!("CNI {said} is not supported"),
        )
        .with("weir-cni has 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0")
    })
}

fn annotations(runtime: &Value) -> Result<Option<BTreeMap<String, String>>, Failure> {
    match runtime.get(ANNOTATIONS) {
        None => Ok(None),
        // A pod without any.
        Some(Value::Null) => Ok(Some(BTreeMap::new())),
        Some(found) => serde_json::from_value(found.clone())
            .map(Some)
            .map_err(|error| wrong(format!("runtimeConfig.{ANNOTATIONS}: {error}"))),
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(Code::BadConfiguration, message)
}
