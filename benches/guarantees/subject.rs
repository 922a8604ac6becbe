//! Who is measured, and what it is started as: processes on the proxies' core, an address for callers, replicas behind it.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::client::Way;
use crate::mesh::ControlPlane;
use crate::process::{Process, pause};
use crate::replica::Backends;
use crate::sandbox;
use crate::trouble::Trouble;

/// Where replicas listen, and what callers call.
pub const PORT: u16 = 8001;
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Ports of loopback for the proxies, below those that the kernel gives away.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 29_990;
const PORTS_EACH: u16 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Weir,
    EnvoyDefault,
    EnvoyBest,
}

/// What an experiment asks of every subject: the user's wishes, not means to fulfil them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    pub deadline: Duration,
    /// The first included.
    pub attempts: u8,
    pub per_try: Option<Duration>,
    /// These requests may be sent twice.
    pub repeatable: bool,
    /// A call that takes longer may be made a second time beside it. Weir finds that time out; Envoy has to be told.
    pub hedge_after: Option<Duration>,
    /// All that is called may be overloaded at once.
    pub overloads: bool,
    /// Of Weir's policy beyond that: a line of YAML below `outbound:` …
    pub outbound: &'static str,
    /// … and below `inbound:`.
    pub inbound: &'static str,
}

/// What all subjects share.
pub struct World {
    pub folder: PathBuf,
    pub binaries: PathBuf,
    pub envoy: Option<PathBuf>,
    pub control_plane: ControlPlane,
    pub backends: Backends,
}

/// The place of one subject in one run. No two have the same, so nothing of a run is left over for the next.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    pub kind: Kind,
    pub number: u16,
}

/// Proxies, running.
#[derive(Default)]
pub struct Proxies {
    /// How to reach each.
    pub ways: Vec<Way>,
    pub processes: Vec<Process>,
    /// Of the control plane's source.
    pub published: Option<PathBuf>,
}

impl Ask {
    pub fn method(&self) -> Method {
        match self.repeatable {
            true => Method::GET,
            false => Method::POST,
        }
    }
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Weir, Self::EnvoyDefault, Self::EnvoyBest];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Weir => "Weir",
            Self::EnvoyDefault => "Envoy default",
            Self::EnvoyBest => "Envoy best effort",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Lane {
    /// An address of 10/8 that only this lane has, as all of it is this machine.
    pub fn address(self, network: u8, which: usize) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        let which = u8::try_from(which).expect("a lane is small");
        Ipv4Addr::new(10, network + which, high, low)
    }

    /// What callers of a service call.
    pub fn entry(self, service: usize) -> Ipv4Addr {
        self.address(100, service)
    }

    pub fn replica(self, which: usize) -> Ipv4Addr {
        self.address(130, which)
    }

    /// Where the app itself listens: behind Weir at the pod's own address, whose sockets are told apart by their mark; Envoy has
    /// no such mark, so its app has an address of its own.
    pub fn app_address(self, which: usize) -> Ipv4Addr {
        match self.kind {
            Kind::Weir => self.replica(which),
            Kind::EnvoyDefault | Kind::EnvoyBest => self.address(200, which),
        }
    }

    pub fn caller(self, proxy: usize) -> Ipv4Addr {
        self.address(160, proxy)
    }

    pub fn service(self, which: usize) -> String {
        format!("shop-{}-{which}", self.number)
    }

    /// From an app in a chain to the next service.
    pub fn onward(self, app: usize) -> Way {
        Way {
            from: self.app_address(app),
            to: (self.entry(app + 1), PORT).into(),
        }
    }

    /// From a caller to a service.
    pub fn way(self, caller: usize, service: usize) -> Way {
        Way {
            from: self.caller(caller),
            to: (self.entry(service), PORT).into(),
        }
    }

    /// So many proxies of callers before so many replicas.
    pub fn callers(
        self,
        world: &World,
        ports: &mut Ports,
        proxies: usize,
        replicas: usize,
        ask: &Ask,
    ) -> Result<Proxies, Trouble> {
        let replicas: Vec<Ipv4Addr> = (0..replicas).map(|which| self.replica(which)).collect();
        let started = match self.kind {
            Kind::Weir => self.weir(world, ports, proxies, &replicas, ask),
            Kind::EnvoyDefault | Kind::EnvoyBest => {
                self.envoys(world, ports, proxies, &replicas, ask)
            }
        };
        started.map_err(Trouble::during(self.kind.name()))
    }

    /// So many proxies of callers before so many apps, each with a proxy of its own.
    pub fn both(
        self,
        world: &World,
        ports: &mut Ports,
        callers: usize,
        apps: usize,
        ask: &Ask,
    ) -> Result<Proxies, Trouble> {
        let which: Vec<usize> = (0..apps).collect();
        let started = match self.kind {
            Kind::Weir => self.weir_mesh(world, ports, callers, &which, ask),
            Kind::EnvoyDefault | Kind::EnvoyBest => {
                self.envoy_both(world, ports, callers, &which, ask)
            }
        };
        let (mut callers, pods) = started.map_err(Trouble::during(self.kind.name()))?;
        callers.processes.extend(pods);
        Ok(callers)
    }

    /// One proxy in the pod of replica 0, before the app.
    pub fn app(self, world: &World, ports: &mut Ports, ask: &Ask) -> Result<Proxies, Trouble> {
        let started = match self.kind {
            Kind::Weir => self.weir_app(world, ports, ask),
            Kind::EnvoyDefault | Kind::EnvoyBest => self.envoy_app(world, ports, ask),
        };
        started.map_err(Trouble::during(self.kind.name()))
    }
}

impl Proxies {
    pub fn wait_until(&mut self, ready: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !ready() {
            self.are_alive()?;
            if Instant::now() > deadline {
                let words = self.processes.last().map(Process::last_words);
                return Err(io::Error::other(format!(
                    "not ready: {}",
                    words.unwrap_or_default()
                )));
            }
            pause(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A subject that died has no figures.
    pub fn are_alive(&mut self) -> io::Result<()> {
        match self.processes.iter_mut().find_map(Process::has_ended) {
            Some(ended) => Err(io::Error::other(ended)),
            None => Ok(()),
        }
    }

    /// KiB.
    pub fn resident(&self) -> u64 {
        self.processes.iter().map(Process::resident).sum()
    }

    /// CPU of all its proxies.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(Process::cpu).sum()
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        if let Some(path) = &self.published {
            // What is gone already needs no withdrawing.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What goes this way comes to a port of loopback.
pub fn redirect_way(way: Way, port: u16) -> io::Result<()> {
    let Way { from, to } = way;
    sandbox::nft(&format!(
        "add rule ip bench output ip saddr {from} ip daddr {} tcp dport {} redirect to :{port}",
        to.ip(),
        to.port()
    ))
}

/// Hands out ports of loopback, three at a time.
#[derive(Clone, Default)]
pub struct Ports(u16);

impl Ports {
    pub fn take(&mut self) -> io::Result<[u16; PORTS_EACH as usize]> {
        let first = FIRST_PORT + self.0;
        if first > LAST_PORT {
            return Err(io::Error::other("all ports are used: ask for less at once"));
        }
        self.0 += PORTS_EACH;
        Ok([first, first + 1, first + 2])
    }
}
