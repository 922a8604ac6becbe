//! What is measured: a way from the client to the backend, and the processes on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::certificates::Certificates;
use crate::engine::{Engine, Trouble};
use crate::process::Process;
use crate::shape::{Shape, Wire};
use crate::{envoy, haproxy, mesh, nginx, peers, relay, sandbox, weir};

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// No proxy.
    Direct,
    /// Our own, with nothing in it: the floor.
    Relay,
    Weir,
    Envoy,
    Haproxy,
    Nginx,
    /// Of the file of peers.
    Peer(peers::Peer),
}

/// What is to be started, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub kind: Kind,
    /// One plain, or two with mutual TLS between them.
    pub hops: u8,
    /// Without: Weir and Envoy as they are when nothing is asked for. A relay has none; without, it is called directly
    /// rather than by way of the redirection that all the others share.
    pub policies: bool,
    /// Weir as the images have it: static, with an allocator of its own.
    pub image: bool,
    /// Tells the addresses and ports of this subject from others'.
    pub number: u8,
    pub scale: Scale,
}

/// How large the mesh around the call is (Weir only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Others, that the sidecar knows too; five endpoints each.
    pub services: u16,
    /// Of the service that is called.
    pub endpoints: u16,
    /// Of the service that is called, tried before the one that matches.
    pub routes: u16,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            services: 0,
            endpoints: 1,
            routes: 0,
        }
    }
}

pub struct Subject {
    pub name: String,
    pub plan: Plan,
    pub wires: Vec<Wire>,
    pub processes: Vec<Process>,
    /// From start until it could be used.
    pub started_in: Duration,
}

/// What all subjects share.
pub struct World {
    pub folder: PathBuf,
    pub certificates: Certificates,
    pub envoy: Option<PathBuf>,
    pub control_plane: Option<mesh::ControlPlane>,
    pub binaries: PathBuf,
    /// Where the program of the images is, if it could be built.
    pub image: Option<PathBuf>,
    /// Put before the command of the first sidecar or relay: a profiler.
    pub wrapper: Vec<String>,
}

pub const BACKEND: [u8; 4] = [10, 1, 0, 1];
const READY_TIMEOUT: Duration = Duration::from_secs(15);

impl Plan {
    pub fn name(&self) -> String {
        let kind = match &self.kind {
            Kind::Direct => return "no proxy".to_owned(),
            Kind::Relay => "bare relay",
            Kind::Weir => "weir",
            Kind::Envoy => "envoy",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Peer(peer) => &peer.name,
        };
        let variant = match (&self.kind, self.policies) {
            _ if self.image => ", image",
            (Kind::Weir, false) => ", no policy",
            (Kind::Envoy, false) => ", minimal",
            (Kind::Relay, false) => ", not redirected",
            _ => "",
        };
        let hops = if self.hops == 2 { " 2×mTLS" } else { "" };
        let scale = match self.scale {
            Scale {
                services: 0,
                endpoints: 1,
                routes: 0,
            } => String::new(),
            Scale {
                services,
                endpoints,
                routes,
            } => format!(" · {services} services, {endpoints} endpoints, {routes} routes"),
        };
        format!("{kind}{hops}{variant}{scale}")
    }

    /// What clients call.
    pub fn entry(&self) -> [u8; 4] {
        match self.kind {
            Kind::Direct => BACKEND,
            _ => [10, 96, self.number, 1],
        }
    }

    /// What the first hop calls.
    pub fn upstream(&self) -> [u8; 4] {
        if self.hops == 2 {
            [10, 97, self.number, 1]
        } else {
            BACKEND
        }
    }

    /// A port of loopback for a listener of this subject.
    pub fn port(&self, hop: u8, wire: Wire) -> u16 {
        20_000
            + u16::from(self.number) * 20
            + u16::from(hop) * 10
            + (wire.port() - Wire::Http1.port())
    }

    pub fn target(&self, shape: Shape) -> SocketAddr {
        match (&self.kind, self.policies) {
            (Kind::Relay, false) => ([127, 0, 0, 1], self.port(0, shape.wire())).into(),
            _ => (self.entry(), shape.wire().port()).into(),
        }
    }
}

impl Subject {
    pub fn start(plan: Plan, world: &World, engine: &mut Engine) -> Result<Self, Trouble> {
        let name = plan.name();
        let explain = |error| Trouble::Io(name.clone(), error);
        if plan.kind == Kind::Weir {
            weir::announce(&plan, world).map_err(explain)?;
        }
        let begin = Instant::now();
        let (processes, wires) = match &plan.kind {
            Kind::Direct => (Vec::new(), Wire::ALL.to_vec()),
            Kind::Relay => relay::start(&plan, world).map_err(explain)?,
            Kind::Weir => weir::start(&plan, world).map_err(explain)?,
            Kind::Envoy => envoy::start(&plan, world).map_err(explain)?,
            Kind::Haproxy => haproxy::start(&plan, world).map_err(explain)?,
            Kind::Nginx => nginx::start(&plan, world).map_err(explain)?,
            Kind::Peer(peer) => peers::start(peer, &plan, world).map_err(explain)?,
        };
        let mut subject = Self {
            name,
            plan,
            wires,
            processes,
            started_in: Duration::ZERO,
        };
        subject.wait_until_ready(engine, begin)?;
        subject.started_in = begin.elapsed();
        if subject.plan.kind != Kind::Weir {
            subject
                .redirect()
                .map_err(|error| Trouble::Io(subject.name.clone(), error))?;
        }
        Ok(subject)
    }

    /// Every listener of every hop can be connected to; Weir says so itself.
    fn wait_until_ready(&mut self, engine: &mut Engine, begin: Instant) -> Result<(), Trouble> {
        let deadline = begin + READY_TIMEOUT;
        while !self.is_ready() {
            if let Some(ended) = self.processes.iter_mut().find_map(Process::has_ended) {
                return Err(Trouble::Failed(ended));
            }
            if Instant::now() > deadline {
                let words: Vec<String> = self.processes.iter().map(Process::last_words).collect();
                return Err(Trouble::Failed(format!(
                    "{} is not ready: {}",
                    self.name,
                    words.join(" | ")
                )));
            }
            engine.idle(Duration::from_millis(2))?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        match self.plan.kind {
            Kind::Direct => true,
            Kind::Weir => weir::is_ready(&self.plan),
            _ => self.own_ports().all(|(_, _, port)| connects(port)),
        }
    }

    fn own_ports(&self) -> impl Iterator<Item = (u8, Wire, u16)> {
        let hops = if self.plan.kind == Kind::Direct {
            0
        } else {
            self.plan.hops
        };
        (0..hops).flat_map(move |hop| {
            self.wires
                .iter()
                .map(move |wire| (hop, *wire, self.plan.port(hop, *wire)))
        })
    }

    fn redirect(&self) -> std::io::Result<()> {
        for (hop, wire, port) in self.own_ports() {
            let address = if hop == 0 {
                self.plan.entry()
            } else {
                self.plan.upstream()
            };
            sandbox::redirect(address, wire.port(), port, None)?;
        }
        Ok(())
    }

    pub fn speaks(&self, shape: Shape) -> bool {
        let nginx = self.plan.kind == Kind::Nginx;
        // nginx speaks HTTP/2 to an upstream for gRPC only.
        self.wires.contains(&shape.wire()) && !(nginx && shape == Shape::Http2)
    }

    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// KiB, of the processes of one hop.
    pub fn resident(&self, hop: u8) -> u64 {
        let of_one = self.processes.len() / usize::from(self.plan.hops.max(1));
        let hop = self.processes.chunks(of_one.max(1)).nth(hop.into());
        hop.unwrap_or_default().iter().map(Process::resident).sum()
    }
}

fn connects(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok()
}
