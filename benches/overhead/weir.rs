//! Weir: its control plane on files, and one sidecar a hop, each a pod of its own.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::engine::{Engine, Trouble};
use crate::mesh::{self, ControlPlane, NO_DRAIN, SOURCE_SETTLES, Sidecar, pod};
use crate::process::{Process, pause};
use crate::sandbox;
use crate::shape::Wire;
use crate::subject::{Plan, World};

const POLICIES: &str = include_str!("policies.yaml");
/// Of each service beside the one that is called.
const OTHER_ENDPOINTS: u16 = 5;
const OTHERS_IN_A_FILE: usize = 50;

/// Where one sidecar listens: outbound, inbound, admin.
fn ports(plan: &Plan, hop: u8) -> [u16; 3] {
    let first = plan.port(hop, Wire::Http1);
    [first + 4, first + 5, first + 6]
}

fn mark(plan: &Plan) -> u32 {
    0x1_0000 + u32::from(plan.number)
}

/// The pod behind the second sidecar.
fn pod_address(plan: &Plan) -> [u8; 4] {
    [10, 2, plan.number, 1]
}

fn plane(world: &World) -> io::Result<&ControlPlane> {
    world
        .control_plane
        .as_ref()
        .ok_or_else(|| io::Error::other("there is no control plane"))
}

/// Tells the control plane of a subject's pods and services, before its start is timed.
pub fn announce(plan: &Plan, world: &World) -> io::Result<()> {
    let plane = plane(world)?;
    let service = format!("shop-{}", plan.number);
    plane.publish(&format!("{service}.yaml"), &resources(plan, &service))?;
    let others: Vec<u16> = (0..plan.scale.services).collect();
    // The control plane reads files of a bounded number of nodes.
    for (part, numbers) in others.chunks(OTHERS_IN_A_FILE).enumerate() {
        let yaml: String = numbers
            .iter()
            .map(|number| other_service(plan, *number))
            .collect();
        plane.publish(&format!("{service}-{part}.yaml"), &yaml)?;
    }
    pause(
        SOURCE_SETTLES
            * if others.len() > OTHERS_IN_A_FILE {
                5
            } else {
                1
            },
    );
    Ok(())
}

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let plane = plane(world)?;
    let [a, b, c, _] = plan.entry();
    sandbox::redirect_network(&format!("{a}.{b}.{c}.0/24"), ports(plan, 0)[0])?;
    let processes = (0..plan.hops)
        .map(|hop| sidecar(plan, hop, plane, world))
        .collect::<io::Result<_>>()?;
    if plan.hops == 2 {
        for wire in Wire::ALL {
            sandbox::redirect(
                pod_address(plan),
                wire.port(),
                ports(plan, 1)[1],
                Some(mark(plan)),
            )?;
        }
    }
    Ok((processes, Wire::ALL.to_vec()))
}

fn sidecar(plan: &Plan, hop: u8, plane: &ControlPlane, world: &World) -> io::Result<Process> {
    let pod = pod_name(plan, hop);
    let address = SocketAddr::from((
        if hop == 0 {
            [10, 3, plan.number, 1]
        } else {
            pod_address(plan)
        },
        0,
    ));
    let mark = if hop == 0 { 0 } else { mark(plan) };
    let wrapper = if hop == 0 {
        world.wrapper.clone()
    } else {
        Vec::new()
    };
    let sidecar = Sidecar {
        pod,
        address: address.ip(),
        ports: ports(plan, hop),
        mark,
        drain: NO_DRAIN,
        wrapper,
    };
    let binaries = match (plan.image, &world.image) {
        (false, _) => &world.binaries,
        (true, Some(folder)) => folder,
        (true, None) => {
            return Err(io::Error::other(
                "the static program was not built: it takes musl-gcc (Debian: musl-tools) and rustup's target",
            ));
        }
    };
    sidecar.start(plane, binaries, &world.folder)
}

fn pod_name(plan: &Plan, hop: u8) -> String {
    let role = if hop == 0 { "caller" } else { "shop" };
    format!("{role}-{}", plan.number)
}

/// A Service for clients to call, its endpoint, and the two pods.
fn resources(plan: &Plan, service: &str) -> String {
    let dotted = |address: [u8; 4]| address.map(|byte| byte.to_string()).join(".");
    let caller = pod_name(plan, 0);
    let mut yaml = pod(&caller, &caller, &format!("10.3.{}.1", plan.number), true);
    let (address, behind) = match plan.hops {
        2 => (pod_address(plan), true),
        _ => ([10, 4, plan.number, 1], false),
    };
    yaml += &pod(
        &pod_name(plan, 1),
        &pod_name(plan, 1),
        &dotted(address),
        behind,
    );
    let mut endpoints = vec![(dotted(address), pod_name(plan, 1))];
    endpoints.extend((1..plan.scale.endpoints).map(|number| {
        let address = [10, 5 + (number >> 8) as u8, plan.number, number as u8];
        (dotted(address), format!("more-{number}"))
    }));
    yaml += &service_yaml(service, &dotted(plan.entry()), &endpoints);
    if plan.policies {
        yaml += &POLICIES.replace("SERVICE", service);
        for number in 0..plan.scale.routes {
            yaml.insert_str(yaml.len() - "---\n".len(), &route(number));
        }
    }
    yaml
}

/// A route that no request of the bench takes.
fn route(number: u16) -> String {
    format!(
        "  - match: {{http: {{method: GET, pathPrefix: /other/{number}}}}}\n    outbound: {{deadline: 9s}}\n"
    )
}

/// A service beside the one that is called, with its meshed endpoints.
fn other_service(plan: &Plan, number: u16) -> String {
    let [_, _, high, low] = other_address(plan, number);
    let endpoint = |replica: u16| {
        let pod = format!("other-{}-{number}-{replica}", plan.number);
        (format!("10.{}.{high}.{low}", 128 + replica), pod)
    };
    let endpoints: Vec<_> = (0..OTHER_ENDPOINTS).map(endpoint).collect();
    let mut yaml = String::new();
    for (address, name) in &endpoints {
        yaml += &pod(name, name, address, true);
    }
    let name = format!("other-{}-{number}", plan.number);
    let address = other_address(plan, number)
        .map(|byte| byte.to_string())
        .join(".");
    yaml + &service_of(&name, &address, &endpoints, &[Wire::Http2])
}

fn other_address(plan: &Plan, number: u16) -> [u8; 4] {
    let [high, low] = (number + 256).to_be_bytes();
    [10, 160 + plan.number, high, low]
}

/// Calls every other service once, so that the sidecar subscribes to it.
pub fn call_others(plan: &Plan, engine: &mut Engine) -> Result<(), Trouble> {
    let network = format!("10.{}.0.0/16", 160 + plan.number);
    let redirected = sandbox::redirect_network(&network, ports(plan, 0)[0]);
    redirected.map_err(|error| Trouble::Io("nft".into(), error))?;
    for number in 0..plan.scale.services {
        let address = SocketAddr::from((other_address(plan, number), Wire::Http2.port()));
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(2));
        let connection =
            connected.map_err(|error| Trouble::Io(format!("service {number}"), error))?;
        // The sidecar asks the control plane when it has accepted.
        engine.idle(Duration::from_millis(2))?;
        drop(connection);
    }
    engine.idle(Duration::from_secs(2))
}

/// A Service that has all wires, and its endpoints: address and pod.
fn service_yaml(name: &str, address: &str, endpoints: &[(String, String)]) -> String {
    service_of(name, address, endpoints, &Wire::ALL)
}

fn service_of(name: &str, address: &str, endpoints: &[(String, String)], wires: &[Wire]) -> String {
    let port = |wire: &Wire| {
        let protocol = match wire {
            Wire::Http1 => "http",
            Wire::Http2 => "grpc",
            Wire::Tcp => "tcp",
        };
        (protocol, wire.port())
    };
    let ports: Vec<_> = wires.iter().map(port).collect();
    mesh::service(name, address, endpoints, &ports)
}

/// All its sidecars have policy and certificate.
pub fn is_ready(plan: &Plan) -> bool {
    (0..plan.hops).all(|hop| mesh::is_ready(ports(plan, hop)[2]))
}
