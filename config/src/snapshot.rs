//! What policies compile to: complete, with every default filled in, ready for the request path.
//!
//! A sidecar receives these values as JSON inside the push protocol. Unknown fields are refused rather than
//! ignored, so a sidecar that is older than the control plane answers *nack* with the field's path instead of
//! quietly enforcing less (security.md: version skew).

mod authorization;
mod balance;
mod fallback;
mod fault;
mod inbound;
mod outbound;
mod route;
mod routing;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use authorization::{Access, AccessRule, AccessRules, Authorization, Peer};
pub use balance::{Balance, BalanceAlgorithm, ConsistentHash, HashBy, ZonePreference};
pub use fallback::{Fallback, FallbackAnswer, Stale};
pub use fault::{BrokenConnection, Fault, FaultAnswer, FaultDelay, FaultEffect};
pub use inbound::{Adaptive, Inbound, InboundLimits, PriorityRule, RateLimit, RateLimitKey, Tier};
pub use outbound::{
    Breaker, Budget, Force, Forced, Gate, Hedging, Limits, Outbound, Retries, RetryOn,
};
pub use route::{PathMatch, Route, RouteMatch};
pub use routing::{
    HeaderChanges, Mirror, PathChange, PathCondition, Redirect, Rewrite, Routing, Rule,
    RuleBackend, RuleMatch, RuleRetry, TextCondition, Timeout, ValueCondition,
};

/// All that the sidecars of callers need to know of one service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    pub key: ServiceKey,
    pub protocol: Protocol,
    pub mode: Mode,
    /// An operator has forced its breakers; holds for all routes, and over what policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// For every request that no route matches, and for connections that are opaque.
    pub outbound: Outbound,
    /// Most specific first; the first that matches applies.
    pub routes: Vec<Route>,
    /// Those of the service's own sidecar, which has the last word: a caller's must know too what matters before it
    /// holds calls back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<PriorityRule>,
    /// In the order in which they come to pass; those that are over too, for sidecars know the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Of the Gateway API, one entry a namespace of callers. They say where a call goes before anything else is done with
    /// it; whoever is called then has policies of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing: Vec<Routing>,
}

impl Service {
    /// The services that stand in for this one: whoever calls it needs to know them too.
    pub fn alternates(&self) -> impl Iterator<Item = &ServiceKey> {
        let of_routes = self.routes.iter().map(|route| &route.outbound);
        std::iter::once(&self.outbound)
            .chain(of_routes)
            .filter_map(|outbound| outbound.fallback.as_ref()?.alternate.as_ref())
    }

    /// The services that its routes send calls to.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceKey> {
        self.routing.iter().flat_map(Routing::backends)
    }
}

/// `namespace/name:port`, the key by which policy, metrics and push know a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// What the Service says of a port (`appProtocol`, else the port's name), or that it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Look at the first bytes.
    #[default]
    Detect,
    /// HTTP/1.1 or HTTP/2, told apart by the preface.
    Http,
    /// HTTP/2 with prior knowledge; gRPC is that too.
    Http2,
    /// Bytes: never looked at. Also every port on which the server is known to speak first.
    Opaque,
}

/// A workload's own view: who it is and how it takes calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// `spiffe://…`
    pub identity: String,
    /// Where its node is, if anybody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub mtls: MtlsMode,
    pub access_log: AccessLog,
    pub ports: Vec<Inbound>,
    /// For ports that no service names.
    pub default_port: Inbound,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum MtlsMode {
    /// Mutual TLS from sidecars, plain text from everybody else.
    #[default]
    Permissive,
    /// Mutual TLS or nothing.
    Strict,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum AccessLog {
    #[default]
    Disabled,
    Json,
    Text,
}

/// Whether a policy acts or only counts what it would have done.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}
