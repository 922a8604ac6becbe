//! EndpointSlice (discovery.k8s.io/v1): where a service's endpoints are and how they feel.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::null::or_empty;
use super::{Metadata, ObjectName, Pod};

/// The label by which a slice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: Metadata,
    /// IPv4, IPv6 or FQDN: addresses are read as what they look like, so this is for people.
    #[serde(default)]
    pub address_type: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default, deserialize_with = "or_empty")]
    pub ports: Vec<SlicePort>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    #[serde(deserialize_with = "or_empty")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Absent means yes for `ready`, the same as `ready` for `serving`, and no for `terminating`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetObject {
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl EndpointSlice {
    /// The service this slice belongs to: by label, as the controller writes it, else (files written by hand)
    /// the service that has the slice's own name.
    pub fn service(&self) -> ObjectName {
        let name = self
            .metadata
            .labels
            .get(SERVICE_NAME)
            .unwrap_or(&self.metadata.name);
        ObjectName::new(self.metadata.namespace(), name)
    }

    /// The family of its addresses, of which a slice has one; `None`: it has names, or nothing.
    pub fn is_ipv4(&self) -> Option<bool> {
        let mut addresses = self.endpoints.iter().flat_map(|it| &it.addresses);
        let first: Option<IpAddr> = addresses.next().and_then(|first| first.parse().ok());
        first.map(|ip| ip.is_ipv4())
    }

    /// Whether a pod is among its endpoints, by its name or, where they name none, by its address.
    pub fn lists(&self, pod: &Pod) -> bool {
        let (namespace, name) = (self.metadata.namespace(), pod.metadata.object_name());
        self.endpoints.iter().any(|it| match it.pod(namespace) {
            Some(named) => named == name,
            None => pod.addresses().any(|ip| it.first_ip() == Some(ip)),
        })
    }

    /// The number behind a service port's name, here.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        self.ports
            .iter()
            .filter(|port| {
                port.protocol
                    .as_deref()
                    .is_none_or(|protocol| protocol == "TCP")
            })
            .find(|port| port.name.as_deref().unwrap_or_default() == name)?
            .port
    }
}

impl SliceEndpoint {
    /// The pod behind it, when there is one.
    pub fn pod(&self, slice_namespace: &str) -> Option<ObjectName> {
        let target = self
            .target_ref
            .as_ref()
            .filter(|target| target.kind == "Pod")?;
        let namespace = target.namespace.as_deref().unwrap_or(slice_namespace);
        Some(ObjectName::new(namespace, &target.name))
    }

    /// All its addresses are of the same one, so the first is enough to know who that is.
    pub fn first_ip(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }
}

impl Conditions {
    pub fn is_ready(self) -> bool {
        self.ready.unwrap_or(true)
    }

    pub fn is_serving(self) -> bool {
        self.serving.unwrap_or_else(|| self.is_ready())
    }

    pub fn is_terminating(self) -> bool {
        self.terminating.unwrap_or(false)
    }
}
