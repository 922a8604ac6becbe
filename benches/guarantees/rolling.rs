//! G12: every pod is replaced while requests go on, as a rolling update does it: a new one comes, is ready and is told of;
//! then an old one is withdrawn and its proxy gets SIGTERM, at the same moment, as in Kubernetes.
//!
//! Proxies stand at both ends: beside the caller and in each pod. Weir's speak mutual TLS and HTTP/2 to each other, Envoy's plain
//! HTTP/1.1. Envoy's default ends at SIGTERM; its best effort is asked to drain first.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::arguments::Effort;
use crate::driver::{Driven, Load, drive};
use crate::evidence::Evidence;
use crate::outage::{LEAD, Running};
use crate::process::{Process, pause};
use crate::replica::{Plan, Replica};
use crate::schedule::{Arrivals, Source, sends};
use crate::subject::{Ask, Kind, Lane, PORT, Ports, Proxies, World};
use crate::trouble::Trouble;
use crate::{envoy, mesh};

const PODS: usize = 3;
/// Until the caller has heard of a new pod.
const SETTLES: Duration = Duration::from_secs(1);
/// What an old pod may take to end, and its replacement to be ready.
const PATIENCE: Duration = Duration::from_secs(15);
/// Envoy's best effort: as long as its drain time, and a little.
const ENVOY_DRAINS: Duration = Duration::from_millis(3500);

#[derive(Clone, Copy, Debug)]
pub struct Rolling {
    pub ask: Ask,
    pub plan: Plan,
    pub rate: f64,
    /// Enough for all pods.
    pub lasts: Duration,
}

/// A pod: the app, its proxy, and where that is looked at.
struct Pod {
    which: usize,
    _app: Replica,
    proxy: Process,
    ports: [u16; 3],
}

struct Restarts {
    rolling: Rolling,
    lane: Lane,
    world: Rc<World>,
    pods: Vec<Pod>,
    /// Of the pods to come.
    fresh: Vec<[u16; 3]>,
    /// Of the proxies that have gone.
    cpu: Duration,
    seed: u64,
}

impl Rolling {
    pub fn prepare(
        &self,
        lane: Lane,
        world: &Rc<World>,
        ports: &mut Ports,
        effort: &Effort,
        seed: u64,
    ) -> Result<Running, Trouble> {
        let explain = || Trouble::during(lane.kind.name());
        let which: Vec<usize> = (0..PODS).collect();
        let apps = which
            .iter()
            .map(|which| self.app(lane, world, *which, seed));
        let apps: Vec<Replica> = apps.collect::<io::Result<_>>().map_err(explain())?;
        let first = ports.clone();
        let started = match lane.kind {
            Kind::Weir => lane.weir_mesh(world, ports, 1, &which, &self.ask),
            _ => lane.envoy_mesh(world, ports, &which, &self.ask),
        };
        let (caller, proxies) = started.map_err(explain())?;
        let mut taken = first;
        let pods = which
            .into_iter()
            .zip(apps)
            .zip(proxies)
            .map(|((which, app), proxy)| {
                Ok(Pod {
                    which,
                    _app: app,
                    proxy,
                    ports: taken.take()?,
                })
            });
        let restarts = Restarts {
            rolling: *self,
            lane,
            world: world.clone(),
            pods: pods.collect::<io::Result<_>>().map_err(explain())?,
            fresh: (0..PODS)
                .map(|_| ports.take())
                .collect::<io::Result<_>>()
                .map_err(explain())?,
            cpu: Duration::ZERO,
            seed,
        };
        let effort = effort.at_least(self.lasts, Duration::ZERO);
        Ok(Box::pin(run(restarts, effort, caller)))
    }

    fn app(&self, lane: Lane, world: &World, which: usize, seed: u64) -> io::Result<Replica> {
        let seed = seed * 1000 + which as u64;
        let address = lane.app_address(which);
        world
            .backends
            .replica((address, PORT).into(), self.plan, None, seed)
    }
}

async fn run(
    mut restarts: Restarts,
    effort: Effort,
    mut caller: Proxies,
) -> Result<Evidence, Trouble> {
    let (rolling, lane) = (restarts.rolling, restarts.lane);
    let source = Source {
        path: "/work",
        rate: rolling.rate,
        surge: 1.0,
        ramps: false,
        callers: [0, 1],
    };
    let phases = [effort.warm_up, effort.fault, effort.after];
    let load = Load {
        ways: caller.ways.clone(),
        method: rolling.ask.method(),
        sends: sends(Arrivals::Poisson, &[source], phases, restarts.seed),
    };
    let start = Instant::now() + LEAD;
    let fault = effort.warm_up..effort.warm_up + effort.fault;
    let all = async {
        sleep_until(start + fault.start).await;
        restarts.replace_all().await
    };
    let (driven, replaced) = tokio::join!(drive(load, start), all);
    replaced.map_err(Trouble::during("replacing pods"))?;
    caller
        .are_alive()
        .map_err(Trouble::during(lane.kind.name()))?;
    let Driven { samples, late } = driven;
    Ok(Evidence {
        samples,
        // Pods come and go: what each saw says nothing here.
        arrivals: Vec::new(),
        work: HashMap::new(),
        again: Vec::new(),
        fault,
        end: effort.total(),
        begun_too_late: None,
        capacity: rolling.plan.capacity() * PODS as f64,
        held: None,
        deadline: rolling.ask.deadline,
        late,
        cpu: caller.cpu() + restarts.cpu(),
    })
}

impl Restarts {
    /// Of all proxies of pods, but for what one took after it was told to end.
    fn cpu(&self) -> Duration {
        let running = self.pods.iter().map(|pod| pod.proxy.cpu());
        self.cpu + running.sum::<Duration>()
    }

    async fn replace_all(&mut self) -> io::Result<()> {
        for ports in std::mem::take(&mut self.fresh) {
            self.add(ports).await?;
            self.remove_oldest().await?;
        }
        Ok(())
    }

    async fn add(&mut self, ports: [u16; 3]) -> io::Result<()> {
        let which = self.pods.last().map_or(0, |pod| pod.which + 1);
        let app = self.rolling.app(self.lane, &self.world, which, self.seed)?;
        let ask = &self.rolling.ask;
        // Weir's sidecar gets its certificate because its pod is known, which is before it is ready.
        self.pods.push(match self.lane.kind {
            Kind::Weir => {
                let mut known: Vec<usize> = self.pods.iter().map(|pod| pod.which).collect();
                known.push(which);
                self.lane
                    .put(&self.world, &self.lane.starting(&known, which, ask))?;
                Pod {
                    which,
                    _app: app,
                    proxy: self.lane.weir_pod(&self.world, ports, which)?,
                    ports,
                }
            }
            _ => Pod {
                which,
                _app: app,
                proxy: self
                    .lane
                    .envoy_pod(&self.world, [ports[0], ports[1]], which, ask)?,
                ports,
            },
        });
        let kind = self.lane.kind;
        let is_ready = move || match kind {
            Kind::Weir => mesh::is_ready(ports[2]),
            _ => envoy::connects(ports[0]),
        };
        // On another thread: the load goes on.
        let ready = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + PATIENCE;
            while !is_ready() && Instant::now() < deadline {
                pause(Duration::from_millis(20));
            }
            is_ready()
        });
        if !ready.await.map_err(io::Error::other)? {
            return Err(io::Error::other("a new pod is not ready"));
        }
        self.announce()?;
        sleep(SETTLES).await;
        Ok(())
    }

    async fn remove_oldest(&mut self) -> io::Result<()> {
        let mut old = self.pods.remove(0);
        self.announce()?;
        if self.lane.kind == Kind::EnvoyBest {
            let admin = old.ports[1];
            let drained = tokio::task::spawn_blocking(move || envoy::drain(admin)).await;
            drained.map_err(io::Error::other)??;
            sleep(ENVOY_DRAINS).await;
        }
        self.cpu += old.proxy.cpu();
        old.proxy.terminate();
        let deadline = Instant::now() + PATIENCE;
        while old.proxy.has_ended().is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other("an old pod does not end"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Tells the caller which pods there are.
    fn announce(&self) -> io::Result<()> {
        let which: Vec<usize> = self.pods.iter().map(|pod| pod.which).collect();
        match self.lane.kind {
            Kind::Weir => {
                let yaml = self.lane.pods(1, &which, &self.rolling.ask);
                self.lane.put(&self.world, &yaml).map(drop)
            }
            _ => self.lane.tell(&self.world, &which).map(drop),
        }
    }
}
