//! Hedging: a call that takes longer than nearly all others is made a second time elsewhere, and the first answer counts.
//!
//! ```text
//!   call ─▶ first try ───────────────────────────────▶ answer? that one, and the other is cancelled
//!             └─ nothing by the delay ─▶ is it calm? is it paid for? ─▶ second try, on another endpoint
//! ```
//!
//! "The Tail at Scale" (Dean and Barroso, CACM 2013). The delay is learnt: a percentile of the route's own answers over
//! the last 10 to 20 seconds, and no earlier than what the extra load allows. Hedging at p95 with 2 % of extra load
//! would spend it on whoever asks first, and leave three slow calls of five alone (Finagle's BackupRequest derives its
//! delay from the extra load for the same reason). So it is p98 as long as hedges are saved up, and up to p99 as they
//! run out: when calls begin to hang, what is left goes to them and not to those that are a little slow as ever.
//!
//! A hedge is the one retry that hurts when it is needed least: it adds load because answers are slow. So it is
//! paid for twice, by a share of the route's requests and by a token of the service's retry budget, and not made at
//! all while anything says that the service is short of capacity.
//!
//! A call that is refused one is not given up: it is asked about again when it has taken twice as long.
//!
//! No clock, no timer, no lock: the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::snapshot::Hedging as Config;

use super::budget::{ATTEMPT, Budget};
use super::latency::Latency;

/// One of two histograms; together they hold the last 10 to 20 seconds.
const SPAN: Duration = Duration::from_secs(10);
/// Percentiles of fewer answers are noise.
const SAMPLES_MIN: u64 = 100;
/// Working a percentile out takes a look at all buckets.
const REFRESH: Duration = Duration::from_millis(100);
const DELAY_MIN: Duration = Duration::from_millis(1);
/// Hedges that may be saved up, in thousandths.
const CREDIT_MAX: u32 = 10_000;
const HEDGE: u32 = 1_000;
/// Of the extra load, what slow calls may need while nothing is saved up; all of it when `CREDIT_MAX` is.
const NEEDED_MIN: f64 = 0.5;
/// A percent of a hedge, in thousandths.
const PERCENT: u32 = 10;
/// With more of the endpoints out than this, the others have enough to do.
const GATED_MAX: f64 = 0.3;
/// Endpoints that say they are busier than this need no more of the same.
const LOAD_MAX: f64 = 0.8;

#[derive(Debug)]
pub struct Hedge {
    config: Config,
    latency: Latency,
    /// Earned by requests, spent by hedges; thousandths.
    credit: u32,
    delay: Option<Duration>,
    delay_as_of: Option<Instant>,
}

/// What is known of the service when a call has turned out to be slow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// An overload answer came within the throttle's window.
    pub overloaded: bool,
    /// 0.0 to 1.0 of the endpoints do not take calls.
    pub gated: f64,
    /// What the endpoints say of themselves; 1.0 is all they can do.
    pub load: f64,
    /// There is an endpoint that takes calls, besides the one that is slow.
    pub elsewhere: bool,
}

/// Why there is no second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    Overloaded,
    Gated,
    Busy,
    NowhereElse,
    /// The share of the requests that may be hedged is used up.
    Extra,
    /// Of the service's retries.
    Budget,
}

impl Withheld {
    pub const ALL: [Self; 6] = [
        Self::Overloaded,
        Self::Gated,
        Self::Busy,
        Self::NowhereElse,
        Self::Extra,
        Self::Budget,
    ];

    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Gated => "gated",
            Self::Busy => "busy",
            Self::NowhereElse => "nowhere-else",
            Self::Extra => "extra",
            Self::Budget => "budget",
        }
    }
}

impl Hedge {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            latency: Latency::over(SPAN, now),
            credit: 0,
            delay: None,
            delay_as_of: None,
        }
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        self.delay_as_of = None;
    }

    /// A call that may be hedged begins. After how long it counts as slow; `None`: nobody knows yet.
    pub fn begun(&mut self, now: Instant) -> Option<Duration> {
        let earned = self.config.max_extra.get() * PERCENT;
        self.credit = (self.credit + earned).min(CREDIT_MAX);
        let is_fresh = |at| now.saturating_duration_since(at) < REFRESH;
        // That nobody knows is not remembered: the next answer may be the one that was missing.
        if self.delay.is_none() || !self.delay_as_of.is_some_and(is_fresh) {
            self.delay_as_of = Some(now);
            self.delay = self.work_out(now);
        }
        self.delay
    }

    fn work_out(&mut self, now: Instant) -> Option<Duration> {
        let Config {
            after_percentile,
            max_extra,
        } = self.config;
        if self.latency.samples() < SAMPLES_MIN {
            return None;
        }
        let saved = f64::from(self.credit) / f64::from(CREDIT_MAX);
        let needed = NEEDED_MIN + (1.0 - NEEDED_MIN) * saved;
        let paid = 100.0 - needed * f64::from(max_extra.get());
        let percentile = f64::from(after_percentile.get()).max(paid);
        let delay = self.latency.quantile(percentile / 100.0, now)?;
        // Looking may have forgotten what is too old.
        (self.latency.samples() >= SAMPLES_MIN).then_some(delay.max(DELAY_MIN))
    }

    /// A call was answered so long after it began, by whichever of its tries. That its slow try was cut short by a
    /// faster one changes no percentile below the delay: it was slower than that, and so is what is recorded.
    pub fn answered(&mut self, elapsed: Duration, now: Instant) {
        self.latency.record(elapsed, now);
    }

    /// Whether a second try may be made now. The budget is charged last, and only for a try that will be made.
    pub fn admit(
        &mut self,
        weather: Weather,
        budget: &mut Budget,
        now: Instant,
    ) -> Result<(), Withheld> {
        if weather.overloaded {
            return Err(Withheld::Overloaded);
        }
        if weather.gated > GATED_MAX {
            return Err(Withheld::Gated);
        }
        if weather.load > LOAD_MAX {
            return Err(Withheld::Busy);
        }
        if !weather.elsewhere {
            return Err(Withheld::NowhereElse);
        }
        let left = self.credit.checked_sub(HEDGE).ok_or(Withheld::Extra)?;
        if !budget.withdraw(ATTEMPT, now) {
            return Err(Withheld::Budget);
        }
        self.credit = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_config::snapshot;
    use weir_config::units::Count;

    use super::*;

    const CALM: Weather = Weather {
        overloaded: false,
        gated: 0.3,
        load: 0.8,
        elsewhere: true,
    };

    fn config(after_percentile: u32, max_extra: u32) -> Config {
        Config {
            after_percentile: Count::of(after_percentile),
            max_extra: Count::of(max_extra),
        }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn budget(now: Instant) -> Budget {
        Budget::new(snapshot::Budget::default(), now)
    }

    /// After a hundred answers that took 1 to 100 ms.
    fn learnt(config: Config) -> (Hedge, Instant) {
        let now = Instant::now();
        let mut hedge = Hedge::new(config, now);
        for took in 1..=100 {
            assert_eq!(hedge.begun(now), None, "{took} answers are not enough");
            hedge.answered(millis(took), now);
        }
        (hedge, now + REFRESH)
    }

    #[test]
    fn the_delay_is_the_percentile_that_is_asked_for_or_that_can_be_paid() {
        for (config, with_little, with_savings) in [
            (config(99, 2), 99, 99),
            (config(95, 5), 97, 95),
            (config(95, 2), 99, 98),
            (config(50, 5), 97, 95),
        ] {
            let (mut hedge, now) = learnt(config);
            let mut is_delay = |least, at| {
                let delay = hedge.begun(at).expect("a hundred answers");
                let longest = millis(least).mul_f64(1.126);
                assert!(millis(least) <= delay && delay <= longest, "{delay:?}");
                hedge.credit = CREDIT_MAX;
            };
            is_delay(with_little, now);
            is_delay(with_savings, now + REFRESH);
        }
    }

    /// Planted: that nobody knows is remembered like a delay, and calls of the next 100 ms are not hedged.
    #[test]
    fn the_first_call_after_enough_answers_can_be_hedged() {
        let (mut hedge, now) = learnt(config(99, 2));
        assert!(hedge.begun(now - REFRESH).is_some());
    }

    #[test]
    fn it_is_never_below_a_millisecond() {
        let now = Instant::now();
        let mut hedge = Hedge::new(config(95, 2), now);
        for _ in 0..100 {
            hedge.answered(Duration::from_micros(80), now);
        }
        assert_eq!(hedge.begun(now), Some(DELAY_MIN));
    }

    #[test]
    fn what_is_older_than_twenty_seconds_is_forgotten() {
        let (mut hedge, now) = learnt(config(95, 2));
        assert!(hedge.begun(now + SPAN).is_some());
        assert_eq!(hedge.begun(now + 2 * SPAN), None);
    }

    /// Planted: one of these conditions left out.
    #[test]
    fn no_hedge_while_anything_says_that_capacity_is_short() {
        for (weather, withheld) in [
            (
                Weather {
                    overloaded: true,
                    ..CALM
                },
                Withheld::Overloaded,
            ),
            (
                Weather {
                    gated: 0.31,
                    ..CALM
                },
                Withheld::Gated,
            ),
            (Weather { load: 0.81, ..CALM }, Withheld::Busy),
            (
                Weather {
                    elsewhere: false,
                    ..CALM
                },
                Withheld::NowhereElse,
            ),
        ] {
            let (mut hedge, now) = learnt(config(95, 2));
            let mut budget = budget(now);
            let before = (budget.tokens(), hedge.credit);
            assert_eq!(hedge.admit(weather, &mut budget, now), Err(withheld));
            assert_eq!(
                (budget.tokens(), hedge.credit),
                before,
                "and nothing is charged"
            );
            assert_eq!(hedge.admit(CALM, &mut budget, now), Ok(()));
        }
    }

    #[test]
    fn each_is_paid_for_by_its_route_and_by_its_service() {
        let (mut hedge, now) = learnt(config(95, 2));
        let mut budget = budget(now);
        let mut admit = || hedge.admit(CALM, &mut budget, now);
        assert_eq!([admit(), admit()], [Ok(()); 2], "two in a hundred");
        assert_eq!(admit(), Err(Withheld::Extra));
        for _ in 0..8 {
            assert!(budget.withdraw(ATTEMPT, now));
        }
        for _ in 0..50 {
            hedge.begun(now);
        }
        let credit = hedge.credit;
        let refused = hedge.admit(CALM, &mut budget, now);
        assert_eq!(refused, Err(Withheld::Budget), "retries have used it up");
        assert_eq!(hedge.credit, credit);
    }

    /// Calls that are a little slow as ever need what hedges there are; then one in a hundred hangs, and for ten seconds
    /// the percentiles do not know it. Planted: the delay does not heed what is left.
    #[test]
    fn when_calls_begin_to_hang_what_is_left_goes_to_them() {
        let mut now = Instant::now();
        let (mut hedge, mut budget) = (Hedge::new(config(95, 2), now), budget(now));
        let mut random = fastrand::Rng::with_seed(7);
        let (mut hanging, mut alone) = (0, 0);
        for call in 0..40_000 {
            now += millis(1);
            let delay = hedge.begun(now);
            let hangs = call >= 30_000 && random.u8(..100) == 0;
            let took = match hangs {
                true => millis(500),
                false => millis(10).mul_f64(-random.f64().max(1e-9).ln()),
            };
            let slow = delay.filter(|delay| took > *delay);
            let hedged = slow.filter(|_| hedge.admit(CALM, &mut budget, now).is_ok());
            hedge.answered(
                hedged.map_or(took, |delay| took.min(delay + millis(10))),
                now,
            );
            budget.deposit(now);
            hanging += u32::from(hangs);
            alone += u32::from(hangs && hedged.is_none());
        }
        println!("{alone} of {hanging} were not hedged");
        assert!(
            hanging > 80 && alone * 10 <= hanging,
            "{alone} of {hanging}"
        );
    }

    proptest! {
        /// However slow they all are: of any number of requests no more than the share, and what was saved up.
        #[test]
        fn the_extra_load_never_exceeds_its_share(
            extra in 1u32..=5,
            slow in prop::collection::vec(any::<bool>(), 0..2_000),
        ) {
            let now = Instant::now();
            let mut hedge = Hedge::new(config(95, extra), now);
            let (mut requests, mut hedges) = (0u32, 0u32);
            for slow in slow {
                requests += 1;
                hedge.begun(now);
                if slow && hedge.admit(CALM, &mut budget(now), now).is_ok() {
                    hedges += 1;
                }
                prop_assert!(hedges * 100 <= requests * extra);
            }
        }
    }
}
