//! Pod (v1): the part that says who it is, where it is, and whether it has a sidecar.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize};

use super::null::or_empty;
use super::{Metadata, ObjectName};
use crate::units::PortRanges;

/// A pod is in the mesh when a container or init container has this name, and is the injector's: a user's own may be called so.
pub const SIDECAR_CONTAINER: &str = "weir-proxy";

/// An annotation of the injector. It gets lost where pods are copied, and the environment of the sidecar stays.
const STATUS_ANNOTATION: &str = "weir.dev/inject-status";
const SIDECAR_ENV_PREFIX: &str = "WEIR_";

/// An annotation: the share of its service's calls that the pod gets, 100 being an ordinary one's.
pub const WEIGHT_ANNOTATION: &str = "weir.dev/weight";
pub const WEIGHT_DEFAULT: u32 = 100;
const WEIGHT_MAX: u32 = 1000;

/// An annotation: ports of the pod on which nobody looks for calls. The injector copies its namespace's to it.
pub const OPAQUE_PORTS_ANNOTATION: &str = "config.weir.dev/opaque-ports";

/// An annotation: ports of the pod whose connections pass by its sidecar. The injector copies its namespace's to it.
pub const SKIP_INBOUND_PORTS_ANNOTATION: &str = "config.weir.dev/skip-inbound-ports";

/// Those of a sidecar's own, for probes and scrapers without one: no redirection takes connections to them.
const SIDECARS_OWN_PORTS: RangeInclusive<u16> = 14190..=14191;

/// The label of the zone that a pod's node is in. Kubernetes copies it from the node (KEP-4742, the PodTopologyLabels
/// admission plugin); elsewhere whoever writes the pod may.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_empty")]
    pub spec: PodSpec,
    #[serde(default, deserialize_with = "or_empty")]
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    #[serde(deserialize_with = "or_empty")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// The first of those that an injector gives a sidecar; nobody here reads the others, and there are many pods.
    #[serde(
        deserialize_with = "first_of_sidecars",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<EnvVar>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvVar {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub container_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    #[serde(
        rename = "podIPs",
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub condition: String,
    pub status: String,
}

impl ContainerPort {
    fn is_tcp(&self) -> bool {
        let protocol = self.protocol.as_deref();
        protocol.is_none_or(|protocol| protocol == "TCP")
    }
}

impl Pod {
    pub fn is_meshed(&self) -> bool {
        let spec = &self.spec;
        let is_marked = self.metadata.annotations.contains_key(STATUS_ANNOTATION);
        (spec.containers.iter().chain(&spec.init_containers)).any(|container| {
            container.name == SIDECAR_CONTAINER && (is_marked || !container.env.is_empty())
        })
    }

    /// Whether its sidecar takes the connections to a port. To others callers speak as to a pod that has none.
    pub fn is_meshed_on(&self, port: u16) -> bool {
        self.is_meshed() && !self.skips_inbound(port)
    }

    /// The same of all ports that its app may open.
    pub fn is_meshed_throughout(&self) -> bool {
        let skipped = self.skip_inbound_ports_said().and_then(Result::ok);
        self.is_meshed() && skipped.is_none_or(|ports| ports.is_empty())
    }

    /// Whether connections to a port pass by the sidecar; an annotation that cannot be read says nothing.
    pub fn skips_inbound(&self, port: u16) -> bool {
        let said = self.skip_inbound_ports_said().and_then(Result::ok);
        SIDECARS_OWN_PORTS.contains(&port) || said.is_some_and(|ports| ports.contains(port))
    }

    pub fn service_account(&self) -> &str {
        match self.spec.service_account_name.as_deref() {
            None | Some("") => "default",
            Some(name) => name,
        }
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn identity(&self, trust_domain: &str) -> String {
        let (namespace, account) = (self.metadata.namespace(), self.service_account());
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
    }

    /// The service account as which it runs.
    pub fn account(&self) -> ObjectName {
        ObjectName::new(self.metadata.namespace(), self.service_account())
    }

    /// Where it runs; `None`: nowhere yet.
    pub fn node(&self) -> Option<&str> {
        let node = self.spec.node_name.as_deref();
        node.filter(|node| !node.is_empty())
    }

    /// The zone of that, when its labels say so.
    pub fn zone(&self) -> Option<&str> {
        let zone = self.metadata.labels.get(ZONE_LABEL)?;
        Some(zone.as_str()).filter(|zone| !zone.is_empty())
    }

    /// 1 to 1000; 100 when nothing is said that can be read.
    pub fn weight(&self) -> u32 {
        (self.weight_said().and_then(Result::ok)).unwrap_or(WEIGHT_DEFAULT)
    }

    /// What its annotation says, or what is wrong with that.
    pub(crate) fn weight_said(&self) -> Option<Result<u32, String>> {
        let text = self.metadata.annotations.get(WEIGHT_ANNOTATION)?;
        let weight = text.parse().ok();
        let weight = weight.filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        Some(weight.ok_or_else(|| {
            format!("{WEIGHT_ANNOTATION}: expected a whole number from 1 to {WEIGHT_MAX}, found {text:?}")
        }))
    }

    /// Whether its annotation says so; one that cannot be read says nothing.
    pub fn is_opaque(&self, port: u16) -> bool {
        let said = self.opaque_ports_said().and_then(Result::ok);
        said.is_some_and(|ports| ports.contains(port))
    }

    /// What its annotation says, or what is wrong with that.
    pub(crate) fn opaque_ports_said(&self) -> Option<Result<PortRanges, String>> {
        self.ports_said(OPAQUE_PORTS_ANNOTATION)
    }

    /// The same of the ports that pass by its sidecar.
    pub(crate) fn skip_inbound_ports_said(&self) -> Option<Result<PortRanges, String>> {
        self.ports_said(SKIP_INBOUND_PORTS_ANNOTATION)
    }

    fn ports_said(&self, annotation: &str) -> Option<Result<PortRanges, String>> {
        let ports = self.metadata.annotations.get(annotation)?.parse();
        Some(ports.map_err(|error: String| format!("{annotation}: {error}")))
    }

    pub fn is_ready(&self) -> bool {
        (self.status.conditions.iter())
            .any(|condition| condition.condition == "Ready" && condition.status == "True")
    }

    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// It will never run again, and its address may be somebody else's already.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let more = self.status.pod_ips.iter().map(|entry| &entry.ip);
        let mut seen = Vec::new();
        (self.status.pod_ip.iter().chain(more)).filter_map(move |ip| {
            let ip: IpAddr = ip.parse().ok()?;
            let first = !seen.contains(&ip);
            seen.push(ip);
            first.then_some(ip)
        })
    }

    /// The number of the container's TCP port with this name.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        (self
            .spec
            .containers
            .iter()
            .chain(&self.spec.init_containers))
        .flat_map(|container| &container.ports)
        .find(|port| port.is_tcp() && port.name.as_deref() == Some(name))
        .map(|port| port.container_port)
    }
}

fn first_of_sidecars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EnvVar>, D::Error> {
    let env: Vec<EnvVar> = or_empty(deserializer)?;
    let of_sidecars = |variable: &EnvVar| variable.name.starts_with(SIDECAR_ENV_PREFIX);
    Ok(env.into_iter().find(of_sidecars).into_iter().collect())
}
