//! Faults on purpose: whether a try of a call meets one, and which.
//!
//! ```text
//!   dice, 0 to 99      first fault        second fault         none
//!   ├──────────────────┼──────────────────┼────────────────────┤
//!   0      percentage of those that are for the call, one after the other      100
//! ```
//!
//! Of the faults that are for a call none or one happens to it, so percentages mean what they say: 20 of one and 10 of
//! another are 30 of 100 calls. A fault knows its end and needs nobody to end it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;
use weir_config::snapshot::{self, FaultDelay, FaultEffect};

use crate::router::Matcher;

/// Whether somebody is alive is never made to look otherwise (gRPC's health checking protocol).
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Those of a service that are for the calls of this sidecar.
#[derive(Debug, Default)]
pub struct Faults(Vec<Arc<Fault>>);

#[derive(Debug)]
pub struct Fault {
    pub said: snapshot::Fault,
    pub until: Instant,
    matcher: Option<Matcher>,
}

impl Faults {
    /// `own`: who this sidecar is. `unix_ms`: the time at `now`; the clock may be set while a fault lasts, and then it ends
    /// all the same.
    pub fn new(said: &[snapshot::Fault], own: Option<&str>, now: Instant, unix_ms: u64) -> Self {
        let is_ours = |said: &&snapshot::Fault| {
            said.callers.is_empty()
                || said
                    .callers
                    .iter()
                    .any(|caller| Some(caller.as_str()) == own)
        };
        let fault = |said: &snapshot::Fault| {
            let left = Duration::from_millis(said.until_ms.checked_sub(unix_ms)?);
            Some(Arc::new(Fault {
                said: said.clone(),
                until: now.checked_add(left)?,
                matcher: said.matches.as_ref().map(Matcher::new),
            }))
        };
        Self(said.iter().filter(is_ours).filter_map(fault).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are not over.
    pub fn in_force(&self, now: Instant) -> impl Iterator<Item = &Arc<Fault>> {
        self.0.iter().filter(move |fault| !fault.is_over(now))
    }

    /// Whether it is still said, in whatever place.
    pub fn has(&self, fault: &Fault) -> bool {
        self.0.iter().any(|known| known.said == fault.said)
    }

    /// `dice`: below 100.
    pub fn pick(
        &self,
        method: &Method,
        path: &str,
        grpc: bool,
        dice: u32,
        now: Instant,
    ) -> Option<&Arc<Fault>> {
        if path.starts_with(HEALTH) {
            return None;
        }
        let mut taken = 0;
        let is_for = |fault: &&Arc<Fault>| {
            (fault.matcher.as_ref()).is_none_or(|matcher| matcher.matches(method, path, grpc))
        };
        self.in_force(now).filter(is_for).find(|fault| {
            taken += fault.said.percentage.get();
            dice < taken
        })
    }
}

impl Fault {
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    pub fn effect(&self) -> Option<FaultEffect> {
        self.said.effect
    }

    /// How much later the call is made. `dice`: evenly spread over all numbers.
    pub fn delay(&self, dice: u64) -> Option<Duration> {
        let FaultDelay { time, jitter } = self.said.delay?;
        let jitter = jitter.map_or(0, |jitter| jitter.as_millis());
        let share = (jitter * u128::from(dice)) >> u64::BITS;
        Some(*time + Duration::from_millis(u64::try_from(share).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use weir_config::snapshot::{BrokenConnection, PathMatch, RouteMatch};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const OWN: Option<&str> = Some("spiffe://weir.local/ns/boutique/sa/cart");

    fn fault(policy: &str, percentage: i64) -> snapshot::Fault {
        snapshot::Fault {
            policy: policy.into(),
            until_ms: NOW_MS + 10_000,
            matches: None,
            callers: Vec::new(),
            percentage: percentage.try_into().expect("a percentage"),
            delay: None,
            effect: Some(FaultEffect::Connection(BrokenConnection::Reset)),
        }
    }

    fn hits(faults: &Faults, path: &str, now: Instant) -> Vec<(String, usize)> {
        let mut hits: Vec<(String, usize)> = Vec::new();
        for dice in 0..100 {
            let hit = faults.pick(&Method::GET, path, false, dice, now);
            let name = hit.map_or("none", |fault| &fault.said.policy);
            match hits.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => hits.push((name.to_owned(), 1)),
            }
        }
        hits
    }

    fn counted(said: &[(&str, usize)]) -> Vec<(String, usize)> {
        let owned = |(name, count): &(&str, usize)| ((*name).to_owned(), *count);
        said.iter().map(owned).collect()
    }

    #[test]
    fn percentages_add_up_and_a_call_meets_one_fault_at_most() {
        let now = Instant::now();
        let mut of_quotes = fault("quotes", 30);
        of_quotes.matches = Some(RouteMatch::Http {
            method: None,
            path: PathMatch::Prefix("/quotes".into()),
        });
        let said = [fault("first", 20), of_quotes, fault("last", 10)];
        let faults = Faults::new(&said, OWN, now, NOW_MS);
        let elsewhere = [("first", 20), ("last", 10), ("none", 70)];
        assert_eq!(hits(&faults, "/", now), counted(&elsewhere));
        let quotes = [("first", 20), ("quotes", 30), ("last", 10), ("none", 40)];
        assert_eq!(hits(&faults, "/quotes/1", now), counted(&quotes));
        let all = Faults::new(&[fault("all", 100)], OWN, now, NOW_MS);
        assert_eq!(hits(&all, "/", now), counted(&[("all", 100)]));
    }

    #[test]
    fn it_is_over_at_its_end_whatever_the_clock_says_by_then() {
        let now = Instant::now();
        let faults = Faults::new(&[fault("all", 100)], OWN, now, NOW_MS);
        let before = now + Duration::from_millis(9_999);
        assert_eq!(hits(&faults, "/", before), counted(&[("all", 100)]));
        let end = now + Duration::from_secs(10);
        assert_eq!(hits(&faults, "/", end), counted(&[("none", 100)]));
        assert_eq!(faults.in_force(end).count(), 0);
        let late = Faults::new(&[fault("all", 100)], OWN, now, NOW_MS + 10_001);
        assert!(late.is_empty(), "it was over before it came");
    }

    #[test]
    fn only_the_callers_that_it_names_meet_it() {
        let mut of_checkout = fault("checkout", 100);
        of_checkout.callers = vec!["spiffe://weir.local/ns/boutique/sa/checkout".into()];
        let mut of_us = fault("us", 100);
        of_us.callers = vec!["spiffe://a/ns/b/sa/c".into(), OWN.expect("said").into()];
        let now = Instant::now();
        let is_armed = |said: &snapshot::Fault, own| {
            !Faults::new(std::slice::from_ref(said), own, now, NOW_MS).is_empty()
        };
        assert!(!is_armed(&of_checkout, OWN));
        assert!(is_armed(&of_us, OWN));
        assert!(
            !is_armed(&of_us, None),
            "who does not know itself is nobody"
        );
        assert!(is_armed(&fault("all", 1), None));
    }

    #[test]
    fn health_checks_are_left_alone() {
        let now = Instant::now();
        let faults = Faults::new(&[fault("all", 100)], OWN, now, NOW_MS);
        let pick = |path| faults.pick(&Method::POST, path, true, 0, now).is_some();
        assert!(!pick("/grpc.health.v1.Health/Check"));
        assert!(pick("/boutique.v1.Cart/Get"));
    }

    #[test]
    fn a_delay_is_spread_over_its_jitter() {
        let mut slow = fault("slow", 100);
        let millis = |millis| Duration::from_millis(millis);
        slow.delay = Some(FaultDelay {
            time: "300ms".parse().expect("a time"),
            jitter: Some("100ms".parse().expect("a time")),
        });
        let faults = Faults::new(&[slow, fault("at once", 1)], OWN, Instant::now(), NOW_MS);
        let [slow, at_once] = [&faults.0[0], &faults.0[1]];
        assert_eq!(slow.delay(0), Some(millis(300)));
        assert_eq!(slow.delay(u64::MAX / 2), Some(millis(349)));
        assert_eq!(slow.delay(u64::MAX), Some(millis(399)));
        assert_eq!(at_once.delay(u64::MAX), None);
    }
}
