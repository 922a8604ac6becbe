//! One measurement: when the next request goes out, what has come back, how long it took.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::engine::{Engine, Trouble};
use crate::shape::{Shape, Wire};

/// A timer wakes late; the last bit is waited for with open eyes.
const SPIN: Duration = Duration::from_micros(80);
/// How long what was asked in time may take to be answered after the end.
const PATIENCE: Duration = Duration::from_secs(2);
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Requests at once on a connection of HTTP/2; the others take one.
const STREAMS_MAX: usize = 100;
/// A proxy that closes every connection is not measured for ever.
const FAILURES_MAX: u64 = 10_000;

#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many at once on each connection, always.
    Closed { at_once: usize },
    /// So many a second, at moments that are fixed in advance.
    Open { per_second: f64 },
    /// This many in all, one after the other.
    Count { requests: u64 },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub target: SocketAddr,
    pub connections: usize,
    pub pace: Pace,
    pub warm_up: Duration,
    pub time: Duration,
    /// Of the moments at which requests are sent: every subject gets the same.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Observed {
    pub completed: u64,
    pub failed: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    /// CPU of the proxies during `elapsed`.
    pub cpu: Duration,
    pub latency: Histogram<u64>,
    pub fault: Option<&'static str>,
}

/// Puts load on `plan.target` and tells what came of it. `cpu` reads the clock of the proxies.
pub fn run(
    engine: &mut Engine,
    plan: &Plan,
    cpu: &dyn Fn() -> Duration,
) -> Result<Observed, Trouble> {
    let clients = engine.begin(plan.shape, plan.target, plan.connections)?;
    let mut run = Run::new(plan, clients);
    let result = run.drive(engine, cpu);
    for client in run.clients {
        engine.vacate(client);
    }
    result.map(|()| run.observed)
}

/// One measurement while it runs.
struct Run<'a> {
    plan: &'a Plan,
    clients: Vec<usize>,
    observed: Observed,
    random: fastrand::Rng,
    /// Requests that are due and have no free connection.
    waiting: VecDeque<Instant>,
    next_client: usize,
    left: u64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, clients: Vec<usize>) -> Self {
        let latency = Histogram::new_with_bounds(100, LATENCY_MAX_NS, 3).expect("constants");
        Self {
            plan,
            clients,
            observed: Observed {
                completed: 0,
                failed: 0,
                bytes: 0,
                elapsed: Duration::ZERO,
                cpu: Duration::ZERO,
                latency,
                fault: None,
            },
            random: fastrand::Rng::with_seed(plan.seed),
            waiting: VecDeque::new(),
            next_client: 0,
            left: match plan.pace {
                Pace::Count { requests } => requests,
                _ => u64::MAX,
            },
        }
    }

    fn drive(&mut self, engine: &mut Engine, cpu: &dyn Fn() -> Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        let end_of_warm_up = start + self.plan.warm_up;
        self.begin(engine);
        let mut next = start + self.interval();
        self.until(engine, end_of_warm_up, end_of_warm_up, &mut next)?;
        let begin = Instant::now();
        let (cpu_before, sunk_before) = (cpu(), engine.sunk);
        let end = begin + self.plan.time;
        self.observed.completed = 0;
        self.observed.latency.reset();
        self.until(engine, end, begin, &mut next)?;
        self.observed.elapsed = begin.elapsed();
        self.observed.cpu = cpu().saturating_sub(cpu_before);
        self.observed.bytes = engine.sunk - sunk_before;
        if matches!(self.plan.pace, Pace::Open { .. }) {
            self.finish(engine, begin)?;
        }
        Ok(())
    }

    fn begin(&mut self, engine: &mut Engine) {
        let at_once = match self.plan.pace {
            Pace::Closed { at_once } => at_once,
            Pace::Open { .. } => 0,
            Pace::Count { .. } => 1,
        };
        for client in self.clients.clone() {
            for _ in 0..at_once {
                self.left -= 1;
                engine.ask(client, Instant::now());
            }
        }
    }

    /// Time to the next request of an open loop: exponential, as from many callers who do not know of each other.
    fn interval(&mut self) -> Duration {
        match self.plan.pace {
            Pace::Open { per_second } => {
                Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / per_second)
            }
            _ => Duration::from_secs(3600),
        }
    }

    fn until(
        &mut self,
        engine: &mut Engine,
        end: Instant,
        counted_from: Instant,
        next: &mut Instant,
    ) -> Result<(), Trouble> {
        loop {
            let now = Instant::now();
            if now >= end || self.is_over(engine) {
                return Ok(());
            }
            while *next <= now {
                self.waiting.push_back(*next);
                *next += self.interval();
            }
            self.send_waiting(engine);
            let pause = end.min(*next).saturating_duration_since(Instant::now());
            engine.turn(pause.saturating_sub(SPIN))?;
            self.collect(engine, counted_from)?;
        }
    }

    /// All of a counted run have been sent and answered.
    fn is_over(&self, engine: &Engine) -> bool {
        self.left == 0
            && self
                .clients
                .iter()
                .all(|client| engine.outstanding(*client) == 0)
    }

    fn send_waiting(&mut self, engine: &mut Engine) {
        // HTTP/2 takes many at once; the others one a connection.
        let room = if self.plan.shape.wire() == Wire::Http2 {
            STREAMS_MAX
        } else {
            1
        };
        while let Some(intended) = self.waiting.front().copied() {
            let count = self.clients.len();
            let free = (0..count)
                .map(|step| (self.next_client + step) % count)
                .find(|client| engine.outstanding(self.clients[*client]) < room);
            let Some(free) = free else {
                return;
            };
            self.waiting.pop_front();
            self.next_client = free + 1;
            engine.ask(self.clients[free], intended);
        }
    }

    fn collect(&mut self, engine: &mut Engine, counted_from: Instant) -> Result<(), Trouble> {
        let mut done = std::mem::take(&mut engine.done);
        let now = Instant::now();
        for (place, done) in done.drain(..) {
            if done.fine {
                self.observed.completed += 1;
                if done.intended >= counted_from {
                    let nanoseconds = now.saturating_duration_since(done.intended).as_nanos();
                    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
                    self.observed.latency.saturating_record(nanoseconds);
                }
            } else {
                self.observed.failed += 1;
                self.observed.fault.get_or_insert("a wrong answer");
            }
            self.again(engine, place)?;
        }
        engine.done = done;
        while let Some((place, outstanding, fault)) = engine.lost.pop() {
            self.observed.failed += outstanding.max(1) as u64;
            self.observed.fault.get_or_insert(fault.0);
            self.replace(engine, place)?;
        }
        Ok(())
    }

    /// A closed loop goes on with the next.
    fn again(&mut self, engine: &mut Engine, place: usize) -> Result<(), Trouble> {
        if matches!(self.plan.pace, Pace::Open { .. }) || self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        if self.plan.shape == Shape::TcpConnect {
            engine.vacate(place);
            return self.replace(engine, place);
        }
        engine.ask(place, Instant::now());
        Ok(())
    }

    fn replace(&mut self, engine: &mut Engine, place: usize) -> Result<(), Trouble> {
        if self.observed.failed > FAILURES_MAX {
            let fault = self.observed.fault.unwrap_or_default();
            return Err(Trouble::Failed(format!(
                "too many failures; the first: {fault}"
            )));
        }
        let Some(client) = self.clients.iter_mut().find(|client| **client == place) else {
            return Ok(());
        };
        let target = self.plan.target;
        let opened = engine.open(self.plan.shape, target);
        *client = opened.map_err(|error| Trouble::Io(format!("connecting to {target}"), error))?;
        if let Pace::Closed { at_once } = self.plan.pace {
            let client = *client;
            for _ in 0..at_once {
                engine.ask(client, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits for the answers to what was sent in time.
    fn finish(&mut self, engine: &mut Engine, counted_from: Instant) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.send_waiting(engine);
            if self.waiting.is_empty()
                && self
                    .clients
                    .iter()
                    .all(|client| engine.outstanding(*client) == 0)
            {
                return Ok(());
            }
            engine.turn(Duration::from_millis(1))?;
            self.collect(engine, counted_from)?;
        }
        let unanswered = self.waiting.len()
            + self
                .clients
                .iter()
                .map(|client| engine.outstanding(*client))
                .sum::<usize>();
        self.observed.failed += unanswered as u64;
        self.observed.fault.get_or_insert("no answer in time");
        Ok(())
    }
}
