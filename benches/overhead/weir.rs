//! Weir: its control plane on files, and one sidecar a hop, each a pod of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::{Engine, Trouble};
use crate::process::{DRIVER_CORE, PROXY_CORE, Process, Start, pause};
use crate::sandbox;
use crate::shape::Wire;
use crate::subject::{Plan, World};

const POLICIES: &str = include_str!("policies.yaml");
const LISTEN: &str = "127.0.0.1:14180";
/// 32 bytes in hex.
const TOKEN: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// Its sources are looked at every 150 ms.
const SOURCE_SETTLES: Duration = Duration::from_millis(600);
/// Of each service beside the one that is called.
const OTHER_ENDPOINTS: u16 = 5;
const OTHERS_IN_A_FILE: usize = 50;
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(20);

pub struct ControlPlane {
    /// Runs until this goes.
    _process: Process,
    folder: PathBuf,
}

impl ControlPlane {
    pub fn start(binaries: &Path, folder: &Path) -> io::Result<Self> {
        let folder = folder.join("control-plane");
        for name in ["source", "tokens/bench"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let path = |name: &str| folder.join(name).display().to_string();
        let program = binaries.join("weir-control-plane").display().to_string();
        let mut command = vec![program];
        for (flag, value) in [
            ("--source", path("source")),
            ("--listen", LISTEN.to_owned()),
            ("--state", path("state")),
            ("--bootstrap-tokens", path("tokens")),
            ("--trust-bundle-out", path("ca.crt")),
            ("--log", "warn".to_owned()),
        ] {
            command.extend([flag.to_owned(), value]);
        }
        let process = Process::start(Start {
            name: "weir-control-plane".into(),
            command,
            environment: Vec::new(),
            core: DRIVER_CORE,
            folder: &folder,
        })?;
        let mut waited = Duration::ZERO;
        while !folder.join("ca.crt").exists() {
            if waited > BUNDLE_TIMEOUT {
                return Err(io::Error::other(process.last_words()));
            }
            waited += Duration::from_millis(10);
            pause(Duration::from_millis(10));
        }
        Ok(Self {
            _process: process,
            folder,
        })
    }

    /// Puts a file of resources in force.
    pub fn publish(&self, name: &str, yaml: &str) -> io::Result<()> {
        let path = self.folder.join("source").join(name);
        let fresh = path.with_extension("new");
        fs::write(&fresh, yaml)?;
        fs::rename(fresh, path)
    }

    pub fn give_token(&self, pod: &str) -> io::Result<()> {
        fs::write(self.folder.join("tokens/bench").join(pod), TOKEN)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

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
            sandbox::redirect(pod_address(plan), wire, ports(plan, 1)[1], Some(mark(plan)))?;
        }
    }
    Ok((processes, Wire::ALL.to_vec()))
}

fn sidecar(plan: &Plan, hop: u8, plane: &ControlPlane, world: &World) -> io::Result<Process> {
    let pod = pod_name(plan, hop);
    plane.give_token(&pod)?;
    let [outbound, inbound, admin] = ports(plan, hop);
    let address = SocketAddr::from((
        if hop == 0 {
            [10, 3, plan.number, 1]
        } else {
            pod_address(plan)
        },
        0,
    ));
    let mark = if hop == 0 { 0 } else { mark(plan) };
    let environment = [
        ("WEIR_CONTROL_PLANE_ADDR", LISTEN.to_owned()),
        ("WEIR_POD_NAME", pod.clone()),
        ("WEIR_POD_NAMESPACE", "bench".to_owned()),
        ("WEIR_POD_IPS", address.ip().to_string()),
        (
            "WEIR_TOKEN_FILE",
            plane.path(&format!("tokens/bench/{pod}")),
        ),
        ("WEIR_TRUST_BUNDLE_FILE", plane.path("ca.crt")),
        ("WEIR_OUTBOUND_ADDR", format!("127.0.0.1:{outbound}")),
        ("WEIR_INBOUND_ADDR", format!("127.0.0.1:{inbound}")),
        ("WEIR_ADMIN_ADDR", format!("127.0.0.1:{admin}")),
        ("WEIR_WORKERS", "1".to_owned()),
        ("WEIR_SOCKET_MARK", mark.to_string()),
        ("WEIR_DRAIN_DELAY_MS", "0".to_owned()),
        ("WEIR_DRAIN_SECONDS", "1".to_owned()),
        ("WEIR_LOG", "warn".to_owned()),
    ];
    let mut command = if hop == 0 {
        world.wrapper.clone()
    } else {
        Vec::new()
    };
    command.push(world.binaries.join("weir-proxy").display().to_string());
    Process::start(Start {
        name: pod,
        command,
        environment: environment
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        core: PROXY_CORE,
        folder: &world.folder,
    })
}

fn pod_name(plan: &Plan, hop: u8) -> String {
    let role = if hop == 0 { "caller" } else { "shop" };
    format!("{role}-{}", plan.number)
}

/// A Service for clients to call, its endpoint, and the two pods.
fn resources(plan: &Plan, service: &str) -> String {
    let dotted = |address: [u8; 4]| address.map(|byte| byte.to_string()).join(".");
    let caller = pod_name(plan, 0);
    let mut yaml = pod(&caller, &format!("10.3.{}.1", plan.number), true);
    let (address, behind) = match plan.hops {
        2 => (pod_address(plan), true),
        _ => ([10, 4, plan.number, 1], false),
    };
    yaml += &pod(&pod_name(plan, 1), &dotted(address), behind);
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
        yaml += &pod(name, address, true);
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

fn pod(name: &str, address: &str, meshed: bool) -> String {
    let sidecar = if meshed { "[{name: weir-proxy}]" } else { "[]" };
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: bench, labels: {{app: {name}}}}}\n\
         spec: {{serviceAccountName: {app}, containers: [{{name: app}}], initContainers: {sidecar}}}\n\
         status: {{podIP: {address}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
    )
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
        format!(
            "{{name: {protocol}, port: {}, protocol: TCP, appProtocol: {protocol}}}",
            wire.port()
        )
    };
    let ports = wires.iter().map(port).collect::<Vec<_>>().join(", ");
    let endpoint = |(address, pod): &(String, String)| {
        format!(
            "{{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}}}}}"
        )
    };
    let endpoints: Vec<String> = endpoints.iter().map(endpoint).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\n\
         spec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{ports}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: bench, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{ports}]\nendpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

/// All its sidecars have policy and certificate.
pub fn is_ready(plan: &Plan) -> bool {
    (0..plan.hops).all(|hop| answers_ready(ports(plan, hop)[2]).unwrap_or(false))
}

fn answers_ready(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(100))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer.ends_with(b"200"))
}
