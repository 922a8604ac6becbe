//! The kinds a user writes or Kubernetes keeps, as they stand in YAML.
//!
//! Ours (`weir.dev/v1alpha1`) refuse a field they do not know: a misspelt knob must never look as if it were
//! set. Those of Kubernetes are the subset we read, and tolerate what newer versions add.

mod authorization_policy;
mod endpoint_slice;
mod fault_policy;
mod gateway;
mod grpc_status;
mod inbound;
mod load_balancing;
mod mesh_config;
mod metadata;
mod null;
mod object;
mod outbound;
mod pod;
mod rate_limit;
mod resilience_policy;
mod service;
mod target;

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

pub use authorization_policy::{
    AuthorizationMode, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, Peer,
};
pub use endpoint_slice::{Conditions, EndpointSlice, SliceEndpoint, SlicePort, TargetObject};
pub use fault_policy::{Fault, FaultAbort, FaultDelay, FaultPolicy, FaultPolicySpec, SlowBody};
pub use gateway::{
    BackendRef, FilterType, Fraction, GATEWAY_GROUP, GatewayRoute, GrantFrom, GrantTo,
    GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, Header, HeaderChanges, HttpRoute,
    HttpRouteMatch, HttpRouteRule, Mirror, ParentRef, PathMatchType, PathRewrite, PathRewriteType,
    Redirect, ReferenceGrant, ReferenceGrantSpec, RouteBackoff, RouteFilter, RoutePath, RouteRetry,
    RouteRule, RouteSpec, RouteTimeout, RouteTimeouts, Unsupported, UrlRewrite, ValueMatch,
    ValueMatchType,
};
pub use grpc_status::GrpcStatus;
pub use inbound::{Adaptive, Concurrency, InboundQueue, PriorityMatch, PriorityRule};
pub use load_balancing::{ConsistentHash, HashAttribute, LoadBalancing};
pub use mesh_config::{MeshConfig, MeshConfigSpec};
pub use metadata::{Metadata, ObjectName, OwnerReference};
pub use object::Object;
pub use outbound::{
    AlternateBackend, Backoff, CircuitBreaker, Deadline, EndpointGate, Fallback, Hedging, Outbound,
    OutboundLimits, Retries, RetryBudget, RetryCause, StaleAnswers,
};
pub use pod::{
    Container, ContainerPort, OPAQUE_PORTS_ANNOTATION, Pod, PodCondition, PodIp, PodSpec,
    PodStatus, SIDECAR_CONTAINER, SKIP_INBOUND_PORTS_ANNOTATION, WEIGHT_ANNOTATION, WEIGHT_DEFAULT,
};
pub use rate_limit::{RateLimit, RateLimitKey};
pub use resilience_policy::{
    Inbound, InboundLimits, ResiliencePolicy, ResiliencePolicySpec, RoutePolicy,
};
pub use service::{IntOrString, NoAddress, Service, ServicePort, ServiceSpec};
pub use target::{GrpcMatch, HttpMatch, RouteSelector, TargetKind, TargetRef, Targeting};

/// The API group and version of our own kinds.
pub const API_VERSION: &str = "weir.dev/v1alpha1";

#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "they are read one after the other, and what is kept has its own place in the index"
)]
pub enum Resource {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    ResiliencePolicy(ResiliencePolicy),
    FaultPolicy(FaultPolicy),
    AuthorizationPolicy(AuthorizationPolicy),
    MeshConfig(MeshConfig),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    ReferenceGrant(ReferenceGrant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Service,
    EndpointSlice,
    Pod,
    ResiliencePolicy,
    FaultPolicy,
    AuthorizationPolicy,
    MeshConfig,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    ReferenceGrant,
}

/// What an index or a journal calls a resource: `ResiliencePolicy boutique/payment`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceRef {
    pub kind: Kind,
    pub name: ObjectName,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::ResiliencePolicy,
        Self::FaultPolicy,
        Self::AuthorizationPolicy,
        Self::MeshConfig,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::ReferenceGrant,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::ResiliencePolicy => "ResiliencePolicy",
            Self::FaultPolicy => "FaultPolicy",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::MeshConfig => "MeshConfig",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Pod => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ResiliencePolicy
            | Self::FaultPolicy
            | Self::AuthorizationPolicy
            | Self::MeshConfig => API_VERSION,
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io/v1",
            Self::ReferenceGrant => "gateway.networking.k8s.io/v1beta1",
        }
    }

    /// Another version in which the same is read, and which a server is asked for first. What Gateway API 1.5 made of
    /// ReferenceGrant differs in nothing but its name; older ones have only the other.
    pub const fn newer_api_version(self) -> Option<&'static str> {
        match self {
            Self::ReferenceGrant => Some("gateway.networking.k8s.io/v1"),
            _ => None,
        }
    }

    /// Of the Gateway API, whose CRDs a cluster may have or not.
    pub const fn is_gateway(self) -> bool {
        matches!(
            self,
            Self::HttpRoute | Self::GrpcRoute | Self::ReferenceGrant
        )
    }

    /// Read as strictly as ours, and answered for: a route that is not understood whole is not routed by.
    pub const fn is_strict(self) -> bool {
        self.is_ours() || matches!(self, Self::HttpRoute | Self::GrpcRoute)
    }

    /// Ours: written by people, refused when anything in them is not understood.
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::ResiliencePolicy
                | Self::FaultPolicy
                | Self::AuthorizationPolicy
                | Self::MeshConfig
        )
    }
}

impl Resource {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::ResiliencePolicy(_) => Kind::ResiliencePolicy,
            Self::FaultPolicy(_) => Kind::FaultPolicy,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::MeshConfig(_) => Kind::MeshConfig,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(it) => &it.metadata,
            Self::EndpointSlice(it) => &it.metadata,
            Self::Pod(it) => &it.metadata,
            Self::ResiliencePolicy(it) => &it.metadata,
            Self::FaultPolicy(it) => &it.metadata,
            Self::AuthorizationPolicy(it) => &it.metadata,
            Self::MeshConfig(it) => &it.metadata,
            Self::HttpRoute(it) => &it.metadata,
            Self::GrpcRoute(it) => &it.metadata,
            Self::ReferenceGrant(it) => &it.metadata,
        }
    }

    pub fn reference(&self) -> ResourceRef {
        ResourceRef {
            kind: self.kind(),
            name: match self {
                // There is one for the mesh, whatever namespace its file names.
                Self::MeshConfig(it) => ObjectName::new("", &it.metadata.name),
                _ => self.metadata().object_name(),
            },
        }
    }
}

/// As a user would write it, `apiVersion` and `kind` first.
impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Service(body) => typed(self.kind(), body, serializer),
            Self::EndpointSlice(body) => typed(self.kind(), body, serializer),
            Self::Pod(body) => typed(self.kind(), body, serializer),
            Self::ResiliencePolicy(body) => typed(self.kind(), body, serializer),
            Self::FaultPolicy(body) => typed(self.kind(), body, serializer),
            Self::AuthorizationPolicy(body) => typed(self.kind(), body, serializer),
            Self::MeshConfig(body) => typed(self.kind(), body, serializer),
            Self::HttpRoute(body) => typed(self.kind(), body, serializer),
            Self::GrpcRoute(body) => typed(self.kind(), body, serializer),
            Self::ReferenceGrant(body) => typed(self.kind(), body, serializer),
        }
    }
}

fn typed<T: Serialize, S: Serializer>(kind: Kind, body: &T, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed<'a, T> {
        api_version: &'a str,
        kind: &'a str,
        #[serde(flatten)]
        body: &'a T,
    }
    Typed {
        api_version: kind.api_version(),
        kind: kind.name(),
        body,
    }
    .serialize(to)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
