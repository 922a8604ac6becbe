//! From what users wrote to what a sidecar needs: pure, complete, every default filled in.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use crate::index::{Index, Target};
use crate::merge::{self, Effective, Layer, Source};
use crate::resource::{
    EndpointSlice, Inbound, ObjectName, Outbound, Pod, ResiliencePolicy, RoutePolicy, Service,
    ServicePort, SliceEndpoint, WEIGHT_DEFAULT,
};
use crate::snapshot::{self, Mode, Protocol, ServiceKey};

mod authorization;
mod faults;
mod gateway;
pub(crate) mod protocol;
mod routes;
mod shared;
mod unmeshed;

pub(crate) use authorization::whole_identity;
pub use faults::end as fault_end;
pub(crate) use routes::route_match;
pub use shared::{Exception, exceptions};
pub use unmeshed::{Unmeshed, unmeshed};

/// A field of every policy, beside those of its blocks.
const MODE: &str = "mode";

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Host,
    pub port: u16,
    /// SPIFFE id that its sidecar must prove; `None`: no sidecar that takes this port, plain text.
    pub identity: Option<String>,
    /// Finishing its work: gets nothing new unless nobody else is left.
    pub draining: bool,
    /// 1 to 1000; 100 is an ordinary endpoint.
    pub weight: u32,
    pub zone: Option<String>,
    pub node: Option<String>,
    pub pod: Option<ObjectName>,
}

/// Slices of type FQDN hold names, which whoever runs this resolves and keeps fresh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

/// What callers need to know of a service port; `None` when there is no such service or port.
pub fn service(index: &Index, key: &ServiceKey) -> Option<snapshot::Service> {
    effective(index, key).map(|effective| effective.value)
}

/// The same, with who said what.
pub fn effective(index: &Index, key: &ServiceKey) -> Option<Effective<snapshot::Service>> {
    let name = ObjectName::new(&key.namespace, &key.name);
    let service = index.service(&name)?;
    let port = service_port(service, key.port)?;
    let policies = Policies::of(index, &key.namespace, Some((&name, port)));
    let outbound = merge::outbound(&policies.outbound(), "");
    let (mode_from, mode) = policies.mode_said();
    let (mut from, mut fields) = (vec![(MODE.into(), mode_from)], vec![(MODE.into(), mode)]);
    from.extend(outbound.from);
    fields.extend(outbound.fields);
    let routes = routes::compile(&policies, &mut from, &mut fields);
    let protocol = protocol::of_service(index, &name, port);
    let faults = faults::compile(index, &name, port, protocol, &mut from, &mut fields);
    let routing = gateway::compile(index, key, port, protocol, &mut from, &mut fields);
    let mut value = snapshot::Service {
        key: key.clone(),
        protocol,
        mode: policies.mode,
        forced: None,
        outbound: outbound.value,
        routes,
        priorities: merge::priorities(&policies.inbound(), index.trust_domain()).value,
        faults,
        routing,
    };
    without_itself(&mut value);
    Some(Effective {
        value,
        from,
        fields,
    })
}

/// A namespace's policy may name one of its own services as the alternate of all: of the others, that is.
fn without_itself(service: &mut snapshot::Service) {
    let of_routes = service.routes.iter_mut().map(|route| &mut route.outbound);
    for outbound in std::iter::once(&mut service.outbound).chain(of_routes) {
        if let Some(fallback) = &mut outbound.fallback {
            fallback.alternate = fallback.alternate.take().filter(|it| *it != service.key);
        }
    }
}

/// The endpoints of a service port, in the order of slices and their lists, each address once and each pod by one
/// family of addresses: that of the Service's first address, where the pod has one of it.
pub fn endpoints(index: &Index, key: &ServiceKey) -> Vec<Endpoint> {
    let name = ObjectName::new(&key.namespace, &key.name);
    let Some(service) = index.service(&name) else {
        return Vec::new();
    };
    let Some(port) = service_port(service, key.port) else {
        return Vec::new();
    };
    let trust_domain = index.trust_domain();
    let mut seen = HashSet::new();
    let mut family_of_pod = HashMap::new();
    let mut endpoints = Vec::new();
    for slice in preferred_first(service, index.slices_of(&name)) {
        let Some(number) = slice.port_named(port.name()) else {
            continue;
        };
        for of_slice in &slice.endpoints {
            let Some(pod) = pod_behind(index, slice, of_slice) else {
                continue;
            };
            let Some(draining) = takes_calls(of_slice, pod) else {
                continue;
            };
            for address in &of_slice.addresses {
                let host = Host::new(address);
                if let (Host::Ip(ip), Some(pod)) = (&host, pod) {
                    let family = family_of_pod.entry(pod.metadata.object_name());
                    if *family.or_insert(ip.is_ipv4()) != ip.is_ipv4() {
                        continue;
                    }
                }
                if seen.insert((host.clone(), number)) {
                    endpoints.push(Endpoint {
                        host,
                        port: number,
                        identity: pod
                            .filter(|pod| pod.is_meshed_on(number))
                            .map(|pod| pod.identity(trust_domain)),
                        draining,
                        weight: pod.map_or(WEIGHT_DEFAULT, Pod::weight),
                        zone: zone(of_slice, pod),
                        node: node(of_slice, pod),
                        pod: pod.map(|pod| pod.metadata.object_name()),
                    });
                }
            }
        }
    }
    endpoints
}

/// Whether callers of a service port are to have the endpoints of their own node only.
pub fn is_node_local(index: &Index, key: &ServiceKey) -> bool {
    let service = index.service(&ObjectName::new(&key.namespace, &key.name));
    service.is_some_and(|service| service.spec.is_node_local())
}

/// A dual-stack Service has slices of both families, and the order of their names is chance. Its first address is of the
/// family that its author prefers, in which its apps surely listen; a headless one has none and leaves all as it is.
fn preferred_first<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
) -> Vec<&'a Arc<EndpointSlice>> {
    let mut slices: Vec<_> = slices.collect();
    if let Some(first) = service.spec.addresses().next() {
        slices.sort_by_key(|slice| slice.is_ipv4() != Some(first.is_ipv4()));
    }
    slices
}

/// A pod that somebody calls by its own address.
pub fn direct_endpoint(index: &Index, pod: &Pod, address: SocketAddr) -> Endpoint {
    Endpoint {
        host: Host::Ip(address.ip()),
        port: address.port(),
        identity: (pod.is_meshed_on(address.port())).then(|| pod.identity(index.trust_domain())),
        draining: pod.is_terminating(),
        weight: pod.weight(),
        zone: pod.zone().map(str::to_owned),
        node: pod.node().map(str::to_owned),
        pod: Some(pod.metadata.object_name()),
    }
}

/// What a pod's own sidecar needs to know; `None` when there is no such pod.
pub fn workload(index: &Index, pod: &ObjectName) -> Option<snapshot::Workload> {
    let pod = index.pod(pod)?;
    let mesh = index.mesh_config();
    let (namespace, account) = (pod.metadata.namespace(), pod.account());
    let ports = shared::leading(index, pod)
        .into_iter()
        .map(|(number, leading)| {
            let (service, port) = shared::speaker(index, &leading);
            snapshot::Inbound {
                // Whichever service a caller means, it is the same app: what any of them forbids is forbidden.
                authorization: authorization::compile(index, &account, &leading),
                ..inbound(index, service, port, (pod, number))
            }
        });
    let ports = ports.collect();
    let of_namespace = Policies::of(index, namespace, None);
    Some(snapshot::Workload {
        identity: pod.identity(index.trust_domain()),
        zone: zone_of(index, pod),
        mtls: mesh.and_then(|mesh| mesh.spec.mtls).unwrap_or_default(),
        access_log: mesh
            .and_then(|mesh| mesh.spec.access_log)
            .unwrap_or_default(),
        ports,
        default_port: snapshot::Inbound {
            port: 0,
            service: None,
            protocol: Protocol::Detect,
            mode: of_namespace.mode,
            limits: merge::inbound(&of_namespace.inbound(), of_namespace.mode).value,
            priorities: merge::priorities(&of_namespace.inbound(), index.trust_domain()).value,
            rate_limits: merge::rate_limits(&of_namespace.inbound()).value,
            authorization: authorization::compile(index, &account, &[]),
        },
    })
}

/// The port of `pod` to which a port of a service leads.
pub fn port_behind(index: &Index, key: &ServiceKey, pod: &ObjectName) -> Option<u16> {
    let name = ObjectName::new(&key.namespace, &key.name);
    let port = service_port(index.service(&name)?, key.port)?;
    shared::target_port(index, &name, port, index.pod(pod)?)
}

/// What a service's own sidecar does on one of its ports, with who said what. Where several services lead to the same port
/// of a pod, only [one of them](workload) says more than who may call.
pub fn effective_inbound(
    index: &Index,
    key: &ServiceKey,
    pod: &Pod,
) -> Option<Effective<snapshot::InboundLimits>> {
    let name = ObjectName::new(&key.namespace, &key.name);
    let port = service_port(index.service(&name)?, key.port)?;
    Some(inbound_said(index, pod, Some((&name, port))))
}

/// The same, on ports of a pod to which no service leads.
pub fn effective_inbound_elsewhere(index: &Index, pod: &Pod) -> Effective<snapshot::InboundLimits> {
    inbound_said(index, pod, None)
}

/// What MeshConfig says beside `defaults`, with who said so: the same for all.
pub fn effective_mesh(index: &Index) -> Vec<(String, Value, Source)> {
    let mesh = index.mesh_config();
    let spec = mesh.map(|mesh| &mesh.spec);
    let mtls = spec.and_then(|spec| spec.mtls);
    let access_log = spec.and_then(|spec| spec.access_log);
    let source = |is_said: bool| match mesh {
        Some(mesh) if is_said => Source::MeshConfig(mesh.metadata.name.clone()),
        _ => Source::BuiltIn,
    };
    let value = |value: serde_json::Result<Value>| value.expect("it is plain data");
    vec![
        (
            "mtls".to_owned(),
            value(serde_json::to_value(mtls.unwrap_or_default())),
            source(mtls.is_some()),
        ),
        (
            "accessLog".to_owned(),
            value(serde_json::to_value(access_log.unwrap_or_default())),
            source(access_log.is_some()),
        ),
    ]
}

fn inbound_said(
    index: &Index,
    pod: &Pod,
    port: Option<(&ObjectName, &ServicePort)>,
) -> Effective<snapshot::InboundLimits> {
    let policies = Policies::of(index, pod.metadata.namespace(), port);
    let inbound = merge::inbound(&policies.inbound(), policies.mode);
    let (mode_from, mode) = policies.mode_said();
    let (mut from, mut fields) = (vec![(MODE.into(), mode_from)], vec![(MODE.into(), mode)]);
    let priorities = merge::priorities(&policies.inbound(), index.trust_domain());
    let rates = merge::rate_limits(&policies.inbound());
    from.extend(inbound.from.into_iter().chain(priorities.from));
    from.extend(rates.from);
    fields.extend(inbound.fields.into_iter().chain(priorities.fields));
    fields.extend(rates.fields);
    let ports = port.map(|(name, port)| (name.clone(), port));
    for (field, value, source) in authorization::said(index, &pod.account(), ports.as_slice()) {
        fields.push((field.clone(), value));
        from.push((field, source));
    }
    Effective {
        value: inbound.value,
        from,
        fields,
    }
}

fn inbound(
    index: &Index,
    service: &ObjectName,
    port: &ServicePort,
    (pod, number): (&Pod, u16),
) -> snapshot::Inbound {
    let policies = Policies::of(index, &service.namespace, Some((service, port)));
    snapshot::Inbound {
        port: number,
        service: Some(ServiceKey {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: port.port,
        }),
        protocol: protocol::of_pod(pod, number, port),
        mode: policies.mode,
        limits: merge::inbound(&policies.inbound(), policies.mode).value,
        priorities: merge::priorities(&policies.inbound(), index.trust_domain()).value,
        rate_limits: merge::rate_limits(&policies.inbound()).value,
        // That of all services that lead there, by whoever knows them.
        authorization: None,
    }
}

/// The policies that apply to a service port or, without one, to a namespace; weakest first.
struct Policies<'a> {
    mode: Mode,
    mesh_defaults: Option<Layer<'a, Outbound>>,
    policies: Vec<&'a ResiliencePolicy>,
}

impl<'a> Policies<'a> {
    fn of(index: &'a Index, namespace: &str, port: Option<(&ObjectName, &ServicePort)>) -> Self {
        let mut targets = vec![Target::Namespace(namespace.to_owned())];
        if let Some((service, port)) = port {
            targets.push(Target::Service(service.clone()));
            targets.push(Target::Port(service.clone(), port.name().to_owned()));
        }
        let mut policies: Vec<&ResiliencePolicy> = targets
            .iter()
            .filter_map(|target| index.policy_on(target))
            .map(AsRef::as_ref)
            .collect();
        // A policy may have several of these targets; it then counts once, at its strongest.
        let strongest = policies.clone();
        let mut place = 0;
        policies.retain(|policy| {
            place += 1;
            !strongest[place..]
                .iter()
                .any(|later| std::ptr::eq(*later, *policy))
        });
        let mode = policies
            .last()
            .and_then(|policy| policy.spec.mode)
            .unwrap_or_default();
        if mode == Mode::Enforce {
            // What only observes must not act by way of a stronger policy that enforces.
            policies.retain(|policy| policy.spec.mode != Some(Mode::Observe));
        }
        let mesh_defaults = index.mesh_config().and_then(|mesh| {
            let defaults = mesh.spec.defaults.as_ref()?;
            Some((Source::MeshConfig(mesh.metadata.name.clone()), defaults))
        });
        Self {
            mode,
            mesh_defaults,
            policies,
        }
    }

    /// Who said the mode, and what it is.
    fn mode_said(&self) -> (Source, Value) {
        let strongest = self.policies.last();
        let said = strongest.filter(|policy| policy.spec.mode.is_some());
        let source = said.map_or(Source::BuiltIn, |policy| {
            Source::Policy(policy.metadata.object_name())
        });
        let mode = serde_json::to_value(self.mode).expect("a mode is a word");
        (source, mode)
    }

    fn outbound(&self) -> Vec<Layer<'a, Outbound>> {
        let of_policies = self.policies.iter().filter_map(|policy| {
            let outbound = policy.spec.outbound.as_ref()?;
            Some((Source::Policy(policy.metadata.object_name()), outbound))
        });
        self.mesh_defaults
            .clone()
            .into_iter()
            .chain(of_policies)
            .collect()
    }

    fn inbound(&self) -> Vec<Layer<'a, Inbound>> {
        let of_policies = self.policies.iter().filter_map(|policy| {
            let inbound = policy.spec.inbound.as_ref()?;
            Some((Source::Policy(policy.metadata.object_name()), inbound))
        });
        of_policies.collect()
    }

    fn routes(&self) -> impl Iterator<Item = (ObjectName, usize, &'a RoutePolicy)> {
        self.policies.iter().flat_map(|policy| {
            let name = policy.metadata.object_name();
            (policy.spec.routes.iter().enumerate())
                .map(move |(place, route)| (name.clone(), place, route))
        })
    }
}

fn service_port(service: &Service, number: u16) -> Option<&ServicePort> {
    service
        .spec
        .ports
        .iter()
        .find(|port| port.port == number && port.is_tcp())
}

/// `None`: it names a pod that is not known, yet or any more. Nobody can tell then whether there is a sidecar, and what
/// is meant for it must not go in plain text to whoever has its address.
fn pod_behind<'a>(
    index: &'a Index,
    slice: &EndpointSlice,
    endpoint: &SliceEndpoint,
) -> Option<Option<&'a Pod>> {
    if let Some(name) = endpoint.pod(slice.metadata.namespace()) {
        return index.pod(&name).map(|pod| Some(pod.as_ref()));
    }
    let pod = endpoint.first_ip().and_then(|ip| index.pod_at(ip));
    Some(pod.map(AsRef::as_ref))
}

/// The slice has it from the node; else what the pod's labels say.
fn zone(endpoint: &SliceEndpoint, pod: Option<&Pod>) -> Option<String> {
    let said = endpoint.zone.as_deref().filter(|zone| !zone.is_empty());
    said.or_else(|| pod?.zone()).map(str::to_owned)
}

fn node(endpoint: &SliceEndpoint, pod: Option<&Pod>) -> Option<String> {
    let said = endpoint.node_name.as_deref();
    let said = said.filter(|node| !node.is_empty());
    said.or_else(|| pod?.node()).map(str::to_owned)
}

/// A sidecar cannot ask for its node's zone (the downward API has none), but slices that list its pod know it.
fn zone_of(index: &Index, pod: &Pod) -> Option<String> {
    if let Some(zone) = pod.zone() {
        return Some(zone.to_owned());
    }
    let name = pod.metadata.object_name();
    let services = index.services_before(pod);
    let mut slices = services.iter().flat_map(|service| index.slices_of(service));
    slices.find_map(|slice| {
        let namespace = slice.metadata.namespace();
        let mut endpoints = slice.endpoints.iter();
        let own = endpoints.find(|endpoint| endpoint.pod(namespace).as_ref() == Some(&name))?;
        zone(own, None)
    })
}

/// `None`: it takes none. Otherwise whether it is draining, that is, finishing those it has.
fn takes_calls(endpoint: &SliceEndpoint, pod: Option<&Pod>) -> Option<bool> {
    let conditions = endpoint.conditions;
    let draining = conditions.is_terminating() || pod.is_some_and(Pod::is_terminating);
    if draining {
        // The slice of a pod that was told to stop a moment ago may not say so yet: `ready` is enough.
        (conditions.is_serving() || conditions.is_ready()).then_some(true)
    } else {
        conditions.is_ready().then_some(false)
    }
}

impl Host {
    fn new(address: &str) -> Self {
        (address.parse()).map_or_else(|_| Self::Name(address.to_owned()), Self::Ip)
    }
}
