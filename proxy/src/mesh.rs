//! What this sidecar knows of the mesh: the addresses that its app calls, and how its own ports take calls.
//!
//! Read on every connection without a lock; written by discovery alone, whole pushes at a time. When the control plane is
//! gone, all this stays as it is for as long as it takes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_config::snapshot;

use crate::app::App;
use crate::backend::{Backend, Environment};
use crate::facts::Facts;
use crate::layer::doomed::DoomedLayer;
use crate::layer::inherit::BequeathLayer;
use crate::layer::priority::PriorityLayer;
use crate::layer::{admission, authorize, rate_limit};
use crate::pipeline::{self, Stack};
use crate::policy::episode::Change;
use crate::telemetry::{Direction, InboundMetrics, RouteMetrics};

/// How long a connection to an address nobody has heard of waits for the control plane's word.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Subscriptions that may be on their way at once.
const SUBSCRIBING_MAX: usize = 1024;

/// Ports that no service names and of which each has an admission and limits of its own. Whoever tries one port after the
/// other, which takes no proof of anything, meets one that all the others share.
const UNNAMED_MAX: usize = 64;
/// Nobody listens there.
const ALL_OTHERS: u16 = 0;
/// Of a port; the stacks of further addresses are made for each connection.
const STACKS_MAX: usize = 64;

/// What an address is.
#[derive(Clone)]
pub enum Destination {
    Service(Arc<Backend>),
    /// Not in the mesh: passed through untouched.
    Outside,
}

pub struct Known {
    pub destination: Destination,
    /// Milliseconds since `Mesh::started`.
    last_used: AtomicU64,
}

/// What of a port outlives policies, with what it has counted: a new policy holds for open connections too.
#[derive(Clone, Default)]
struct Standing {
    rate_limits: Arc<rate_limit::Shared>,
    authorization: Arc<authorize::Shared>,
}

impl Standing {
    fn reconfigure(&self, policy: &snapshot::Inbound) {
        let service = service_of(policy);
        self.rate_limits
            .reconfigure(&policy.rate_limits, policy.mode, &service);
        self.authorization
            .reconfigure(policy.authorization.as_ref(), &service);
    }
}

/// One of the app's ports.
pub struct InboundPort {
    pub protocol: snapshot::Protocol,
    pub service: Arc<str>,
    pub admission: Arc<admission::Shared>,
    priorities: PriorityLayer,
    standing: Standing,
    doomed: DoomedLayer,
    metrics: Arc<RouteMetrics>,
    load: InboundMetrics,
    /// By the address that callers meant: a pod may have several.
    stacks: Mutex<HashMap<SocketAddr, Stack>>,
}

pub struct Mesh {
    known: ArcSwap<HashMap<SocketAddr, Arc<Known>>>,
    workload: ArcSwapOption<snapshot::Workload>,
    ports: Mutex<HashMap<u16, (snapshot::Inbound, Arc<InboundPort>)>>,
    /// By port.
    standing: Mutex<HashMap<u16, Standing>>,
    wanted: mpsc::Sender<SocketAddr>,
    changed: watch::Sender<()>,
    started: Instant,
    pub environment: Environment,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the control plane has not said what {0} is")]
    Unknown(SocketAddr),
    #[error("too many unknown addresses are being asked for")]
    Busy,
}

impl Mesh {
    pub fn new(environment: Environment) -> (Self, mpsc::Receiver<SocketAddr>) {
        let (wanted, receiver) = mpsc::channel(SUBSCRIBING_MAX);
        let mesh = Self {
            known: ArcSwap::default(),
            workload: ArcSwapOption::empty(),
            ports: Mutex::default(),
            standing: Mutex::default(),
            wanted,
            changed: watch::Sender::new(()),
            started: Instant::now(),
            environment,
        };
        (mesh, receiver)
    }

    /// What `address` is; asks the control plane when this is the first call to it. Never guesses: plain text to what
    /// may be a meshed service would be a quiet way around mutual TLS.
    pub async fn resolve(&self, address: SocketAddr) -> Result<Destination, ResolveError> {
        if let Some(known) = self.lookup(address) {
            return Ok(known);
        }
        let mut changed = self.changed.subscribe();
        self.wanted
            .try_send(address)
            .map_err(|_| ResolveError::Busy)?;
        let answer = async {
            loop {
                if let Some(known) = self.lookup(address) {
                    return known;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(RESOLVE_TIMEOUT, answer)
            .await
            .map_err(|_| ResolveError::Unknown(address))
    }

    fn lookup(&self, address: SocketAddr) -> Option<Destination> {
        let known = self.known.load();
        let known = known.get(&address)?;
        known.last_used.store(self.millis(), Ordering::Relaxed);
        Some(known.destination.clone())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn known(&self) -> Arc<HashMap<SocketAddr, Arc<Known>>> {
        self.known.load_full()
    }

    /// Replaces what is known of some addresses, and wakes whoever waits for one.
    pub fn set_destinations(&self, changed: Vec<(SocketAddr, Destination)>) {
        if changed.is_empty() {
            return;
        }
        let mut known = HashMap::clone(&self.known.load());
        let now = self.millis();
        for (address, destination) in changed {
            known.insert(
                address,
                Arc::new(Known {
                    destination,
                    last_used: AtomicU64::new(now),
                }),
            );
        }
        self.known.store(Arc::new(known));
        self.changed.send_replace(());
    }

    /// Forgets addresses that nobody has used for `idle` and nobody uses now.
    pub fn forget_idle(&self, idle: Duration) -> Vec<SocketAddr> {
        let oldest = self
            .millis()
            .saturating_sub(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        let is_idle = |known: &Known| {
            let used = match &known.destination {
                Destination::Service(backend) => backend.is_used(),
                Destination::Outside => false,
            };
            !used && known.last_used.load(Ordering::Relaxed) < oldest
        };
        let mut known = HashMap::clone(&self.known.load());
        let before = known.len();
        let mut forgotten = Vec::new();
        known.retain(|address, known| {
            let keep = !is_idle(known);
            if !keep {
                forgotten.push(*address);
            }
            keep
        });
        if known.len() != before {
            self.known.store(Arc::new(known));
            let mut backends = self.backends();
            for address in &forgotten {
                backends.remove(&of_pod(*address));
            }
            self.set_backends(backends);
        }
        forgotten
    }

    pub fn backends(&self) -> HashMap<String, Arc<Backend>> {
        HashMap::clone(&self.environment.backends.load())
    }

    pub fn set_backends(&self, backends: HashMap<String, Arc<Backend>>) {
        self.environment.backends.store(Arc::new(backends));
    }

    pub fn workload(&self) -> Option<Arc<snapshot::Workload>> {
        self.workload.load_full()
    }

    pub fn set_workload(&self, workload: snapshot::Workload) {
        self.environment.inbound_log.set_format(workload.access_log);
        self.environment
            .outbound_log
            .set_format(workload.access_log);
        let mut ports = self.ports.lock().expect("no panic while locked");
        // A port whose policy changed is made anew with what was learnt about its app; requests in flight keep the old
        // one, and share with the new one who gets in.
        for (port, (inbound, made)) in ports.iter_mut() {
            let policy = policy_of(&workload, *port);
            if policy != inbound {
                let before = (policy.service == inbound.service).then_some(&**made);
                let standing = made.standing.clone();
                *made = Arc::new(InboundPort::new(policy, before, standing));
                *inbound = policy.clone();
            }
        }
        for (port, standing) in &*self.standing.lock().expect("no panic while locked") {
            standing.reconfigure(policy_of(&workload, *port));
        }
        self.workload.store(Some(Arc::new(workload)));
    }

    /// The app's ports that have been called, by number.
    pub fn inbound_ports(&self) -> Vec<(u16, Arc<InboundPort>)> {
        let ports = self.ports.lock().expect("no panic while locked");
        let mut ports: Vec<_> = ports
            .iter()
            .map(|(port, (_, made))| (*port, made.clone()))
            .collect();
        ports.sort_by_key(|(port, _)| *port);
        ports
    }

    /// Brings the metrics of inbound load up to date: they are kept where requests pass and only copied when somebody
    /// looks.
    pub fn publish_load(&self) {
        for (_, port) in self.inbound_ports() {
            port.admission.publish(&port.load);
        }
    }

    /// A few times a second, off the request path.
    pub fn tick(&self, now: Instant) {
        for backend in self.environment.backends.load().values() {
            backend.tick(now);
        }
        for (_, port) in self.inbound_ports() {
            port.tick(&self.environment.facts, now);
        }
    }

    /// How `port` takes calls; `None` while there is no policy, and then nobody gets in.
    pub fn inbound_port(&self, port: u16) -> Option<Arc<InboundPort>> {
        // Locked first, or a policy that has just been replaced would be put in force for good.
        let mut ports = self.ports.lock().expect("no panic while locked");
        let workload = self.workload.load();
        let workload = workload.as_ref()?;
        let is_named = |port: u16| workload.ports.iter().any(|named| named.port == port);
        let unnamed = || ports.keys().filter(|port| !is_named(**port)).count();
        let has_own = ports.contains_key(&port) || is_named(port) || unnamed() < UNNAMED_MAX;
        let port = if has_own { port } else { ALL_OTHERS };
        let policy = policy_of(workload, port);
        if let Some((_, known)) = ports.get(&port) {
            return Some(known.clone());
        }
        let standing = self.standing_of(port, policy);
        let made = Arc::new(InboundPort::new(policy, None, standing));
        ports.insert(port, (policy.clone(), made.clone()));
        Some(made)
    }

    fn standing_of(&self, port: u16, policy: &snapshot::Inbound) -> Standing {
        let mut known = self.standing.lock().expect("no panic while locked");
        let make = || {
            let standing = Standing::default();
            standing.reconfigure(policy);
            standing
        };
        known.entry(port).or_insert_with(make).clone()
    }
}

/// What the backend of a pod is called that is called by its own address.
pub fn of_pod(address: SocketAddr) -> String {
    format!("pod/{address}")
}

/// The label of ports that no service names.
const NO_SERVICE: &str = "none";

/// Only ports that a service names have a label of their own: a scan must not make series.
fn service_of(policy: &snapshot::Inbound) -> Arc<str> {
    (policy.service.as_ref())
        .map_or_else(|| NO_SERVICE.into(), |service| service.to_string().into())
}

fn policy_of(workload: &snapshot::Workload, port: u16) -> &snapshot::Inbound {
    let own = workload.ports.iter().find(|inbound| inbound.port == port);
    own.unwrap_or(&workload.default_port)
}

impl InboundPort {
    /// `before`: the same port under an earlier policy. What it has learnt stays, and what connections hold of it follows
    /// the new policy.
    fn new(policy: &snapshot::Inbound, before: Option<&Self>, standing: Standing) -> Self {
        let service = service_of(policy);
        let (admission, priorities, doomed) = match before {
            Some(before) => {
                before.admission.reconfigure(&policy.limits);
                before.priorities.reconfigure(&policy.priorities);
                before.doomed.reconfigure(policy.mode);
                let (admission, priorities) = (before.admission.clone(), before.priorities.clone());
                (admission, priorities, before.doomed.clone())
            }
            None => {
                let admission = Arc::new(admission::Shared::new(&policy.limits));
                let doomed = DoomedLayer::new(service.clone(), admission.clone(), policy.mode);
                (admission, PriorityLayer::new(&policy.priorities), doomed)
            }
        };
        admission.set_mode(policy.mode);
        Self {
            protocol: policy.protocol,
            doomed,
            admission,
            priorities,
            standing,
            metrics: Arc::new(RouteMetrics::new(Direction::Inbound, &service, "")),
            load: InboundMetrics::new(&service),
            service,
            stacks: Mutex::default(),
        }
    }

    fn tick(&self, facts: &Facts, now: Instant) {
        let Some(said) = self.admission.tick(now) else {
            return;
        };
        self.load.saturated(said.change == Change::Began);
        let service = Some(&*self.service).filter(|service| *service != NO_SERVICE);
        facts.saturation_changed(service, said);
    }

    /// Who may send bytes to it, or call it.
    pub fn authorization(&self) -> &Arc<authorize::Shared> {
        &self.standing.authorization
    }

    pub fn stack(&self, app: SocketAddr, environment: &Environment) -> Stack {
        let mut stacks = self.stacks.lock().expect("no panic while locked");
        let make = || {
            pipeline::inbound(pipeline::Inbound {
                service: self.service.clone(),
                metrics: self.metrics.clone(),
                log: environment.inbound_log.clone(),
                priorities: self.priorities.clone(),
                admission: self.admission.clone(),
                authorization: self.standing.authorization.clone(),
                rate_limits: self.standing.rate_limits.clone(),
                doomed: self.doomed.clone(),
                bequeath: BequeathLayer {
                    shared: environment.inherit.clone(),
                },
                app: App::new(app, environment.workers, environment.connector.clone()),
            })
        };
        if stacks.len() >= STACKS_MAX && !stacks.contains_key(&app) {
            return make();
        }
        stacks.entry(app).or_insert_with(make).clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
