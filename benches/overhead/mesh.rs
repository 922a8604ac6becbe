//! The mesh around a subject that is Weir: a control plane on files, sidecars, and the resources that say what there is.
//! Both benches use it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{DRIVER_CORE, PROXY_CORE, Process, Start, pause};

const LISTEN: &str = "127.0.0.1:14180";
/// 32 bytes in hex.
const TOKEN: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// Its sources are looked at every 150 ms.
pub const SOURCE_SETTLES: Duration = Duration::from_millis(600);
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

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// One of Weir's proxies, and the pod that it stands in.
pub struct Sidecar {
    pub pod: String,
    pub address: IpAddr,
    /// Outbound, inbound, admin.
    pub ports: [u16; 3],
    /// On its own sockets, where the redirection has to tell them from others'; 0: none.
    pub mark: u32,
    /// How long it still takes connections after SIGTERM, and how long requests may then take to end.
    pub drain: [Duration; 2],
    /// Put before its command: a profiler.
    pub wrapper: Vec<String>,
}

/// For who is not to be waited for.
pub const NO_DRAIN: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];

impl Sidecar {
    pub fn start(
        self,
        plane: &ControlPlane,
        binaries: &Path,
        folder: &Path,
    ) -> io::Result<Process> {
        plane.give_token(&self.pod)?;
        let [outbound, inbound, admin] = self.ports;
        let [delay, limit] = self.drain;
        let environment = [
            ("WEIR_CONTROL_PLANE_ADDR", LISTEN.to_owned()),
            ("WEIR_POD_NAME", self.pod.clone()),
            ("WEIR_POD_NAMESPACE", "bench".to_owned()),
            ("WEIR_POD_IPS", self.address.to_string()),
            (
                "WEIR_TOKEN_FILE",
                plane.path(&format!("tokens/bench/{}", self.pod)),
            ),
            ("WEIR_TRUST_BUNDLE_FILE", plane.path("ca.crt")),
            ("WEIR_OUTBOUND_ADDR", format!("127.0.0.1:{outbound}")),
            ("WEIR_INBOUND_ADDR", format!("127.0.0.1:{inbound}")),
            ("WEIR_ADMIN_ADDR", format!("127.0.0.1:{admin}")),
            ("WEIR_WORKERS", "1".to_owned()),
            ("WEIR_SOCKET_MARK", self.mark.to_string()),
            ("WEIR_DRAIN_DELAY_MS", delay.as_millis().to_string()),
            ("WEIR_DRAIN_SECONDS", limit.as_secs().to_string()),
            ("WEIR_LOG", "warn".to_owned()),
        ];
        let mut command = self.wrapper;
        command.push(binaries.join("weir-proxy").display().to_string());
        Process::start(Start {
            name: self.pod,
            command,
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            core: PROXY_CORE,
            folder,
        })
    }
}

/// Whether the sidecar with this admin port has policy and certificate.
pub fn is_ready(admin: u16) -> bool {
    answers_ready(admin).unwrap_or(false)
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

/// A pod whose service account is its name without the last part; `label`: what services select it by.
pub fn pod(name: &str, label: &str, address: &str, meshed: bool) -> String {
    let sidecar = if meshed {
        "[{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]"
    } else {
        "[]"
    };
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: bench, labels: {{app: {label}}}}}\n\
         spec: {{serviceAccountName: {app}, containers: [{{name: app}}], initContainers: {sidecar}}}\n\
         status: {{podIP: {address}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
    )
}

/// A Service, with an address and a pod for each of its endpoints, and a protocol and a number for each of its ports.
pub fn service(
    name: &str,
    address: &str,
    endpoints: &[(String, String)],
    ports: &[(&str, u16)],
) -> String {
    let port = |(protocol, port): &(&str, u16)| {
        format!("{{name: {protocol}, port: {port}, protocol: TCP, appProtocol: {protocol}}}")
    };
    let ports = ports.iter().map(port).collect::<Vec<_>>().join(", ");
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
