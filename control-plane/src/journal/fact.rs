//! The facts there are, and how each reads in a list.

use serde::Serialize;
use serde_json::Value;

use super::Event;

/// Every kind, in the order of a mesh's life.
pub const KINDS: [&str; 28] = [
    "ControlPlaneStarted",
    "ControlPlaneStopped",
    "TrustAnchorIntroduced",
    "PolicyAccepted",
    "PolicyRejected",
    "SourceLost",
    "SourceRegained",
    "CertificateIssued",
    "CertificateRefused",
    "ProxyConnected",
    "ProxyDisconnected",
    "ProxyDraining",
    "PushAcknowledged",
    "PushRefused",
    "BreakerOpened",
    "BreakerHalfOpened",
    "BreakerClosed",
    "BreakerForced",
    "BreakerReleased",
    "EndpointEjected",
    "EndpointSpared",
    "EndpointProbed",
    "EndpointReadmitted",
    "EndpointRestored",
    "ThrottleBegan",
    "ThrottleEnded",
    "SaturationBegan",
    "SaturationEnded",
];

/// `pod` and `caller` are "namespace/name"; `service` is "namespace/name:port".
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Fact {
    ControlPlaneStarted {
        version: String,
        trust_domain: String,
    },
    ControlPlaneStopped {},
    TrustAnchorIntroduced {
        anchors: usize,
    },
    /// Of a whole file: what it holds is in force.
    PolicyAccepted {
        file: String,
        policies: Vec<String>,
    },
    /// Of a whole file: what it held before stays in force.
    PolicyRejected {
        file: String,
        diagnostics: Vec<String>,
    },
    /// The Kubernetes API cannot be reached or does not answer: what was read stays in force.
    SourceLost {
        source: String,
        reason: String,
    },
    SourceRegained {
        source: String,
    },
    CertificateIssued {
        pod: String,
        identity: String,
        serial: String,
        expires_ms: u64,
    },
    CertificateRefused {
        pod: String,
        reason: String,
    },
    ProxyConnected {
        pod: String,
        identity: String,
        proxy_version: String,
    },
    ProxyDisconnected {
        pod: String,
        reason: String,
    },
    ProxyDraining {
        pod: String,
    },
    PushAcknowledged {
        pod: String,
        version: u64,
    },
    PushRefused {
        pod: String,
        version: u64,
        reason: String,
    },
    BreakerOpened {
        caller: String,
        service: String,
        route: String,
        reason: String,
        /// By its policy or an operator.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
        /// Its policy only observes: it refuses nobody.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observed: bool,
    },
    BreakerHalfOpened {
        caller: String,
        service: String,
        route: String,
        reason: String,
        /// By its policy or an operator.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
        /// Its policy only observes: it refuses nobody.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observed: bool,
    },
    BreakerClosed {
        caller: String,
        service: String,
        route: String,
        reason: String,
        /// By its policy or an operator.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
        /// Its policy only observes: it refuses nobody.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observed: bool,
    },
    /// An operator holds all callers' breakers of a service.
    BreakerForced {
        service: String,
        /// "open" or "closed"
        to: String,
        until_ms: u64,
    },
    /// What calls come to decides again.
    BreakerReleased {
        service: String,
        reason: String,
    },
    /// A caller's gate on one endpoint opened: nothing more is sent there for now.
    EndpointEjected {
        caller: String,
        service: String,
        endpoint: String,
        reason: String,
    },
    /// It would have opened, but its policy observes, or too many of the service's endpoints are out.
    EndpointSpared {
        caller: String,
        service: String,
        endpoint: String,
        reason: String,
    },
    EndpointProbed {
        caller: String,
        service: String,
        endpoint: String,
        reason: String,
    },
    /// Traffic comes back, slowly.
    EndpointReadmitted {
        caller: String,
        service: String,
        endpoint: String,
        reason: String,
    },
    /// Traffic is back in full.
    EndpointRestored {
        caller: String,
        service: String,
        endpoint: String,
        reason: String,
    },
    /// A caller drops calls that an overloaded service would refuse.
    ThrottleBegan {
        caller: String,
        service: String,
        /// Of every 100 calls of the default tier.
        dropped_percent: u32,
        /// Calls of the last half minute, and how many of them the service took.
        requests: u32,
        accepted: u32,
        /// They are only counted: its policy observes.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observed: bool,
    },
    ThrottleEnded {
        caller: String,
        service: String,
    },
    /// Calls find no room in a pod's app: they wait, or are turned away.
    SaturationBegan {
        pod: String,
        /// Empty: a port that no service names.
        service: String,
        in_flight: u32,
        limit: u32,
        queued: u32,
        /// All get in: its limit is not enforced.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observed: bool,
    },
    SaturationEnded {
        pod: String,
        service: String,
        in_flight: u32,
        limit: u32,
    },
}

impl Fact {
    /// Without its number yet.
    pub(super) fn into_event(self, at_ms: u64) -> Event {
        let (subject, reporter, message) = self.sentence();
        let mut details = serde_json::to_value(&self).expect("a fact is plain data");
        let kind = details
            .as_object_mut()
            .and_then(|details| details.shift_remove("kind"));
        let Some(Value::String(kind)) = kind else {
            unreachable!("serde writes the tag");
        };
        Event {
            seq: 0,
            at_ms,
            kind,
            subject,
            reporter,
            message,
            details,
        }
    }

    /// Subject, reporter, and one sentence for people.
    fn sentence(&self) -> (String, String, String) {
        let mesh = |message: String| ("mesh".to_owned(), String::new(), message);
        let about = |subject: &str, message: String| (subject.to_owned(), String::new(), message);
        let said = |subject: String, reporter: &str, message: String| {
            (subject, reporter.to_owned(), message)
        };
        let because = |text: &str, reason: &str| {
            if reason.is_empty() {
                text.to_owned()
            } else {
                format!("{text}: {reason}")
            }
        };
        match self {
            Self::ControlPlaneStarted {
                version,
                trust_domain,
            } => mesh(format!("control plane {version} of {trust_domain} started")),
            Self::ControlPlaneStopped {} => mesh("control plane stopped".to_owned()),
            Self::TrustAnchorIntroduced { anchors } => mesh(format!(
                "a new trust anchor was introduced; {anchors} are trusted now"
            )),
            Self::PolicyAccepted { file, policies } if policies.is_empty() => {
                about(file, "no policy is left in this file".to_owned())
            }
            Self::PolicyAccepted { file, policies } => {
                about(file, format!("in force: {}", policies.join(", ")))
            }
            Self::PolicyRejected { file, diagnostics } => {
                let first = diagnostics
                    .first()
                    .and_then(|text| text.lines().next())
                    .unwrap_or_default();
                let first = first.strip_prefix("error: ").unwrap_or(first);
                let more = match diagnostics.len() {
                    0 | 1 => String::new(),
                    n => format!(" (and {} more)", n - 1),
                };
                about(
                    file,
                    format!("refused whole, the last good content stays in force: {first}{more}"),
                )
            }
            Self::SourceLost { source, reason } => about(
                source,
                because("cannot be read, what was read stays in force", reason),
            ),
            Self::SourceRegained { source } => about(source, "can be read again".to_owned()),
            Self::CertificateIssued {
                pod,
                identity,
                expires_ms,
                ..
            } => about(
                pod,
                format!(
                    "got a certificate as {identity}, valid until {}",
                    crate::time::rfc3339(*expires_ms)
                ),
            ),
            Self::CertificateRefused { pod, reason } => {
                about(pod, because("got no certificate", reason))
            }
            Self::ProxyConnected {
                pod,
                identity,
                proxy_version,
            } => about(
                pod,
                format!("sidecar {proxy_version} connected as {identity}"),
            ),
            Self::ProxyDisconnected { pod, reason } => {
                about(pod, because("sidecar disconnected", reason))
            }
            Self::ProxyDraining { pod } => about(pod, "drains: it gets nothing new".to_owned()),
            Self::PushAcknowledged { pod, version } => said(
                pod.clone(),
                pod,
                format!("policy version {version} is in force"),
            ),
            Self::PushRefused {
                pod,
                version,
                reason,
            } => said(
                pod.clone(),
                pod,
                because(&format!("refused policy version {version}"), reason),
            ),
            Self::BreakerOpened {
                caller,
                service,
                route,
                reason,
                observed,
                ..
            } => said(
                whole(service, route),
                caller,
                because(&observing("circuit breaker opened", *observed), reason),
            ),
            Self::BreakerHalfOpened {
                caller,
                service,
                route,
                reason,
                observed,
                ..
            } => said(
                whole(service, route),
                caller,
                because(
                    &observing("circuit breaker half-open, probing", *observed),
                    reason,
                ),
            ),
            Self::BreakerClosed {
                caller,
                service,
                route,
                reason,
                observed,
                ..
            } => said(
                whole(service, route),
                caller,
                because(&observing("circuit breaker closed", *observed), reason),
            ),
            Self::BreakerForced {
                service,
                to,
                until_ms,
            } => about(
                service,
                format!(
                    "circuit breakers forced {to} until {}",
                    crate::time::rfc3339(*until_ms)
                ),
            ),
            Self::BreakerReleased { service, reason } => about(
                service,
                because("circuit breakers are no longer forced", reason),
            ),
            Self::EndpointSpared {
                caller,
                service,
                endpoint,
                reason,
            } => said(
                format!("{service} {endpoint}"),
                caller,
                because("endpoint would have been ejected", reason),
            ),
            Self::EndpointEjected {
                caller,
                service,
                endpoint,
                reason,
            } => said(
                format!("{service} {endpoint}"),
                caller,
                because("endpoint ejected", reason),
            ),
            Self::EndpointProbed {
                caller,
                service,
                endpoint,
                reason,
            } => said(
                format!("{service} {endpoint}"),
                caller,
                because("endpoint probed", reason),
            ),
            Self::EndpointReadmitted {
                caller,
                service,
                endpoint,
                reason,
            } => said(
                format!("{service} {endpoint}"),
                caller,
                because("endpoint readmitted, slowly", reason),
            ),
            Self::EndpointRestored {
                caller,
                service,
                endpoint,
                reason,
            } => said(
                format!("{service} {endpoint}"),
                caller,
                because("endpoint back in full", reason),
            ),
            Self::ThrottleBegan {
                caller,
                service,
                dropped_percent,
                requests,
                accepted,
                observed,
            } => {
                let drops = if *observed { "would drop" } else { "drops" };
                let message = format!(
                    "overloaded: it took {accepted} of {requests} calls; the throttle {drops} {dropped_percent} %"
                );
                said(service.clone(), caller, message)
            }
            Self::ThrottleEnded { caller, service } => said(
                service.clone(),
                caller,
                "the throttle drops no more calls".to_owned(),
            ),
            Self::SaturationBegan {
                pod,
                service,
                in_flight,
                limit,
                queued,
                observed,
            } => {
                let observed = if *observed {
                    ", which is not enforced"
                } else {
                    ""
                };
                let message = format!(
                    "saturated: {in_flight} in the app at a limit of {limit}{observed}, {queued} wait"
                );
                said(of_pod(service, pod), pod, message)
            }
            Self::SaturationEnded {
                pod,
                service,
                in_flight,
                limit,
            } => {
                let message =
                    format!("no longer saturated: {in_flight} in the app at a limit of {limit}");
                said(of_pod(service, pod), pod, message)
            }
        }
    }
}

/// What a pod's own app is called.
fn of_pod(service: &str, pod: &str) -> String {
    if service.is_empty() { pod } else { service }.to_owned()
}

/// Whoever reads it must not look for calls that were refused.
fn observing(what: &str, observed: bool) -> String {
    match observed {
        true => format!("{what}, which is not enforced"),
        false => what.to_owned(),
    }
}

fn whole(service: &str, route: &str) -> String {
    if route.is_empty() {
        service.to_owned()
    } else {
        format!("{service} {route}")
    }
}
