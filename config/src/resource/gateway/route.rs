//! What an HTTPRoute and a GRPCRoute have in common.

use serde::{Deserialize, Serialize};

use super::{BackendRef, ParentRef, RouteFilter, Unsupported};
use crate::resource::null::or_empty;
use crate::resource::{Kind, Metadata, Object, ObjectName};

/// `R`: a rule of its kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteSpec<R> {
    #[serde(deserialize_with = "or_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Mean nothing where the parent is a Service.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    #[serde(skip_serializing)]
    pub use_default_gateways: Option<Unsupported>,
    #[serde(
        deserialize_with = "or_empty",
        bound(deserialize = "R: Deserialize<'de>")
    )]
    pub rules: Vec<R>,
}

/// A rule of either kind: which calls it is for, as far as both say it alike, and where they go.
pub trait RouteRule {
    /// Of the route.
    const KIND: Kind;

    fn name(&self) -> Option<&str>;

    /// So many matches the API server sees.
    fn matches_count(&self) -> usize;

    /// How many regular expressions its matches have.
    fn patterns_count(&self) -> usize;

    fn backend_refs(&self) -> &[BackendRef];

    fn filters(&self) -> &[RouteFilter];
}

/// A route of either kind: what the index and the status ask of it.
pub trait GatewayRoute {
    const KIND: Kind;

    fn metadata(&self) -> &Metadata;

    fn parent_refs(&self) -> &[ParentRef];

    /// Of all rules, those of mirrors included.
    fn backend_refs(&self) -> Vec<&BackendRef>;

    /// How many regular expressions a sidecar has to hold for it.
    fn patterns_count(&self) -> usize;

    /// Its parents in the mesh, each with the Service's name.
    fn services(&self) -> impl Iterator<Item = (&ParentRef, ObjectName)> {
        let namespace = self.metadata().namespace();
        let parents = self.parent_refs().iter();
        parents
            .filter(|parent| parent.is_service())
            .map(move |parent| (parent, parent.service(namespace)))
    }
}

impl<R: RouteRule> GatewayRoute for Object<RouteSpec<R>> {
    const KIND: Kind = R::KIND;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn parent_refs(&self) -> &[ParentRef] {
        &self.spec.parent_refs
    }

    fn patterns_count(&self) -> usize {
        self.spec.rules.iter().map(R::patterns_count).sum()
    }

    fn backend_refs(&self) -> Vec<&BackendRef> {
        let mut found = Vec::new();
        for rule in &self.spec.rules {
            found.extend(rule.backend_refs());
            let mirrors =
                (rule.filters().iter()).filter_map(|filter| filter.request_mirror.as_ref());
            found.extend(mirrors.map(|mirror| &mirror.backend_ref));
        }
        found
    }
}
