//! Putting a push in force: read all of it first, then apply all of it.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use weir_config::resource::WEIGHT_DEFAULT;
use weir_config::{pb, snapshot};

use crate::backend::Backend;
use crate::endpoints::Described;
use crate::identity::SpiffeId;
use crate::layer::dispatch;
use crate::mesh::{Destination, Mesh, of_pod};
use crate::socket::canonical;

const DIRECT_PORTS_MAX: usize = 64;

/// A push that has been read and found good: applying it cannot fail half-way.
struct Read {
    workload: Option<snapshot::Workload>,
    policies: Vec<(String, Option<snapshot::Service>)>,
    endpoints: Vec<Change>,
    destinations: Vec<(SocketAddr, Target)>,
}

struct Change {
    service: String,
    reset: bool,
    changed: Vec<Described>,
    removed: Vec<SocketAddr>,
}

enum Target {
    Service(String),
    Endpoint(Described),
    Outside,
}

/// The reason why nothing of it is in force, with the path of what is wrong.
pub fn apply(mesh: &Mesh, push: pb::ToProxy) -> Result<(), String> {
    let read = read(push)?;
    let mut backends = mesh.backends();
    let sent = |service: &String| {
        read.policies
            .iter()
            .any(|(name, policy)| name == service && policy.is_some())
    };
    let known = |service: &String| backends.contains_key(service) || sent(service);
    for (address, target) in &read.destinations {
        if let Target::Service(service) = target
            && !known(service)
        {
            return Err(format!(
                "destinations[{address}]: service {service} has no policy"
            ));
        }
    }
    if let Some(change) = read.endpoints.iter().find(|change| !known(&change.service)) {
        return Err(format!(
            "endpoints[{}]: the service has no policy",
            change.service
        ));
    }

    if let Some(workload) = read.workload {
        mesh.set_workload(workload);
    }
    // Who is new is there, with its endpoints, before a route of another sends calls to it; who is gone goes last.
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for (service, policy) in read.policies {
        match (policy, backends.get(&service)) {
            (Some(policy), Some(backend)) => changed.push((backend.clone(), policy)),
            (Some(policy), None) => {
                let backend = Backend::new(&policy, mesh.environment.clone());
                backends.insert(service, Arc::new(backend));
            }
            (None, _) => gone.push(service),
        }
    }
    for change in read.endpoints {
        if let Some(backend) = backends.get(&change.service) {
            backend
                .endpoints
                .update(change.reset, change.changed, &change.removed);
        }
    }
    mesh.set_backends(backends.clone());
    for (backend, policy) in changed {
        backend.reconfigure(&policy);
    }
    for service in gone {
        if let Some(gone) = backends.remove(&service) {
            gone.say_goodbye();
        }
    }
    let destinations = read
        .destinations
        .into_iter()
        .filter_map(|(address, target)| {
            let destination = match target {
                Target::Outside => Destination::Outside,
                Target::Service(service) => Destination::Service(backends.get(&service)?.clone()),
                Target::Endpoint(endpoint) => {
                    Destination::Service(direct(&mut backends, mesh, address, endpoint))
                }
            };
            Some((address, destination))
        });
    let destinations = destinations.collect();
    let workload = mesh.workload();
    let zone = workload.as_ref().and_then(|own| own.zone.as_deref());
    for backend in backends.values() {
        backend.endpoints.set_zone(zone);
    }
    mesh.set_backends(backends);
    mesh.set_destinations(destinations);
    Ok(())
}

/// One pod, called by its own address: a backend with a single endpoint and the default policy.
fn direct(
    backends: &mut HashMap<String, Arc<Backend>>,
    mesh: &Mesh,
    address: SocketAddr,
    endpoint: Described,
) -> Arc<Backend> {
    let backend = backends.entry(of_pod(address)).or_insert_with(|| {
        let policy = snapshot::Service {
            key: snapshot::ServiceKey {
                // Pods come and go: their addresses make no metric series.
                namespace: "direct".into(),
                name: "pod".into(),
                port: told_apart(address.port()),
            },
            protocol: snapshot::Protocol::Detect,
            mode: snapshot::Mode::Enforce,
            forced: None,
            outbound: snapshot::Outbound::default(),
            routes: Vec::new(),
            priorities: Vec::new(),
            faults: Vec::new(),
            routing: Vec::new(),
        };
        Arc::new(Backend::new(&policy, mesh.environment.clone()))
    });
    backend.endpoints.update(true, vec![endpoint], &[]);
    backend.clone()
}

/// The port by which metrics know a pod that is called by its address: an app that dials ports by the thousand makes no
/// series for each. 0: all those beyond the first.
fn told_apart(port: u16) -> u16 {
    static PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut ports = PORTS.lock().expect("no panic while locked");
    known_or_0(&mut ports, port)
}

fn known_or_0(known: &mut BTreeSet<u16>, port: u16) -> u16 {
    if known.len() < DIRECT_PORTS_MAX {
        known.insert(port);
    }
    match known.contains(&port) {
        true => port,
        false => 0,
    }
}

fn read(push: pb::ToProxy) -> Result<Read, String> {
    let workload = (!push.workload_json.is_empty())
        .then(|| {
            serde_json::from_slice(&push.workload_json)
                .map_err(|error| format!("workload: {error}"))
        })
        .transpose()?;
    let mut policies = Vec::new();
    for service in push.services {
        let policy = if service.policy_json.is_empty() {
            None
        } else {
            let read = serde_json::from_slice(&service.policy_json);
            let wrong = |error: String| format!("services[{}]: {error}", service.service);
            let read: snapshot::Service =
                read.map_err(|error: serde_json::Error| wrong(error.to_string()))?;
            dispatch::check(&read).map_err(|error| wrong(format!("routing: {error}")))?;
            Some(read)
        };
        policies.push((service.service, policy));
    }
    let mut endpoints = Vec::new();
    for change in push.endpoints {
        let path =
            |address: &str| format!("endpoints[{}]: {address:?} is no address", change.service);
        let removed = change
            .removed
            .iter()
            .map(|text| self::address(text).ok_or_else(|| path(text)));
        let removed = removed.collect::<Result<_, _>>()?;
        let changed = change
            .changed
            .iter()
            .map(described)
            .collect::<Result<_, _>>()?;
        endpoints.push(Change {
            reset: change.reset,
            changed,
            removed,
            service: change.service,
        });
    }
    let mut destinations = Vec::new();
    for destination in push.destinations {
        let text = &destination.address;
        let address =
            address(text).ok_or_else(|| format!("destinations: {text:?} is no address"))?;
        let target = match destination.target {
            Some(pb::destination::Target::Service(service)) => Target::Service(service),
            Some(pb::destination::Target::Endpoint(endpoint)) => {
                Target::Endpoint(described(&endpoint)?)
            }
            Some(pb::destination::Target::Outside(_)) => Target::Outside,
            // A newer control plane means something that we do not know: never take it for "outside".
            None => {
                return Err(format!(
                    "destinations[{text}]: the target is of no known kind"
                ));
            }
        };
        destinations.push((address, target));
    }
    Ok(Read {
        workload,
        policies,
        endpoints,
        destinations,
    })
}

fn described(endpoint: &pb::Endpoint) -> Result<Described, String> {
    let text = &endpoint.address;
    let address = address(text).ok_or_else(|| format!("endpoint {text:?} has no address"))?;
    let identity = match endpoint.identity.as_str() {
        "" => None,
        // An identity that cannot be read must not become "no identity needed".
        id => Some(
            SpiffeId::parse(id)
                .ok_or_else(|| format!("endpoint {text}: {id:?} is no SPIFFE id"))?,
        ),
    };
    Ok(Described {
        address,
        identity,
        draining: endpoint.draining,
        weight: match endpoint.weight {
            0 => WEIGHT_DEFAULT,
            said => said,
        },
        zone: Some(endpoint.zone.clone()).filter(|zone| !zone.is_empty()),
        pod: endpoint.pod.clone(),
    })
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_dials_thousands_of_ports_makes_no_series_for_each() {
        let mut known = BTreeSet::new();
        let told: BTreeSet<u16> = (1..=30_000)
            .map(|port| known_or_0(&mut known, port))
            .collect();
        assert_eq!(told.len(), DIRECT_PORTS_MAX + 1);
        assert_eq!(known_or_0(&mut known, 7), 7, "it keeps its own");
    }
}
