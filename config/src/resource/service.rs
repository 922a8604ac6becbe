//! Service (v1): the part that says who answers to an address and what is spoken there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Metadata;
use super::null::or_empty;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_empty")]
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    #[serde(
        rename = "clusterIPs",
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cluster_ips: Vec<String>,
    #[serde(
        deserialize_with = "or_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_empty")]
    pub ports: Vec<ServicePort>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// `TCP` when absent; we look at no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Why nobody calls a Service by an address of its own. What is said for its callers holds for none of those who call
/// where its name leads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// `clusterIP: None`: its name leads to the addresses of its pods.
    Headless,
    /// Its name leads to another name.
    ExternalName,
}

/// A port's number or its name, as Kubernetes has them in one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(u16),
    Name(String),
}

impl std::fmt::Display for NoAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, whom) = match self {
            Self::Headless => ("has no ClusterIP", "its pods"),
            Self::ExternalName => ("is of type ExternalName", "what its name leads to"),
        };
        write!(
            f,
            "the Service {what}: its callers call {whom}, and nothing that is said for callers of the Service holds for them"
        )
    }
}

impl ServiceSpec {
    /// `None`: it has an address, or will get one.
    pub fn no_address(&self) -> Option<NoAddress> {
        if self.service_type.as_deref() == Some("ExternalName") {
            return Some(NoAddress::ExternalName);
        }
        (self.cluster_ip.as_deref() == Some("None")).then_some(NoAddress::Headless)
    }

    /// Whether callers are to have the endpoints of their own node only (`internalTrafficPolicy: Local`), as those of
    /// agents that run on each. It is about who answers to the Service's address, so of one that has none it says nothing.
    pub fn is_node_local(&self) -> bool {
        self.internal_traffic_policy.as_deref() == Some("Local") && self.no_address().is_none()
    }

    /// Every address of the service; a headless one has none.
    pub fn addresses(&self) -> impl Iterator<Item = std::net::IpAddr> {
        let all = if self.cluster_ips.is_empty() {
            self.cluster_ip.as_slice()
        } else {
            &self.cluster_ips
        };
        all.iter().filter_map(|ip| ip.parse().ok())
    }
}

impl ServicePort {
    pub fn is_tcp(&self) -> bool {
        self.protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "TCP")
    }

    /// Kubernetes lets a single port go without a name; slices then call it "".
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port number or a port's name")
            }

            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<IntOrString, E> {
                u16::try_from(port).map(IntOrString::Int).map_err(|_| {
                    E::custom(format!("expected a port from 1 to 65535, found {port}"))
                })
            }

            fn visit_i64<E: serde::de::Error>(self, port: i64) -> Result<IntOrString, E> {
                u16::try_from(port).map(IntOrString::Int).map_err(|_| {
                    E::custom(format!("expected a port from 1 to 65535, found {port}"))
                })
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
