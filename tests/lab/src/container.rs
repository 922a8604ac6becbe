//! The life of one container: start, watch, restart, end.
//!
//! ```text
//!   waiting ──▶ running ──▶ started ──▶ ready ⇄ not ready
//!      ▲           │  startup probe     readiness probe
//!      │ back-off  │
//!      └─── ended ◀┘  by itself, by a liveness probe, or with its pod
//! ```

use std::net::IpAddr;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::pod::Pod;
use crate::probe::{Backoff, Tally};
use crate::prober;
use crate::spec::{ContainerSpec, Probe};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    App,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub pid: Option<i32>,
    pub started: bool,
    pub ready: bool,
    pub restarts: u32,
    /// How it ended the last time, or why it does not run.
    pub message: String,
    /// It was started at least once.
    pub ran: bool,
    /// It ended and will not be started again.
    pub done: bool,
    pub succeeded: bool,
}

#[derive(Debug)]
pub struct Container {
    pub spec: ContainerSpec,
    pub role: Role,
    state: Mutex<State>,
    gone: watch::Sender<bool>,
}

/// The kubelet never gives a container less than this between SIGTERM and SIGKILL.
const GRACE_MIN: Duration = Duration::from_secs(2);
/// Until a probe first succeeds it is asked this often, so that a lab is up as soon as it can be.
/// These extra questions never count as failures.
const IMPATIENT_PERIOD: Duration = Duration::from_millis(200);

enum Event {
    Ended(std::io::Result<ExitStatus>),
    Unhealthy(String),
    PodEnds(Duration),
}

impl Container {
    pub fn new(spec: ContainerSpec, role: Role) -> Arc<Self> {
        Arc::new(Self {
            spec,
            role,
            state: Mutex::default(),
            gone: watch::Sender::new(false),
        })
    }

    pub fn state(&self) -> State {
        self.with_state(|state| state.clone())
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it was ever started.
    pub fn ran(&self) -> bool {
        self.state().ran
    }

    /// It will not be run any more: the pod ends before its time came.
    pub fn skip(&self) {
        self.with_state(|state| state.done = true);
        self.gone.send_replace(true);
    }

    /// Resolves when the container has ended for good.
    pub async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Signals every process of the container. False when none runs.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.state().pid.and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process_group(pid, signal).is_ok())
    }

    /// Runs the container until it is done: once for an init container, again and again for the
    /// others as long as the pod lives.
    pub async fn run(&self, pod: &Arc<Pod>) {
        let mut backoff = Backoff::default();
        while pod.ending().is_none() {
            let begun = Instant::now();
            match pod.launch(self) {
                Ok(child) => {
                    let how = self.attend(pod, child).await;
                    if self.is_done_after(pod, &how) {
                        break;
                    }
                    if pod.ending().is_none() {
                        pod.say(&format!("{} {how}; restarting", self.spec.name));
                    }
                }
                Err(why) => {
                    if self.state().message != why {
                        pod.say(&format!("{} cannot start: {why}", self.spec.name));
                    }
                    self.with_state(|state| state.message = why);
                }
            }
            pod.changed();
            tokio::select! {
                () = sleep(backoff.after(begun.elapsed())) => {}
                _ = pod.ends() => break,
            }
            self.with_state(|state| state.restarts += 1);
        }
        self.with_state(|state| state.done = true);
        self.gone.send_replace(true);
        pod.changed();
    }

    fn is_done_after(&self, pod: &Pod, how: &Ending) -> bool {
        let succeeded = matches!(how, Ending::Exited(status) if status.success());
        let done = match (self.role, pod.spec.restart_policy.as_deref()) {
            (Role::Sidecar, _) => pod.are_apps_done(),
            (Role::Init, Some("Never")) => true,
            (Role::Init, _) => succeeded,
            (Role::App, Some("Never")) => true,
            (Role::App, Some("OnFailure")) => succeeded,
            (Role::App, _) => false,
        };
        self.with_state(|state| state.succeeded = succeeded);
        done
    }

    /// From the first instruction to the last.
    async fn attend(&self, pod: &Arc<Pod>, mut child: Child) -> Ending {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        self.with_state(|state| {
            state.pid = pid;
            state.ran = true;
            state.started = false;
            state.ready = false;
            state.message.clear();
        });
        pod.changed();
        let event = tokio::select! {
            status = child.wait() => Event::Ended(status),
            why = self.health(pod) => Event::Unhealthy(why),
            grace = pod.ends() => Event::PodEnds(grace),
            // A job that is done is not kept by its sidecars.
            () = pod.apps_gone(), if self.role == Role::Sidecar => {
                Event::PodEnds(Duration::from_secs(pod.spec.grace_seconds()))
            }
        };
        let ending = match event {
            Event::Ended(status) => Ending::of(status),
            Event::Unhealthy(why) => {
                pod.say(&format!("{}: {why}; stopping it", self.spec.name));
                let deadline = Instant::now() + Duration::from_secs(pod.spec.grace_seconds());
                self.pre_stop(pod, deadline).await;
                self.stop(&mut child, deadline).await
            }
            Event::PodEnds(grace) => {
                let deadline = Instant::now() + grace;
                if grace.is_zero() {
                    self.signal(Signal::KILL);
                    Ending::of(child.wait().await)
                } else {
                    self.pre_stop(pod, deadline).await;
                    let _ = timeout_at(deadline, pod.turn_of(self)).await;
                    self.stop(&mut child, deadline).await
                }
            }
        };
        // A container ends with its first process.
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.with_state(|state| {
            state.pid = None;
            state.started = false;
            state.ready = false;
            state.message = ending.to_string();
        });
        pod.log_of(self, &ending.to_string());
        ending
    }

    /// SIGTERM, patience, SIGKILL. A deadline that has passed already still leaves the least grace.
    async fn stop(&self, child: &mut Child, deadline: Instant) -> Ending {
        let Some(pid) = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        else {
            return Ending::of(child.wait().await);
        };
        let _ = kill_process(pid, Signal::TERM);
        let patience = deadline.max(Instant::now() + GRACE_MIN);
        if let Ok(status) = timeout_at(patience, child.wait()).await {
            return Ending::of(status);
        }
        let _ = kill_process_group(pid, Signal::KILL);
        Ending::of(child.wait().await)
    }

    async fn pre_stop(&self, pod: &Arc<Pod>, deadline: Instant) {
        let Some(hook) = &self.spec.lifecycle.pre_stop else {
            return;
        };
        let run = async {
            if let Some(exec) = &hook.exec {
                pod.exec(self, &exec.command).await?;
            }
            if let Some(http) = &hook.http_get {
                let port = prober::port(&http.port, &self.spec)?;
                prober::http(http, (pod.address(), port)).await?;
            }
            if let Some(pause) = &hook.sleep {
                sleep(Duration::from_secs(pause.seconds)).await;
            }
            Ok::<(), String>(())
        };
        let failure = match timeout_at(deadline, run).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "no end within the grace period".to_owned(),
        };
        pod.say(&format!("{}: preStop: {failure}", self.spec.name));
    }

    /// Resolves with the reason when the container must be stopped for its health.
    async fn health(&self, pod: &Arc<Pod>) -> String {
        if self.role == Role::Init {
            return std::future::pending().await;
        }
        if let Some(probe) = &self.spec.startup_probe {
            let mut last = String::new();
            let started = |ok: bool, why: &str| {
                last = why.to_owned();
                Some(ok)
            };
            if !self.watch(pod, probe, started).await {
                return format!("startup probe failed: {last}");
            }
        }
        self.with_state(|state| state.started = true);
        if self.spec.readiness_probe.is_none() {
            self.with_state(|state| state.ready = true);
        }
        pod.changed();
        let readiness = async {
            let Some(probe) = &self.spec.readiness_probe else {
                return std::future::pending().await;
            };
            self.watch(pod, probe, |ok, why| {
                self.with_state(|state| {
                    state.ready = ok;
                    state.message = why.to_owned();
                });
                pod.changed();
                None
            })
            .await
        };
        let liveness = async {
            let Some(probe) = &self.spec.liveness_probe else {
                return std::future::pending().await;
            };
            let mut last = String::new();
            self.watch(pod, probe, |ok, why| {
                last = why.to_owned();
                (!ok).then_some(false)
            })
            .await;
            format!("liveness probe failed: {last}")
        };
        tokio::select! {
            _ = readiness => unreachable!("readiness is watched for ever"),
            why = liveness => why,
        }
    }

    /// Asks a probe again and again, tells `verdict` each time the verdict changes, and ends
    /// when that returns something.
    async fn watch(
        &self,
        pod: &Arc<Pod>,
        probe: &Probe,
        mut verdict: impl FnMut(bool, &str) -> Option<bool>,
    ) -> bool {
        sleep(Duration::from_secs(probe.initial_delay_seconds)).await;
        let period = Duration::from_secs(probe.period_seconds.max(1));
        let mut tally = Tally::new(probe);
        let mut succeeded = false;
        let mut due = Instant::now();
        loop {
            let asked = Instant::now();
            let result = self.ask(pod, probe).await;
            let counts = asked >= due;
            if counts {
                due = asked + period;
            }
            succeeded |= result.is_ok();
            if (counts || result.is_ok())
                && let Some(news) = tally.record(result.is_ok())
                && let Some(end) = verdict(news, result.as_ref().err().map_or("", |why| why))
            {
                return end;
            }
            if let Err(why) = &result
                && !succeeded
            {
                self.with_state(|state| state.message.clone_from(why));
            }
            let pause = if succeeded {
                period
            } else {
                IMPATIENT_PERIOD.min(period)
            };
            tokio::time::sleep_until(asked + pause).await;
        }
    }

    async fn ask(&self, pod: &Arc<Pod>, probe: &Probe) -> Result<(), String> {
        let timeout = Duration::from_secs(probe.timeout_seconds.max(1));
        let address: IpAddr = pod.address();
        let check = async {
            if let Some(http) = &probe.http_get {
                let port = prober::port(&http.port, &self.spec)?;
                return prober::http(http, (address, port)).await;
            }
            if let Some(tcp) = &probe.tcp_socket {
                let port = prober::port(&tcp.port, &self.spec)?;
                return prober::tcp((address, port)).await;
            }
            if let Some(grpc) = &probe.grpc {
                return prober::grpc(grpc, address).await;
            }
            match &probe.exec {
                Some(exec) => pod.exec(self, &exec.command).await,
                None => Err("a probe that asks nothing".to_owned()),
            }
        };
        prober::within(timeout, check).await
    }
}

/// How a container ended.
#[derive(Debug)]
enum Ending {
    Exited(ExitStatus),
    Lost(std::io::Error),
}

impl Ending {
    fn of(status: std::io::Result<ExitStatus>) -> Self {
        match status {
            Ok(status) => Self::Exited(status),
            Err(error) => Self::Lost(error),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::os::unix::process::ExitStatusExt;
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "ended with exit code {code}"),
                (None, signal) => write!(f, "ended by signal {}", signal.unwrap_or_default()),
            },
            Self::Lost(error) => write!(f, "was lost: {error}"),
        }
    }
}
