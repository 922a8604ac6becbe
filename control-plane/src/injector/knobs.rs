//! The effective settings of one pod: its own annotations, else its namespace's, else the operator's.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use weir_config::units::PortRanges;

use super::settings::{InjectorSettings, NamespaceContext};
use super::{KNOB_PREFIX, Refusal, quantity};

/// Every knob there is. One that is not here is a typing mistake and gets a warning.
const KNOBS: [&str; 15] = [
    "opaque-ports",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-cidrs",
    "log-level",
    "access-log",
    "proxy-image",
    "drain-seconds",
    "stop-delay-seconds",
    "rewrite-probes",
    "native-sidecar",
    "proxy-cpu-request",
    "proxy-cpu-limit",
    "proxy-memory-request",
    "proxy-memory-limit",
];

/// Callers hear within a second that a pod is leaving; whoever is not in the mesh takes a little longer.
const STOP_DELAY_SECONDS: u64 = 2;

#[derive(Debug, Serialize)]
pub(super) struct Knobs {
    pub(super) proxy_image: String,
    pub(super) control_plane_addr: String,
    pub(super) trust_domain: String,
    pub(super) proxy_uid: u32,
    pub(super) token_audience: String,
    /// Already within the pod's grace period.
    pub(super) drain_seconds: u64,
    pub(super) grace_seconds: u64,
    /// How long the app is not told to end, so that its callers have left. 0: it is told at once.
    pub(super) stop_delay_seconds: u64,
    pub(super) log_level: String,
    pub(super) access_log: Option<String>,
    /// Left out when nothing is said, for the sake of the hash of pods from before there was this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opaque_ports: Option<String>,
    pub(super) skip_inbound_ports: Option<String>,
    pub(super) skip_outbound_ports: Option<String>,
    pub(super) skip_outbound_cidrs: Option<String>,
    pub(super) rewrite_probes: bool,
    pub(super) native_sidecar: bool,
    /// Left out when it is not: pods of the other mode keep the hash that they had before there was this one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cni: bool,
    /// As in a container's `resources`.
    pub(super) resources: Value,
    /// The namespace's annotations that the pod did not override: copied to it, so that it records what it was built with.
    pub(super) inherited: BTreeMap<String, String>,
}

impl Knobs {
    pub(super) fn resolve(
        pod: &Value,
        namespace: &NamespaceContext,
        settings: &InjectorSettings,
    ) -> Result<Self, Refusal> {
        let own = pod
            .pointer("/metadata/annotations")
            .and_then(Value::as_object);
        let annotations = Annotations { own, namespace };
        // Kubernetes' default of terminationGracePeriodSeconds.
        let grace_seconds = pod
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(30);
        let seconds = |knob| annotations.parsed(knob, SECONDS, |text| text.parse().ok());
        let drain_seconds = seconds("drain-seconds")?.unwrap_or(settings.drain_seconds.into());
        let stop_delay = seconds("stop-delay-seconds")?.unwrap_or(STOP_DELAY_SECONDS);
        let native_sidecar = annotations
            .parsed("native-sidecar", SWITCH, switch)?
            .unwrap_or(true);
        // A sidecar that is an ordinary container is told to end at once, and answers only while it still takes calls.
        let longest = if native_sidecar { u64::MAX } else { 1 };
        Ok(Self {
            proxy_image: annotations
                .get("proxy-image")
                .unwrap_or(&settings.proxy_image)
                .to_owned(),
            control_plane_addr: settings.control_plane_addr.clone(),
            trust_domain: settings.trust_domain.clone(),
            proxy_uid: settings.proxy_uid,
            token_audience: settings.token_audience.clone(),
            // One second is kept to close what is still open before the kernel is told to.
            drain_seconds: drain_seconds.min(grace_seconds.saturating_sub(1)),
            grace_seconds,
            stop_delay_seconds: stop_delay.min(longest).min(grace_seconds / 3),
            log_level: annotations
                .get("log-level")
                .unwrap_or(&settings.log_level)
                .to_owned(),
            access_log: annotations.parsed("access-log", "off, json or text", access_log)?,
            opaque_ports: annotations.parsed("opaque-ports", PORTS, port_list)?,
            skip_inbound_ports: annotations.parsed("skip-inbound-ports", PORTS, port_list)?,
            skip_outbound_ports: annotations.parsed("skip-outbound-ports", PORTS, port_list)?,
            skip_outbound_cidrs: annotations.parsed("skip-outbound-cidrs", CIDRS, cidr_list)?,
            rewrite_probes: annotations
                .parsed("rewrite-probes", SWITCH, switch)?
                .unwrap_or(true),
            native_sidecar,
            cni: settings.cni,
            resources: annotations.resources()?,
            inherited: annotations.inherited(),
        })
    }

    /// Of every value that went into the pod: `weir check` compares it to tell which pods need a restart.
    pub(super) fn hash(&self) -> String {
        let digest = Sha256::digest(json!(self).to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Annotations that look like ours and are not, of the pod and of its namespace, and names that may not be found: shown
/// to the user, never a reason to refuse.
pub fn warnings(pod: &Value, namespace: &NamespaceContext) -> Vec<String> {
    let own = pod
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let own = own.map(|(key, _)| (key, "the pod".to_owned()));
    let inherited = namespace.annotations.keys();
    let inherited = inherited.map(|key| (key, format!("namespace {}", namespace.name)));
    let unknown = own.chain(inherited).filter_map(|(key, whose)| {
        let knob = key.strip_prefix(KNOB_PREFIX)?;
        (!is_known(key)).then(|| {
            format!(
                "annotation {KNOB_PREFIX}{knob} of {whose} is unknown and has no effect; known: {}",
                KNOBS.join(", ")
            )
        })
    });
    unknown.chain(names_are_elsewhere(pod)).collect()
}

fn is_known(annotation: &str) -> bool {
    let knob = annotation.strip_prefix(KNOB_PREFIX);
    knob.is_some_and(|knob| KNOBS.contains(&knob))
}

fn names_are_elsewhere(pod: &Value) -> Option<String> {
    let policy = pod.pointer("/spec/dnsPolicy").and_then(Value::as_str);
    let policy = policy.filter(|policy| ["Default", "None"].contains(policy))?;
    Some(format!(
        "dnsPolicy {policy}: the sidecar asks for the control plane by its name in the cluster. Where that cannot be \
         resolved the pod never becomes ready: see to it in dnsConfig"
    ))
}

struct Annotations<'a> {
    own: Option<&'a Map<String, Value>>,
    namespace: &'a NamespaceContext,
}

impl Annotations<'_> {
    fn get(&self, knob: &str) -> Option<&str> {
        let key = format!("{KNOB_PREFIX}{knob}");
        let own = self
            .own
            .and_then(|own| own.get(&key))
            .and_then(Value::as_str);
        own.or_else(|| self.namespace.annotations.get(&key).map(String::as_str))
    }

    fn parsed<T>(
        &self,
        knob: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.get(knob) else {
            return Ok(None);
        };
        let refusal = || Refusal::Annotation {
            knob,
            expected,
            found: text.to_owned(),
        };
        parse(text.trim()).map(Some).ok_or_else(refusal)
    }

    fn resources(&self) -> Result<Value, Refusal> {
        // Small enough not to matter to a scheduler, large enough for an idle sidecar.
        let cpu = ["10m", "proxy-cpu-request", "proxy-cpu-limit"];
        let memory = ["32Mi", "proxy-memory-request", "proxy-memory-limit"];
        let mut resources = Value::Null;
        for (resource, [default, request, limit]) in [("cpu", cpu), ("memory", memory)] {
            let request = self.parsed(request, QUANTITY, quantity::parse)?;
            let limit = self.parsed(limit, QUANTITY, quantity::parse)?;
            // Nothing may ask for more than it may have.
            let default = match &limit {
                Some(limit) => quantity::smaller(default, limit).to_owned(),
                None => default.to_owned(),
            };
            resources["requests"][resource] = request.unwrap_or(default).into();
            if let Some(limit) = limit {
                resources["limits"][resource] = limit.into();
            }
        }
        Ok(resources)
    }

    /// What the pod has, too, was copied to it, or might as well have been: so a pod that is in the mesh has the hash
    /// that it had before.
    fn inherited(&self) -> BTreeMap<String, String> {
        let ours = self
            .namespace
            .annotations
            .iter()
            .filter(|(key, _)| is_known(key));
        let own = |key: &String| self.own.and_then(|own| own.get(key));
        ours.filter(|(key, value)| own(key).is_none_or(|own| own == *value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

const PORTS: &str = "ports and port ranges, such as 25,3306-3310";
const CIDRS: &str = "networks, such as 10.0.0.0/8,fd00::/8";
const SECONDS: &str = "seconds, such as 30";
const SWITCH: &str = "enabled or disabled";
const QUANTITY: &str = "a quantity, such as 100m or 64Mi";

fn switch(text: &str) -> Option<bool> {
    match text {
        "enabled" | "true" => Some(true),
        "disabled" | "false" => Some(false),
        _ => None,
    }
}

fn access_log(text: &str) -> Option<String> {
    matches!(text, "off" | "json" | "text").then(|| text.to_owned())
}

/// Normalised, because it becomes an argument of a program that runs as root.
fn port_list(text: &str) -> Option<String> {
    let ports: PortRanges = text.parse().ok()?;
    Some(ports.to_string())
}

fn cidr_list(text: &str) -> Option<String> {
    let cidr = |item: &str| -> Option<String> {
        let (address, length) = item.trim().split_once('/')?;
        let address: std::net::IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        (length <= if address.is_ipv4() { 32 } else { 128 }).then(|| format!("{address}/{length}"))
    };
    let cidrs: Option<Vec<String>> = text.split(',').map(cidr).collect();
    cidrs.map(|cidrs| cidrs.join(","))
}
