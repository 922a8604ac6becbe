//! The knee limiter: how many requests the app can work on at once before more of them only wait.
//!
//! ```text
//!   throughput │      ____________   more at once brings nothing but waiting
//!              │    ╱ ▲
//!              │  ╱   └ the knee: the limit stays about here
//!              └─────────────────── in flight
//!
//!                    time in app ≤ 2 × baseline: + √limit
//!                    ┌────────┐
//!                    ▼        │         after 10, 20, 40 … windows          it paid: keep
//!   room for most ⇄ Steady ───┴──────▶ Probing (limit × 1.5) ───────────▶ else as before
//!                    │  ▲                  ▲
//!   time in app      │  │ it cost nothing  │ it cost throughput in proportion: the service has become
//!   > 2 × baseline   ▼  │                  │ slower, it has no queue: a new baseline, the limit as before
//!                   Cutting ─── − 25 % ────┘
//! ```
//!
//! The gradient limiters that are published (Netflix's Gradient2, Vegas, Envoy's adaptive concurrency) take any slow
//! answer for a queue, and shed half of the traffic of an app whose own dependency has become slow. What is ours is the
//! question that Protego (NSDI '23) asks of a limit: did cutting it cut the throughput? `e`, the elasticity of
//! throughput to the limit, tells a queue (0) from a service that is slower for everybody (1).
//!
//! A window ends after 250 ms and 100 completions, or a second and 10: with shorter ones, noise of heavy-tailed work
//! talks the upward probe into limits of hundreds. The numbers are those of resilience.md section 4.3.

mod window;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use window::Window;

/// A window ends when it has both the first pair or both the second.
const WINDOW: Duration = Duration::from_millis(250);
const WINDOW_COMPLETIONS: u32 = 100;
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// The baseline is a low quantile of what unsaturated windows showed over this long.
const BASELINE_SPAN: Duration = Duration::from_secs(60);
const BASELINE_QUANTILE: f64 = 0.25;
/// Time in the app that is taken for a queue, in baselines.
const TOLERANCE: f64 = 2.0;
/// Below this share of that the limit grows; in between it is right as it is.
const GROWTH: f64 = 0.8;
/// One cut takes this at most, and after this much in all it has to prove itself.
const CUT: f64 = 0.8;
const CUT_VERIFIED: f64 = 0.75;
/// Above this, throughput follows the limit.
const ELASTIC: f64 = 0.5;
/// A cut that leaves the time in the app above this share of what it was has met no queue.
const QUEUE_SHRANK: f64 = 0.85;
const PROBE: f64 = 1.5;
/// Saturated windows before the first probe; twice as many before each one that follows in vain.
const PROBE_AFTER: u32 = 10;
const PROBE_AFTER_MAX: u32 = 80;
/// Unsaturated, the limit comes down to twice what was in flight, by this a window.
const DECAY: f64 = 0.95;
const HEADROOM: f64 = 2.0;
/// And up to this much of it: what had no queue may come half as much again.
const HEADROOM_UP: f64 = 1.5;
/// A new baseline leaves the limit of a service that has become slower room to grow, by this much.
const BASELINE_ROOM: f64 = 1.05;
/// What one starts with, and what an idle service comes back to.
pub const START: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: u32,
    pub max: u32,
}

/// What somebody found who came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Room,
    /// Some, and it is kept for who matters more.
    KeptRoom,
    Limit,
}

/// How a request in the app ended, as far as the limit learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// How long the app took is a measure of its load.
    Answered,
    /// 503, 429, RESOURCE_EXHAUSTED: the app itself says that it has too much to do.
    Overloaded,
    /// It was an answer, but how long it took says nothing: an error comes early or late.
    Failed,
    /// Its caller went away before there was an answer, which would have taken longer still.
    GivenUp,
    /// It says nothing: it lasted as long as its caller wanted.
    Unmeasured,
}

#[derive(Debug)]
pub struct Knee {
    bounds: Bounds,
    /// It acts. One that only observes cannot see what cutting would do, so it asks whether the app keeps up.
    enforced: bool,
    limit: f64,
    baseline: Baseline,
    window: Window,
    /// What runs when the limit has just changed says nothing of the new one.
    settled: Instant,
    state: State,
    /// Saturated windows since the last probe, and how many there have to be before the next.
    saturated: u32,
    probe_after: u32,
    became_slower: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Steady,
    /// Since the limit was `before`; it has come down in one or more steps. `seen`: what it cost so far, where one window
    /// did not tell.
    Cutting {
        before: Point,
        seen: Option<Point>,
    },
    /// Up by half for a window. `climbing`: because the service has proven to be slower, so the next follows at once.
    Probing {
        before: Point,
        climbing: bool,
    },
}

/// What a window showed at a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    limit: f64,
    /// Completions a second.
    throughput: f64,
    /// Mean time in the app, in seconds.
    mean: f64,
    /// What it rests on.
    completed: f64,
}

impl Knee {
    pub fn new(bounds: Bounds, enforced: bool, now: Instant) -> Self {
        Self {
            bounds,
            enforced,
            limit: f64::from(START.clamp(bounds.min, bounds.max)),
            baseline: Baseline::default(),
            window: Window::new(now, 0),
            settled: now,
            state: State::Steady,
            saturated: 0,
            probe_after: PROBE_AFTER,
            became_slower: false,
        }
    }

    /// New bounds; what was learnt stays.
    pub fn reconfigure(&mut self, bounds: Bounds, enforced: bool) {
        self.bounds = bounds;
        self.limit = self.clamp(self.limit);
        if self.enforced != enforced {
            self.enforced = enforced;
            self.state = State::Steady;
        }
    }

    /// In flight at most.
    pub fn limit(&self) -> u32 {
        self.limit as u32 // clamped to bounds that are u32
    }

    /// Mean time in the app while it is not saturated.
    pub fn baseline(&self) -> Option<Duration> {
        self.baseline.value.map(Duration::from_secs_f64)
    }

    /// One more is in the app.
    pub fn on_start(&mut self, in_flight: u32) {
        self.window.in_flight_max = self.window.in_flight_max.max(in_flight);
    }

    /// Somebody comes.
    pub fn on_arrival(&mut self, met: Met) {
        self.window.arrived += 1;
        self.window.met_limit += u32::from(met != Met::Room);
        self.window.met_kept += u32::from(met == Met::KeptRoom);
    }

    /// Whether it was found since the last time that the app takes longer, and has no queue.
    pub fn take_became_slower(&mut self) -> bool {
        std::mem::take(&mut self.became_slower)
    }

    /// One has ended, `latency` after it began; `in_flight` are left.
    pub fn on_done(&mut self, latency: Duration, ended: Ended, in_flight: u32, now: Instant) {
        if now < self.settled {
            return;
        }
        // Who goes away early shows only that it was in a hurry.
        if ended != Ended::GivenUp || self.is_long(latency) {
            self.window.add(latency, ended);
        }
        let passed = now.saturating_duration_since(self.window.since);
        let enough = |span, count| passed >= span && self.window.completed >= count;
        if enough(WINDOW, WINDOW_COMPLETIONS) || enough(WINDOW_MAX, window::COMPLETIONS_MIN) {
            self.close(passed.as_secs_f64(), in_flight, now);
        }
    }

    fn is_long(&self, latency: Duration) -> bool {
        let baseline = self.baseline.value;
        baseline.is_some_and(|baseline| latency.as_secs_f64() > TOLERANCE * baseline)
    }

    fn close(&mut self, seconds: f64, in_flight: u32, now: Instant) {
        let window = std::mem::replace(&mut self.window, Window::new(now, in_flight));
        let overload = window.overload();
        let Some(mean) = window.mean() else {
            if let Some(cut) = overload {
                self.limit = self.clamp(self.limit * cut);
            }
            return; // nothing but failures and streams: no measure
        };
        let point = Point {
            limit: self.limit,
            throughput: f64::from(window.completed - window.given_up) / seconds,
            mean,
            completed: f64::from(window.completed),
        };
        if !self.enforced && window.kept_up(in_flight) && overload.is_none() {
            // What was in flight was no more than the app could do.
            if window.met_limit > 0 {
                let grown = self.limit + self.limit.sqrt();
                self.limit = self.clamp(grown.max(f64::from(window.in_flight_max)));
            }
            return self.unsaturated(&window, mean, now);
        }
        if window.is_kept_free() && overload.is_none() {
            self.kept_free(&window, point, now);
        } else if window.is_saturated() || overload.is_some() {
            self.saturated(point, overload, now);
        } else if window.met_limit == 0 {
            self.unsaturated(&window, mean, now);
        } else {
            self.busy(point);
        }
    }

    fn unsaturated(&mut self, window: &Window, mean: f64, now: Instant) {
        self.baseline.add(mean, now);
        self.state = State::Steady;
        self.saturated = 0;
        self.probe_after = PROBE_AFTER;
        let in_flight = f64::from(window.in_flight_max);
        let fitting = f64::from(START).max(HEADROOM * in_flight);
        self.limit = self.clamp(if fitting < self.limit {
            (self.limit * DECAY).max(fitting)
        } else {
            (self.limit + self.limit.sqrt())
                .min(HEADROOM_UP * in_flight)
                .max(self.limit)
        });
    }

    /// Most found places that are kept for others, so what the app could do with more is not known: it comes down to what is
    /// used, and further where that is a queue.
    fn kept_free(&mut self, window: &Window, point: Point, now: Instant) {
        let bound = TOLERANCE * self.baseline.known(point.mean);
        if point.mean > bound {
            return self.saturated(point, None, now);
        }
        self.state = State::Steady;
        let fitting = HEADROOM * f64::from(window.in_flight_max);
        self.limit = self.clamp((self.limit * DECAY).max(fitting).min(self.limit));
    }

    /// Full at times, as bursts make it. A cut would refuse what the next moment has room for.
    fn busy(&mut self, point: Point) {
        self.state = State::Steady;
        self.saturated = 0;
        if point.mean <= TOLERANCE * self.baseline.known(point.mean) {
            self.limit = self.clamp(self.limit + self.limit.sqrt());
        }
    }

    /// `overload`: what is to be left of the limit for that alone.
    fn saturated(&mut self, point: Point, overload: Option<f64>, now: Instant) {
        let bound = TOLERANCE * self.baseline.known(point.mean);
        self.saturated += 1;
        match self.state {
            State::Probing { before, climbing } => self.probed(before, point, climbing, now),
            State::Cutting { before, seen } if self.is_verdict_due(before) => {
                self.verdict(before, seen, point, overload, now);
            }
            State::Cutting { before, .. } => self.steer(before, bound, overload, point, now),
            State::Steady
                if self.enforced && self.saturated >= self.probe_after && overload.is_none() =>
            {
                self.probe(point, false, now);
            }
            State::Steady => self.steer(point, bound, overload, point, now),
        }
    }

    /// Whether the cuts since `before` took something from a queue or from the work itself.
    fn verdict(
        &mut self,
        before: Point,
        seen: Option<Point>,
        point: Point,
        overload: Option<f64>,
        now: Instant,
    ) {
        let first_look = seen.is_none();
        let point = seen.map_or(point, |seen| seen.and(point));
        let is_asked = self.enforced && overload.is_none();
        if is_asked && first_look && point.is_unclear(before) {
            let seen = Some(point);
            self.state = State::Cutting { before, seen };
        } else if is_asked && point.follows(before) && point.mean > QUEUE_SHRANK * before.mean {
            self.slower(before, point.mean, now);
        } else {
            let bound = TOLERANCE * self.baseline.known(point.mean);
            self.steer(point, bound, overload, point, now);
        }
    }

    /// Whether the limit has been cut so far that the throughput must show what it was worth.
    fn is_verdict_due(&self, before: Point) -> bool {
        let lowest = self.limit <= f64::from(self.bounds.min);
        self.limit <= CUT_VERIFIED * before.limit || (lowest && self.limit < 0.9 * before.limit)
    }

    /// Down where there is a queue in the app, up where there is none. `before`: what a cut will be compared with.
    fn steer(
        &mut self,
        before: Point,
        bound: f64,
        overload: Option<f64>,
        point: Point,
        now: Instant,
    ) {
        if overload.is_some() || point.mean > bound {
            let cut = overload.unwrap_or_else(|| (bound / point.mean).max(CUT));
            self.state = match overload {
                // What was done at such a limit is nothing to come back to.
                Some(_) => State::Cutting {
                    before: point,
                    seen: None,
                },
                // It cannot be cut, so there will be no verdict; a probe may tell.
                None if before.limit <= f64::from(self.bounds.min) => State::Steady,
                None => State::Cutting { before, seen: None },
            };
            self.set(self.limit * cut, point.mean, now);
        } else {
            self.state = State::Steady;
            if point.mean <= GROWTH * bound {
                self.limit = self.clamp(self.limit + self.limit.sqrt());
            }
        }
    }

    fn probe(&mut self, before: Point, climbing: bool, now: Instant) {
        self.saturated = 0;
        self.state = State::Probing { before, climbing };
        self.set(self.limit * PROBE, before.mean, now);
    }

    fn probed(&mut self, before: Point, point: Point, climbing: bool, now: Instant) {
        // By Little's law both say the same; measured apart, noise has to fool both.
        let paid = point.follows(before)
            && (point.mean / before.mean).ln()
                < (1.0 - ELASTIC) * (point.limit / before.limit).ln();
        if !paid {
            self.probe_after = (self.probe_after * 2).min(PROBE_AFTER_MAX);
            self.state = State::Steady;
            return self.set(before.limit, point.mean, now);
        }
        self.probe_after = PROBE_AFTER;
        let slow = point.mean > TOLERANCE * self.baseline.known(point.mean);
        if climbing || slow {
            self.slower_baseline(point.mean);
            self.probe(point, true, now);
        } else {
            self.state = State::Steady;
        }
    }

    /// There is no queue in the app, it only takes longer: as it was before the cuts, and up while that pays.
    fn slower(&mut self, before: Point, mean: f64, now: Instant) {
        self.slower_baseline(mean);
        self.limit = before.limit;
        self.probe(before, true, now);
    }

    /// What earlier windows showed is no measure any more.
    fn slower_baseline(&mut self, mean: f64) {
        self.became_slower = true;
        self.baseline
            .reset(mean / (GROWTH * TOLERANCE) * BASELINE_ROOM);
    }

    fn set(&mut self, limit: f64, mean: f64, now: Instant) {
        self.limit = self.clamp(limit);
        // Those in the app under the old limit have left it after about twice the mean.
        let settling = Duration::from_secs_f64((2.0 * mean).min(WINDOW.as_secs_f64()));
        self.settled = now + settling;
        self.window = Window::new(self.settled, self.window.in_flight_at_start);
    }

    fn clamp(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max))
    }
}

impl Point {
    /// Both windows as one, at the same limit.
    fn and(self, other: Self) -> Self {
        Self {
            throughput: f64::midpoint(self.throughput, other.throughput),
            mean: f64::midpoint(self.mean, other.mean),
            completed: self.completed + other.completed,
            ..self
        }
    }

    /// Chance alone could turn the verdict: a count of n varies by its root.
    fn is_unclear(self, before: Self) -> bool {
        let limit = (self.limit / before.limit).ln();
        let throughput = (self.throughput / before.throughput).ln();
        let error = (1.0 / self.completed + 1.0 / before.completed).sqrt();
        (throughput - ELASTIC * limit).abs() < error
    }

    /// Throughput went with the limit.
    fn follows(self, before: Self) -> bool {
        let limit = (self.limit / before.limit).ln();
        limit != 0.0 && (self.throughput / before.throughput).ln() / limit > ELASTIC
    }
}

/// Means of unsaturated windows.
#[derive(Debug, Default)]
struct Baseline {
    /// 60 s of windows of at least 250 ms: 240 at most.
    windows: VecDeque<(Instant, f64)>,
    /// `None`: before the first window.
    value: Option<f64>,
}

impl Baseline {
    fn add(&mut self, mean: f64, now: Instant) {
        let old = |&(at, _): &(Instant, f64)| now.saturating_duration_since(at) > BASELINE_SPAN;
        while self.windows.front().is_some_and(old) {
            self.windows.pop_front();
        }
        self.windows.push_back((now, mean));
        let mut means: Vec<f64> = self.windows.iter().map(|&(_, mean)| mean).collect();
        let rank = (means.len() as f64 * BASELINE_QUANTILE) as usize;
        let (_, quantile, _) = means.select_nth_unstable_by(rank, f64::total_cmp);
        self.value = Some(*quantile);
    }

    /// Before any unsaturated window, the lowest mean there was has to do.
    fn known(&mut self, mean: f64) -> f64 {
        if self.windows.is_empty() {
            let lowest = self.value.map_or(mean, |value| value.min(mean));
            self.value = Some(lowest);
        }
        self.value.unwrap_or(mean)
    }

    fn reset(&mut self, value: f64) {
        self.windows.clear();
        self.value = Some(value);
    }
}

#[cfg(test)]
mod tests;
