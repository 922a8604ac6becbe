//! Service throttle: what an overloaded service would refuse anyway is not sent to it.
//!
//! ```text
//!             an explicit overload answer                    p = (requests − K × accepted) / (requests + 1)
//!   Quiet ───────────────────────────────▶ Counting: each request is dropped with p, the least critical first
//!     ▲                                        │
//!     └──── no such answer for 30 s ───────────┘      ten accepted in a row: half of what was held against it goes
//! ```
//!
//! Client-side throttling of the SRE book (chapter 21), K = 2: a service that accepts half of what it is asked is
//! left to it; below that, callers ask for about twice what it accepts, so that rejecting costs it little and its
//! recovery is seen at once. Requests count when they are sent, not when they are answered (go-zero issue 5011: else a
//! slow answer looks like a refusal). It replaces a binary breaker of the whole service (resilience.md section 4.4).
//!
//! Only explicit overload answers are counted: those that a sidecar of ours has marked. A 5xx is not one, or the
//! throttle would mask bugs (Envoy's admission control does); nor is a 429 that says nothing more. Of an app it is word
//! about one user's quota, while what is dropped here may be anybody's; of a rate limit it names the moment from which
//! on it is worth asking again, and statistics over half a minute would break that promise.
//!
//! Back-pressure from hop to hop: while the endpoints say that they are full (see [`load`](super::load)), K falls from
//! 2 towards 1.2, and the service is asked for less of what it is going to refuse.
//!
//! The formula alone is slow to let go: after an outage it sends a tenth, and doubles that only every 13 s, because half
//! a minute of refusals outweighs what little it sends. So each full second in which the service has refused nothing, and
//! was asked often enough to have had the chance, halves the refusals that are remembered: a recovered service has its
//! traffic back within seconds, and one that still refuses half of what it gets will not pass for one.
//!
//! No clock, no dice, no lock: the caller passes `now` and `rand`. While it is quiet nobody need ask at all.

use tokio::time::Instant;

use super::jitter::unit;
use super::priority::Tier;

/// One second each.
const BUCKETS: u64 = 30;
/// With fewer requests in the window nobody is dropped.
const REQUESTS_MIN: u32 = 10;
/// Somebody must find out that it is over.
const DROP_MAX: f64 = 0.9;
/// So many in a row without a refusal are no accident: of a service that refuses half, one in a thousand such rows.
const CLEAN_MIN: u32 = 10;
/// Requests sent for each that is accepted, while the endpoints have room …
const K: f64 = 2.0;
/// … and while they are full.
const K_FULL: f64 = 1.2;
/// Up to here there is room.
const ROOM: f64 = 0.8;

#[derive(Debug)]
pub struct Throttle {
    origin: Instant,
    /// The number of the bucket that is being filled.
    newest: u64,
    buckets: [Counts; BUCKETS as usize],
    totals: Counts,
    /// Sent since the last refusal, in seconds that are over.
    clean: u32,
    /// The bucket of the last refusal.
    refused_in: u64,
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// All, whether they were sent or dropped.
    requests: [u32; Tier::COUNT],
    /// By the service.
    rejected: u32,
    /// By us.
    dropped: u32,
}

/// A request that was counted: the number of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Throttle {
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            newest: 0,
            buckets: [Counts::default(); BUCKETS as usize],
            totals: Counts::default(),
            clean: 0,
            refused_in: 0,
            quiet: true,
        }
    }

    /// Counts a request. With `false` it should be dropped; if it is, say so by [`Throttle::dropped`]. `load` is what
    /// the endpoints say of themselves, 1.0 is all they can do.
    pub fn admit(&mut self, tier: Tier, load: f64, now: Instant, rand: u64) -> (Ticket, bool) {
        self.move_on(now);
        let probability = self.probability(tier, load);
        let ticket = Ticket(self.newest);
        self.count(ticket, |counts| {
            let requests = &mut counts.requests[tier.index()];
            *requests = requests.saturating_add(1);
        });
        (ticket, unit(rand) >= probability)
    }

    pub fn dropped(&mut self, ticket: Ticket) {
        self.count(ticket, |counts| {
            counts.dropped = counts.dropped.saturating_add(1);
        });
    }

    /// The service answered that it is overloaded. `ticket`: of the request, if one was drawn. `in_flight`: how many are
    /// with the service now, this one included; those that were sent while it was quiet are counted by it.
    pub fn rejected(&mut self, ticket: Option<Ticket>, tier: Tier, in_flight: u32, now: Instant) {
        self.move_on(now);
        let known = ticket.filter(|ticket| !self.quiet && self.is_in_window(*ticket));
        let requests = match (self.quiet, ticket, known) {
            (true, ..) => in_flight.max(1),
            // It is older than the window, and was forgotten with its second.
            (false, Some(_), None) => 1,
            (false, ..) => 0,
        };
        self.quiet = false;
        self.clean = 0;
        self.refused_in = self.newest;
        self.count(known.unwrap_or(Ticket(self.newest)), |counts| {
            let of_tier = &mut counts.requests[tier.index()];
            *of_tier = of_tier.saturating_add(requests);
            counts.rejected = counts.rejected.saturating_add(1);
        });
    }

    /// All requests of the window, and how many of them the service took.
    pub fn window(&self) -> (u32, u32) {
        let Counts {
            requests,
            rejected,
            dropped,
        } = self.totals;
        let all: u32 = requests.iter().sum();
        (all, all.saturating_sub(rejected).saturating_sub(dropped))
    }

    /// No overload answer within the window, so nothing is counted and nobody dropped.
    pub fn is_quiet(&mut self, now: Instant) -> bool {
        self.move_on(now);
        self.quiet
    }

    /// Of being dropped, for a request of this tier.
    pub fn probability(&self, tier: Tier, load: f64) -> f64 {
        let (all, accepted) = self.window();
        if all < REQUESTS_MIN {
            return 0.0;
        }
        let (all, accepted) = (f64::from(all), f64::from(accepted));
        let share = ((all - k(load) * accepted) / (all + 1.0)).clamp(0.0, DROP_MAX);
        // So many of the window's requests are to go, and those of lower tiers go first.
        let requests = &self.totals.requests;
        let lower = &requests[tier.index() + 1..];
        let of_lower: f64 = lower.iter().map(|count| f64::from(*count) * DROP_MAX).sum();
        let of_tier = f64::from(requests[tier.index()].max(1));
        ((share * all - of_lower) / of_tier).clamp(0.0, DROP_MAX)
    }

    fn is_in_window(&self, ticket: Ticket) -> bool {
        ticket.0 + BUCKETS > self.newest && ticket.0 <= self.newest
    }

    fn count(&mut self, ticket: Ticket, act: impl Fn(&mut Counts)) {
        if self.is_in_window(ticket) {
            act(&mut self.buckets[slot(ticket.0)]);
            act(&mut self.totals);
        }
    }

    fn move_on(&mut self, now: Instant) {
        let number = now.saturating_duration_since(self.origin).as_secs();
        if number <= self.newest {
            return; // threads read the clock before they take the lock
        }
        let last = self.buckets[slot(self.newest)];
        if last.rejected == 0 {
            self.clean = self.clean.saturating_add(last.sent());
            if self.clean >= CLEAN_MIN {
                self.forgive();
            }
        }
        for fresh in (self.newest + 1..=number).take(BUCKETS as usize) {
            let forgotten = std::mem::take(&mut self.buckets[slot(fresh)]);
            self.totals.subtract(forgotten);
        }
        self.newest = number;
        if number >= self.refused_in + BUCKETS {
            self.quiet = true;
            self.clean = 0;
            self.buckets = [Counts::default(); BUCKETS as usize];
            self.totals = Counts::default();
        }
    }

    fn forgive(&mut self) {
        self.clean = 0;
        self.totals = Counts::default();
        for bucket in &mut self.buckets {
            bucket.forgive();
            self.totals.add(*bucket);
        }
    }
}

impl Counts {
    fn sent(&self) -> u32 {
        let all: u32 = self.requests.iter().sum();
        all.saturating_sub(self.dropped)
    }

    /// Forgets half of what was refused or dropped, as if it had never been asked for.
    fn forgive(&mut self) {
        let all: u32 = self.requests.iter().sum();
        let forgotten = self.rejected.div_ceil(2) + self.dropped.div_ceil(2);
        self.rejected /= 2;
        self.dropped /= 2;
        for requests in &mut self.requests {
            let share = u64::from(*requests) * u64::from(forgotten) / u64::from(all.max(1));
            *requests = requests.saturating_sub(u32::try_from(share).unwrap_or(u32::MAX));
        }
    }

    fn add(&mut self, other: Self) {
        for (total, count) in self.requests.iter_mut().zip(other.requests) {
            *total = total.saturating_add(count);
        }
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }

    fn subtract(&mut self, other: Self) {
        for (total, count) in self.requests.iter_mut().zip(other.requests) {
            *total = total.saturating_sub(count);
        }
        self.rejected = self.rejected.saturating_sub(other.rejected);
        self.dropped = self.dropped.saturating_sub(other.dropped);
    }
}

fn k(load: f64) -> f64 {
    K - (K - K_FULL) * ((load - ROOM) / (1.0 - ROOM)).clamp(0.0, 1.0)
}

fn slot(number: u64) -> usize {
    (number % BUCKETS) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const CALM: f64 = 0.0;

    fn throttle() -> (Throttle, Instant) {
        let now = Instant::now();
        (Throttle::new(now), now)
    }

    /// `count` requests within this moment, of which every `nth` is rejected; how many were dropped.
    fn offer(throttle: &mut Throttle, tier: Tier, count: u32, accepts: u32, now: Instant) -> u32 {
        let (mut rng, mut sent, mut dropped) = (fastrand::Rng::with_seed(7), 0, 0);
        for _ in 0..count {
            match throttle.admit(tier, CALM, now, rng.u64(..)) {
                (ticket, true) => {
                    sent += 1;
                    if sent > accepts {
                        throttle.rejected(Some(ticket), tier, 1, now);
                    }
                }
                (ticket, false) => {
                    throttle.dropped(ticket);
                    dropped += 1;
                }
            }
        }
        dropped
    }

    #[test]
    fn a_service_that_accepts_half_is_left_to_it() {
        let (mut throttle, now) = throttle();
        throttle.rejected(None, Tier::Default, 100, now);
        for _ in 0..49 {
            throttle.rejected(None, Tier::Default, 100, now);
        }
        assert_eq!(throttle.probability(Tier::Default, CALM), 0.0);
        throttle.rejected(None, Tier::Default, 100, now);
        throttle.rejected(None, Tier::Default, 100, now);
        assert!(throttle.probability(Tier::Default, CALM) > 0.0);
    }

    /// Planted: taking those that have not answered for refused (counting accepts instead of refusals).
    #[test]
    fn those_that_are_still_waited_for_are_not_taken_for_refused() {
        let (mut throttle, now) = throttle();
        throttle.rejected(None, Tier::Default, 1000, now);
        for _ in 0..200 {
            let (_, admitted) = throttle.admit(Tier::Default, CALM, now, 0);
            assert!(
                admitted,
                "one of a thousand was refused, the others only take long"
            );
        }
    }

    #[test]
    fn it_asks_for_about_twice_of_what_is_accepted() {
        let (mut throttle, start) = throttle();
        throttle.rejected(None, Tier::Default, 1, start);
        let mut sent = 0;
        for second in 1..=60 {
            let now = start + Duration::from_secs(second);
            sent = 1000 - offer(&mut throttle, Tier::Default, 1000, 100, now);
        }
        assert!(
            (170..=260).contains(&sent),
            "{sent} of 1000, and 100 are accepted"
        );
    }

    /// Planted: without forgiveness this takes a minute.
    #[test]
    fn a_service_that_recovers_is_asked_in_full_within_seconds_and_then_it_is_quiet() {
        let (mut throttle, start) = throttle();
        throttle.rejected(None, Tier::Default, 1, start);
        let mut now = start;
        for _ in 0..30 {
            now += Duration::from_secs(1);
            offer(&mut throttle, Tier::Default, 1000, 0, now);
        }
        assert_eq!(throttle.probability(Tier::Default, CALM), DROP_MAX);
        let mut dropped = 1;
        for _ in 0..12 {
            now += Duration::from_secs(1);
            dropped = offer(&mut throttle, Tier::Default, 1000, 1000, now);
        }
        assert_eq!(dropped, 0);
        assert!(throttle.is_quiet(now + Duration::from_secs(30)));
        assert_eq!(throttle.probability(Tier::Default, CALM), 0.0);
    }

    #[test]
    fn a_handful_of_requests_is_no_evidence() {
        let (mut throttle, now) = throttle();
        for _ in 0..REQUESTS_MIN - 1 {
            let (ticket, admitted) = throttle.admit(Tier::Default, CALM, now, 0);
            assert!(admitted);
            throttle.rejected(Some(ticket), Tier::Default, 1, now);
        }
    }

    /// Planted: one probability for all tiers.
    #[test]
    fn critical_requests_are_dropped_last() {
        let (mut throttle, start) = throttle();
        throttle.rejected(None, Tier::Default, 1, start);
        let mut dropped = [0; 2];
        for second in 1..=60 {
            let now = start + Duration::from_secs(second);
            let (mut rng, mut sent) = (fastrand::Rng::with_seed(second), 0);
            dropped = [0; 2];
            for number in 0..1000 {
                let critical = number % 4 == 0;
                let tier = if critical {
                    Tier::Critical
                } else {
                    Tier::Sheddable
                };
                match throttle.admit(tier, CALM, now, rng.u64(..)) {
                    (ticket, true) => {
                        sent += 1;
                        if sent > 300 {
                            throttle.rejected(Some(ticket), tier, 1, now);
                        }
                    }
                    (ticket, false) => {
                        throttle.dropped(ticket);
                        dropped[usize::from(!critical)] += 1;
                    }
                }
            }
        }
        let [critical, sheddable] = dropped;
        assert_eq!(critical, 0);
        assert!(sheddable > 300, "{sheddable}");
    }

    #[test]
    fn full_endpoints_make_it_ask_for_less() {
        let (mut throttle, now) = throttle();
        throttle.rejected(None, Tier::Default, 100, now);
        for _ in 1..50 {
            throttle.rejected(None, Tier::Default, 100, now);
        }
        assert_eq!(throttle.probability(Tier::Default, ROOM), 0.0);
        let nearly = throttle.probability(Tier::Default, 0.9);
        assert!((0.15..0.25).contains(&nearly), "{nearly}");
        assert!((0.35..0.45).contains(&throttle.probability(Tier::Default, 9.0)));
    }

    proptest! {
        /// Whatever happened: never all are dropped, and half a minute of silence forgets it.
        #[test]
        fn never_wedges(steps in prop::collection::vec((0u8..4, 0usize..6, 0u64..5_000), 0..300)) {
            let (mut throttle, mut now) = throttle();
            let mut tickets = Vec::new();
            for (step, tier, wait) in steps {
                let tier = Tier::ALL[tier];
                match step {
                    0 => tickets.push(throttle.admit(tier, CALM, now, 0).0),
                    1 => throttle.rejected(tickets.pop(), tier, 3, now),
                    2 => if let Some(ticket) = tickets.pop() { throttle.dropped(ticket) },
                    _ => now += Duration::from_millis(wait),
                }
                for tier in Tier::ALL {
                    let probability = throttle.probability(tier, 3.0);
                    prop_assert!((0.0..=DROP_MAX).contains(&probability));
                }
                let of_buckets: u32 = throttle.buckets.iter().map(|counts| counts.rejected).sum();
                prop_assert_eq!(of_buckets, throttle.totals.rejected);
            }
            prop_assert!(throttle.is_quiet(now + Duration::from_secs(BUCKETS)));
        }
    }
}
