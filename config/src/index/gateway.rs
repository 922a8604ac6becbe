//! Routes of the Gateway API by the Services they are attached to, and what they may send calls to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Index, Target, Touched, forget};
use crate::compile::protocol;
use crate::pattern::PATTERNS_MAX;
use crate::resource::{
    BackendRef, GatewayRoute, GrpcRoute, HttpRoute, Kind, NoAddress, ObjectName, ParentRef,
    ReferenceGrant, Service, ServicePort,
};
use crate::snapshot::ServiceKey;

/// For the callers of one service and one namespace. More would make every call slower, and are no use to people.
pub const ROUTES_MAX: usize = 32;

/// The routes of one kind.
#[derive(Clone, Debug)]
pub(super) struct RoutesOf<R> {
    by_name: BTreeMap<ObjectName, Arc<R>>,
    by_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
}

/// What a route asks of the sidecars, in the order in which they are given it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim<'a> {
    /// Ends with its namespace and its name.
    seniority: (bool, &'a str, &'a str, &'a str),
    kind: Kind,
    patterns: usize,
}

/// Why a reference of a route leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Something else than a Service of the cluster.
    InvalidKind,
    /// In another namespace, where no ReferenceGrant lets it in.
    RefNotPermitted,
    BackendNotFound,
    /// A Service whose name leads to another name, and so to anywhere, whatever a ReferenceGrant says.
    ExternalName,
}

/// How a route fares with one of its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Accepted,
    /// There is no such Service, or it has no such port.
    NoMatchingParent,
    /// As many older routes are attached there as may be.
    TooMany,
    /// With those of older routes there it has more regular expressions than sidecars hold.
    TooManyPatterns,
    /// Of several kinds on a port only one is obeyed (GEP-1294), and GRPCRoutes of its namespace are on all of its ports.
    Conflicted,
    /// They are on some of them; on the others it is obeyed.
    PartlyConflicted,
    /// Nobody calls it by an address of its own, so nobody would be routed.
    NoAddress(NoAddress),
    /// There are only ports where nobody looks for calls.
    Opaque(OpaqueBy),
}

/// Who says that a port carries bytes, and so what to change where it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueBy {
    /// Its `appProtocol`, its name or its number.
    Service,
    /// The annotation of a pod behind it.
    Pods,
}

impl std::fmt::Display for OpaqueBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (who, change) = match self {
            Self::Service => (
                "its appProtocol, name or number says so",
                "set appProtocol to http, grpc or kubernetes.io/h2c",
            ),
            Self::Pods => (
                "pods behind it say so",
                "take it out of their annotation config.weir.dev/opaque-ports",
            ),
        };
        write!(
            f,
            "its port is opaque ({who}), and there is no call to tell from another: if HTTP is spoken there, {change}"
        )
    }
}

impl<R> Default for RoutesOf<R> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            by_service: HashMap::new(),
        }
    }
}

impl<R: GatewayRoute + PartialEq> RoutesOf<R> {
    pub(super) fn get(&self, name: &ObjectName) -> Option<&Arc<R>> {
        self.by_name.get(name)
    }

    pub(super) fn holds(&self, name: &ObjectName, route: &R) -> bool {
        self.get(name).is_some_and(|known| **known == *route)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.by_name.keys()
    }

    /// The Services it is attached to are compiled again.
    pub(super) fn insert(&mut self, route: Arc<R>, touched: &mut Touched) {
        let name = route.metadata().object_name();
        for (_, service) in route.services() {
            touched.services.insert(service.clone());
            self.by_service
                .entry(service)
                .or_default()
                .insert(name.clone());
        }
        self.by_name.insert(name, route);
    }

    pub(super) fn remove(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(route) = self.by_name.remove(name) else {
            return;
        };
        for (_, service) in route.services() {
            forget(&mut self.by_service, &service, name);
            touched.services.insert(service);
        }
    }

    /// Those attached to the service, the oldest first.
    fn on(&self, service: &ObjectName) -> Vec<&R> {
        let names = self.by_service.get(service).into_iter().flatten();
        let mut found: Vec<&R> = names
            .filter_map(|name| Some(&**self.by_name.get(name)?))
            .collect();
        found.sort_by(|a, b| a.metadata().seniority().cmp(&b.metadata().seniority()));
        found
    }

    /// The parents of all whose references lead to what `is_meant`.
    fn referring(&self, is_meant: impl Fn(&ObjectName) -> bool, touched: &mut Touched) {
        for route in self.by_name.values() {
            let own = route.metadata().namespace();
            let mut backends = route.backend_refs().into_iter();
            if backends.any(|backend| is_meant(&backend.service(own))) {
                let services = route.services().map(|(_, service)| service);
                touched.services.extend(services);
            }
        }
    }
}

impl Index {
    pub fn http_route(&self, name: &ObjectName) -> Option<&Arc<HttpRoute>> {
        self.http_routes.get(name)
    }

    pub fn http_routes(&self) -> impl Iterator<Item = &Arc<HttpRoute>> {
        self.http_routes.by_name.values()
    }

    pub fn grpc_routes(&self) -> impl Iterator<Item = &Arc<GrpcRoute>> {
        self.grpc_routes.by_name.values()
    }

    pub fn grpc_route(&self, name: &ObjectName) -> Option<&Arc<GrpcRoute>> {
        self.grpc_routes.get(name)
    }

    /// HTTPRoutes on a service port, the oldest first.
    pub(crate) fn http_routes_on(&self, key: &ServiceKey, port: &ServicePort) -> Vec<&HttpRoute> {
        self.routes_on(&self.http_routes, key, port)
    }

    /// GRPCRoutes on a service port, the oldest first.
    pub(crate) fn grpc_routes_on(&self, key: &ServiceKey, port: &ServicePort) -> Vec<&GrpcRoute> {
        self.routes_on(&self.grpc_routes, key, port)
    }

    fn routes_on<'a, R: GatewayRoute + PartialEq>(
        &self,
        routes: &'a RoutesOf<R>,
        key: &ServiceKey,
        port: &ServicePort,
    ) -> Vec<&'a R> {
        let service = ObjectName::new(&key.namespace, &key.name);
        let mut found = attached(routes, &service, port);
        let beyond = self.beyond(&service, port);
        found.retain(|route| !beyond.contains_key(&(R::KIND, route.metadata().object_name())));
        found
    }

    /// Whom a reference of a route means for calls to `parent`, one of its own. `None`: one that is no Service.
    pub fn resolve<R: GatewayRoute>(
        &self,
        route: &R,
        parent: Option<&ObjectName>,
        backend: &BackendRef,
    ) -> Result<ServiceKey, Unresolved> {
        if !backend.is_service() {
            return Err(Unresolved::InvalidKind);
        }
        let service = backend.service(route.metadata().namespace());
        // Nobody needs leave to go where he is called to anyway: a consumer's route may name its parent (GEP-1294).
        if parent != Some(&service) && !self.lets_in(route, &service) {
            return Err(Unresolved::RefNotPermitted);
        }
        let key = ServiceKey {
            port: backend.port.unwrap_or_default(),
            namespace: service.namespace,
            name: service.name,
        };
        let target = Target::Service(ObjectName::new(&key.namespace, &key.name));
        match self.has_port(&key) {
            _ if self.no_address(&target) == Some(NoAddress::ExternalName) => {
                Err(Unresolved::ExternalName)
            }
            true => Ok(key),
            false => Err(Unresolved::BackendNotFound),
        }
    }

    fn lets_in<R: GatewayRoute>(&self, route: &R, service: &ObjectName) -> bool {
        let (kind, namespace) = (R::KIND.name(), route.metadata().namespace());
        let mut grants = self.grants.values();
        service.namespace == namespace
            || grants.any(|grant| {
                grant.metadata.namespace() == service.namespace
                    && grant.permits(kind, namespace, &service.name)
            })
    }

    /// How a route fares with its parents in the mesh.
    pub fn parents<'a, R: GatewayRoute>(&self, route: &'a R) -> Vec<(&'a ParentRef, Parent)> {
        let fares = |parent: &ParentRef, service: &ObjectName| {
            let Some(service) = self.services.get(service) else {
                return Parent::NoMatchingParent;
            };
            if let Some(why) = service.spec.no_address() {
                return Parent::NoAddress(why);
            }
            let name = service.metadata.object_name();
            let mut opaque =
                ports_of(parent, service).map(|port| protocol::opaque_by(self, &name, port));
            let Some(first) = opaque.next() else {
                return Parent::NoMatchingParent;
            };
            match first {
                // It is obeyed on those where calls are looked for.
                Some(by) if opaque.all(|by| by.is_some()) => Parent::Opaque(by),
                _ => self.place(route, parent, service),
            }
        };
        let services = route.services();
        services
            .map(|(parent, service)| (parent, fares(parent, &service)))
            .collect()
    }

    /// How it fares among all that are attached there.
    fn place<R: GatewayRoute>(&self, route: &R, parent: &ParentRef, service: &Service) -> Parent {
        let own = (R::KIND, route.metadata().object_name());
        let name = service.metadata.object_name();
        let ports = ports_of(parent, service);
        let ports = ports.filter(|port| protocol::opaque_by(self, &name, port).is_none());
        let fares = ports.map(|port| self.beyond(&name, port).remove(&own));
        let fares: Vec<Option<Parent>> = fares.collect();
        let is_conflicted = |fares: &Option<Parent>| *fares == Some(Parent::Conflicted);
        let mut others = fares.iter().filter(|fares| !is_conflicted(fares));
        match others.find_map(|fares| *fares) {
            Some(why) => why,
            None if !fares.iter().any(is_conflicted) => Parent::Accepted,
            None if fares.iter().all(is_conflicted) => Parent::Conflicted,
            None => Parent::PartlyConflicted,
        }
    }

    /// The routes that have no place on a service port. Those of a namespace are of one kind there: with a GRPCRoute its
    /// HTTPRoutes have none (GEP-1294). Of that it has so many, and so many regular expressions in them: the older go before
    /// the younger, and one that is left out takes no place from others.
    fn beyond(
        &self,
        service: &ObjectName,
        port: &ServicePort,
    ) -> HashMap<(Kind, ObjectName), Parent> {
        let mut claims = claims_of(&attached(&self.grpc_routes, service, port));
        let with_grpc: HashSet<&str> = claims.iter().map(Claim::namespace).collect();
        claims.extend(claims_of(&attached(&self.http_routes, service, port)));
        claims.sort_unstable();
        let mut counts: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut beyond = HashMap::new();
        for claim in claims {
            if claim.kind == Kind::HttpRoute && with_grpc.contains(claim.namespace()) {
                beyond.insert((claim.kind, claim.name()), Parent::Conflicted);
                continue;
            }
            let (count, patterns) = counts.entry(claim.namespace()).or_default();
            *count += 1;
            let why = match *patterns + claim.patterns {
                _ if *count > ROUTES_MAX => Parent::TooMany,
                all if all > PATTERNS_MAX => Parent::TooManyPatterns,
                all => {
                    *patterns = all;
                    continue;
                }
            };
            beyond.insert((claim.kind, claim.name()), why);
        }
        beyond
    }

    /// A service has come, gone or changed its ports: routes that send calls to it follow.
    pub(super) fn touch_routes_to(&self, service: &ObjectName, touched: &mut Touched) {
        let is_meant = |backend: &ObjectName| backend == service;
        self.http_routes.referring(is_meant, touched);
        self.grpc_routes.referring(is_meant, touched);
    }

    pub(super) fn touch_routes_into(&self, namespace: &str, touched: &mut Touched) {
        let is_meant = |backend: &ObjectName| backend.namespace == namespace;
        self.http_routes.referring(is_meant, touched);
        self.grpc_routes.referring(is_meant, touched);
    }

    pub(super) fn add_grant(&mut self, grant: Arc<ReferenceGrant>, touched: &mut Touched) {
        let name = grant.metadata.object_name();
        self.touch_routes_into(&name.namespace, touched);
        self.grants.insert(name, grant);
    }

    pub(super) fn remove_grant(&mut self, name: &ObjectName, touched: &mut Touched) {
        if self.grants.remove(name).is_some() {
            self.touch_routes_into(&name.namespace, touched);
        }
    }
}

fn attached<'a, R: GatewayRoute + PartialEq>(
    routes: &'a RoutesOf<R>,
    service: &ObjectName,
    port: &ServicePort,
) -> Vec<&'a R> {
    let mut found = routes.on(service);
    found.retain(|route| {
        let mut parents = route.services();
        parents.any(|(parent, of)| of == *service && leads_to(parent, port))
    });
    found
}

fn claims_of<'a, R: GatewayRoute>(routes: &[&'a R]) -> Vec<Claim<'a>> {
    let claim = |route: &&'a R| Claim {
        seniority: route.metadata().seniority(),
        kind: R::KIND,
        patterns: route.patterns_count(),
    };
    routes.iter().map(claim).collect()
}

impl<'a> Claim<'a> {
    fn namespace(&self) -> &'a str {
        self.seniority.2
    }

    fn name(&self) -> ObjectName {
        ObjectName::new(self.namespace(), self.seniority.3)
    }
}

fn ports_of<'a>(
    parent: &'a ParentRef,
    service: &'a Service,
) -> impl Iterator<Item = &'a ServicePort> {
    let ports = service.spec.ports.iter();
    ports.filter(move |port| port.is_tcp() && leads_to(parent, port))
}

fn leads_to(parent: &ParentRef, port: &ServicePort) -> bool {
    parent.port.is_none_or(|number| number == port.port)
        && (parent.section_name.as_deref()).is_none_or(|name| name == port.name())
}
