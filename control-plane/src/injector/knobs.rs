//! The effective settings of one pod: its own annotations, else its namespace's, else the operator's.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tracing_subscriber::filter::Targets;
use weir_config::units::PortRanges;

use super::settings::{InjectorSettings, NamespaceContext};
use super::{KNOB_PREFIX, Refusal, quantity};

/// Every knob there is. One that is not here is a typing mistake and gets a warning.
pub(super) const KNOBS: [&str; 15] = [
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
                .parsed("proxy-image", IMAGE, image)?
                .unwrap_or_else(|| settings.proxy_image.clone()),
            control_plane_addr: settings.control_plane_addr.clone(),
            trust_domain: settings.trust_domain.clone(),
            proxy_uid: settings.proxy_uid,
            token_audience: settings.token_audience.clone(),
            // One second is kept to close what is still open before the kernel is told to.
            drain_seconds: drain_seconds.min(grace_seconds.saturating_sub(1)),
            grace_seconds,
            stop_delay_seconds: stop_delay.min(longest).min(grace_seconds / 3),
            log_level: annotations
                .parsed("log-level", LOG_FILTER, log_filter)?
                .unwrap_or_else(|| settings.log_level.clone()),
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

pub(super) fn is_known(annotation: &str) -> bool {
    let knob = annotation.strip_prefix(KNOB_PREFIX);
    knob.is_some_and(|knob| KNOBS.contains(&knob))
}

struct Annotations<'a> {
    own: Option<&'a Map<String, Value>>,
    namespace: &'a NamespaceContext,
}

impl Annotations<'_> {
    fn get(&self, knob: &'static str) -> Result<Option<&str>, Refusal> {
        let key = format!("{KNOB_PREFIX}{knob}");
        match self.own.and_then(|own| own.get(&key)) {
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refusal::NotText {
                knob,
                found: other.to_string(),
            }),
            None => Ok(self.namespace.annotations.get(&key).map(String::as_str)),
        }
    }

    fn parsed<T>(
        &self,
        knob: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.get(knob)? else {
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
        let cpu = ("10m", CPU, quantity::cpu as fn(&str) -> Option<String>);
        let memory = ("32Mi", MEMORY, quantity::memory as _);
        let cpu = (["cpu", "proxy-cpu-request", "proxy-cpu-limit"], cpu);
        let memory = (
            ["memory", "proxy-memory-request", "proxy-memory-limit"],
            memory,
        );
        let mut resources = Value::Null;
        for ([resource, request, limit], (default, expected, parse)) in [cpu, memory] {
            let request = self.parsed(request, expected, parse)?;
            let limit = self.parsed(limit, expected, parse)?;
            // Nothing may ask for more than it may have: an API server would not take the pod.
            let request = match (request, &limit) {
                (Some(request), Some(limit)) if quantity::smaller(&request, limit) != request => {
                    return Err(Refusal::AboveLimit {
                        resource,
                        request,
                        limit: limit.clone(),
                    });
                }
                (Some(request), _) => request,
                (None, Some(limit)) => quantity::smaller(default, limit).to_owned(),
                (None, None) => default.to_owned(),
            };
            resources["requests"][resource] = request.into();
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
const CPU: &str = "cores, such as 100m or 0.5";
const MEMORY: &str = "memory of 1Mi at least, such as 64Mi";
const IMAGE: &str = "an image, such as registry.example/weir-proxy:1.0";
const LOG_FILTER: &str = "a level (off, error, warn, info, debug or trace), or levels by module, such as weir_proxy=debug,info";

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

fn image(text: &str) -> Option<String> {
    let is_one_word =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_one_word.then(|| text.to_owned())
}

/// As the sidecar reads it, to which a word that is no level is a module of which it logs everything, and of others nothing.
fn log_filter(text: &str) -> Option<String> {
    let directive = |directive: &str| {
        let (module, level) = directive.split_once('=').unwrap_or(("all", directive));
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = known.iter().any(|known| known.eq_ignore_ascii_case(level));
        !module.is_empty() && is_level
    };
    (text.split(',').all(directive) && text.parse::<Targets>().is_ok()).then(|| text.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(annotations: Value) -> Result<Knobs, Refusal> {
        let pod = json!({ "metadata": { "annotations": annotations }, "spec": {} });
        Knobs::resolve(
            &pod,
            &NamespaceContext::enabled("shop"),
            &InjectorSettings::default(),
        )
    }

    /// Each of these became a pod that an API server refuses, that is killed at once, or that logs nothing.
    #[test]
    fn what_no_api_server_or_sidecar_could_use_is_refused_and_told_why() {
        for (knob, value, why) in [
            ("drain-seconds", json!(30), "expected text, found 30"),
            ("rewrite-probes", json!(false), "expected text, found false"),
            ("proxy-image", json!(""), "expected an image"),
            ("proxy-image", json!("a b"), "expected an image"),
            ("log-level", json!("loud"), "expected a level"),
            ("log-level", json!("info,,debug"), "expected a level"),
            ("log-level", json!("=debug"), "expected a level"),
            ("proxy-memory-limit", json!("64"), "expected memory"),
            ("proxy-memory-request", json!("100m"), "expected memory"),
        ] {
            let key = format!("{KNOB_PREFIX}{knob}");
            let refused = resolved(json!({ &key: value })).expect_err(why).to_string();
            assert!(refused.contains(&key) && refused.contains(why), "{refused}");
        }
        let above = json!({
            "config.weir.dev/proxy-cpu-request": "200m",
            "config.weir.dev/proxy-cpu-limit": "0.1",
        });
        let refused = resolved(above).expect_err("above its limit").to_string();
        assert!(
            refused.contains("proxy-cpu-request and -limit: 200m asked for"),
            "{refused}"
        );
    }

    #[test]
    fn what_a_sidecar_can_use_is_taken() {
        for (knob, value) in [
            ("log-level", "weir_proxy::push=debug,info"),
            ("log-level", "WARN"),
            ("proxy-image", "weir-proxy@sha256:12"),
            ("proxy-memory-limit", "64Mi"),
        ] {
            let taken = resolved(json!({ format!("{KNOB_PREFIX}{knob}"): value }));
            assert!(taken.is_ok(), "{knob}: {value}");
        }
        let equal = json!({
            "config.weir.dev/proxy-cpu-request": "100m",
            "config.weir.dev/proxy-cpu-limit": "0.1",
        });
        assert!(resolved(equal).is_ok());
    }
}
