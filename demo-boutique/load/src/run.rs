//! The run itself: one loop that starts requests when they are due and notes what became of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::grpc::GrpcClient;
use crate::http1::{HttpClient, Visit};
use crate::outcome::{Fault, Outcome};
use crate::pacer;
use crate::plan::{Plan, Work};
use crate::report::Report;
use crate::sample::Sample;
use crate::schedule::Arrival;
use crate::summary::{Summary, Totals};

const TICK: Duration = Duration::from_secs(1);

/// What happens while a run goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request ended. The names are of all journeys: see [`Sample::line`].
    Sample(&'a Sample, &'a [String]),
    /// Another second passed.
    Tick(&'a Tick),
}

#[derive(Clone, Debug)]
pub struct Tick {
    pub elapsed: Duration,
    pub in_flight: usize,
    pub totals: Totals,
    /// Of what ended since the last tick.
    pub latest: Summary,
}

/// Runs the plan to its end. A run lasts at most its duration and one timeout.
pub async fn run(plan: Plan, on_event: impl FnMut(Event<'_>)) -> Report {
    run_until(plan, on_event, std::future::pending()).await
}

/// The same, but `stop` ends it early: nothing more is sent, what is in flight may finish.
pub async fn run_until(
    plan: Plan,
    mut on_event: impl FnMut(Event<'_>),
    stop: impl Future<Output = ()>,
) -> Report {
    let mut stop = pin!(stop);
    let mut interrupted = false;
    let mut run = Run::new(&plan);
    let mut arrivals = pacer::start(plan.schedule(), run.start);
    let mut ticks = interval_at(run.start + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut more = true;
    while more || !run.in_flight.is_empty() {
        tokio::select! {
            arrival = arrivals.recv(), if more => match arrival {
                Some(arrival) => run.admit(arrival, &mut on_event),
                None => more = false,
            },
            Some(ended) = run.in_flight.join_next() => run.note(ended, &mut on_event),
            _ = ticks.tick() => run.tick(&mut on_event),
            () = &mut stop, if !interrupted => {
                interrupted = true;
                more = false;
                arrivals.close();
            }
        }
    }
    run.report(&plan, interrupted)
}

struct Run {
    start: Instant,
    client: Client,
    journeys: Vec<String>,
    timeout: Duration,
    in_flight_max: usize,
    in_flight: JoinSet<Sample>,
    samples: Vec<Sample>,
    totals: Totals,
    /// How many samples earlier ticks have told of.
    told: usize,
}

enum Client {
    Http(Arc<HttpClient>),
    Grpc(Arc<GrpcClient>),
}

impl Client {
    fn new(plan: &Plan) -> Self {
        let (target, headers) = (plan.target.clone(), plan.headers.clone());
        match &plan.work {
            Work::Http(journeys) => {
                Self::Http(Arc::new(HttpClient::new(target, journeys.clone(), headers)))
            }
            Work::Grpc(call) => {
                let timeout = plan.bounds.request_timeout();
                Self::Grpc(Arc::new(GrpcClient::new(
                    target,
                    call.clone(),
                    timeout,
                    headers,
                )))
            }
        }
    }

    /// What is asked is decided when it is sent, also if no answer ever comes.
    fn call(&self, arrival: Arrival) -> Call {
        match self {
            Self::Http(client) => Call::Http(client.clone(), Box::new(client.visit(arrival))),
            Self::Grpc(client) => Call::Grpc(client.clone(), arrival.journey),
        }
    }
}

enum Call {
    Http(Arc<HttpClient>, Box<Visit>),
    Grpc(Arc<GrpcClient>, u16),
}

impl Call {
    fn journey(&self) -> u16 {
        match self {
            Self::Http(_, visit) => visit.journey,
            Self::Grpc(_, journey) => *journey,
        }
    }

    async fn answer(self) -> Outcome {
        match self {
            Self::Http(client, visit) => client.call(*visit).await,
            Self::Grpc(client, _) => client.call().await,
        }
    }
}

impl Run {
    fn new(plan: &Plan) -> Self {
        Self {
            start: Instant::now(),
            client: Client::new(plan),
            journeys: plan.journeys(),
            timeout: plan.bounds.request_timeout(),
            in_flight_max: plan.bounds.in_flight(),
            in_flight: JoinSet::new(),
            samples: Vec::new(),
            totals: Totals::default(),
            told: 0,
        }
    }

    /// Starts a request, or drops it where there are too many: an open loop neither waits nor skips.
    fn admit(&mut self, arrival: Arrival, on_event: &mut impl FnMut(Event<'_>)) {
        // What ended but was not noted yet is not in flight.
        while self.in_flight.len() >= self.in_flight_max
            && let Some(ended) = self.in_flight.try_join_next()
        {
            self.note(ended, on_event);
        }
        if self.in_flight.len() >= self.in_flight_max {
            let now = self.start.elapsed();
            let dropped = Outcome::Fault(Fault::Dropped);
            let sample = Sample::new(arrival.journey, arrival.at, now, now, dropped);
            return self.note(Ok(sample), on_event);
        }
        let (call, start, limit) = (self.client.call(arrival), self.start, self.timeout);
        self.in_flight.spawn(async move {
            let sent = start.elapsed();
            let journey = call.journey();
            let outcome = timeout(limit, call.answer()).await;
            let outcome = outcome.unwrap_or(Outcome::Fault(Fault::Timeout));
            Sample::new(journey, arrival.at, sent, start.elapsed(), outcome)
        });
    }

    fn note(&mut self, ended: Result<Sample, JoinError>, on_event: &mut impl FnMut(Event<'_>)) {
        let sample = match ended {
            Ok(sample) => sample,
            // Requests are never cancelled; a panic in one is a bug here, and ends the run as one.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.totals.add(sample.class());
        on_event(Event::Sample(&sample, &self.journeys));
        self.samples.push(sample);
    }

    fn tick(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        let tick = Tick {
            elapsed: self.start.elapsed(),
            in_flight: self.in_flight.len(),
            totals: self.totals,
            latest: Summary::of(&self.samples[self.told..]),
        };
        self.told = self.samples.len();
        on_event(Event::Tick(&tick));
    }

    fn report(mut self, plan: &Plan, interrupted: bool) -> Report {
        self.samples.sort_by_key(Sample::intended);
        Report {
            plan: plan.describe(),
            journeys: self.journeys,
            samples: self.samples,
            elapsed: self.start.elapsed(),
            interrupted,
        }
    }
}
