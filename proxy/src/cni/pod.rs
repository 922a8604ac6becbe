//! Which pod a container runtime means, and what its annotations say about its traffic.

use std::collections::BTreeMap;

use serde_json::Value;

use super::failure::{Code, Failure};
use crate::redirect::Redirection;

/// Written by the injector.
const STATUS: &str = "weir.dev/inject-status";
/// In the status of a pod that has nobody of its own to write its rules.
const REDIRECT: &str = "redirect";
/// Of Kubernetes' names.
const NAME_BYTES_MAX: usize = 253;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<String>,
}

impl Pod {
    /// From `CNI_ARGS`. `None`: nobody of Kubernetes is asking.
    pub(super) fn meant(arguments: &str) -> Result<Option<Self>, Failure> {
        let value = |name: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let (namespace, name) = match (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME")) {
            (None, None) => return Ok(None),
            (Some(namespace), Some(name)) => (namespace, name),
            _ => {
                return Err(bad(
                    "CNI_ARGS names a pod or a namespace, and not both".to_owned()
                ));
            }
        };
        // They become part of a path at the API server.
        for text in [namespace, name] {
            let is_name = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
            };
            let is_path = text.is_empty() || text.starts_with('.') || text.len() > NAME_BYTES_MAX;
            if is_path || !text.bytes().all(is_name) {
                return Err(bad(format!("CNI_ARGS: {text:?} is no name of Kubernetes")));
            }
        }
        Ok(Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: value("K8S_POD_UID")
                .filter(|uid| !uid.is_empty())
                .map(str::to_owned),
        }))
    }
}

fn bad(message: String) -> Failure {
    Failure::new(Code::BadEnvironment, message)
}

/// The redirection that a pod's annotations ask for. `None`: it is not in the mesh, or writes its rules itself.
pub(super) fn redirection(
    annotations: &BTreeMap<String, String>,
) -> Result<Option<Redirection>, Failure> {
    let Some(status) = annotations.get(STATUS) else {
        return Ok(None);
    };
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(Code::Redirection, format!("annotation {STATUS}: {why}"))
            .with("the injector writes it; is weir-cni of the control plane's version?")
    };
    let status: Value = serde_json::from_str(status).map_err(|error| wrong(&error))?;
    match status.get(REDIRECT) {
        None => Ok(None),
        Some(said) => Redirection::read(said)
            .map(Some)
            .map_err(|error| wrong(&error)),
    }
}
