use proptest::prelude::*;
use weir_config::units::Count;

use super::*;

fn config(requests_per_second: u32, burst: u32, per: RateLimitKey) -> Config {
    Config {
        requests_per_second: Count::of(requests_per_second),
        burst: Count::of(burst),
        per,
    }
}

fn limits(configs: &[Config]) -> (RateLimits, Instant) {
    let (mut limits, now) = (RateLimits::default(), Instant::now());
    limits.reconfigure(configs, now);
    (limits, now)
}

/// Whose key is `caller` under a limit per caller, and everybody's under another.
fn from(caller: u64) -> impl Fn(&Per) -> Key {
    move |per| Key(if *per == Per::Caller { caller } else { 0 })
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn wait(refused: Result<(), Refused>) -> Duration {
    refused.expect_err("above its limit").retry_after
}

#[test]
fn a_burst_passes_and_then_one_for_each_interval() {
    let (mut limits, now) = limits(&[config(10, 3, RateLimitKey::Caller)]);
    for _ in 0..3 {
        assert_eq!(limits.admit(now, from(1)), Ok(()));
    }
    assert_eq!(wait(limits.admit(now, from(1))), millis(100));
    assert_eq!(wait(limits.admit(now + millis(60), from(1))), millis(40));
    assert_eq!(limits.admit(now + millis(100), from(1)), Ok(()));
    assert!(limits.admit(now + millis(100), from(1)).is_err());
    assert_eq!(
        limits.admit(now + millis(100), from(2)),
        Ok(()),
        "another caller"
    );
}

#[test]
fn a_limit_without_any_rule_admits_everybody() {
    let (mut limits, now) = limits(&[]);
    for _ in 0..10_000 {
        assert_eq!(limits.admit(now, from(1)), Ok(()));
    }
}

/// Planted: charging each bucket as it is looked at, a caller that is refused uses up what the others need.
#[test]
fn a_caller_above_its_own_limit_takes_nothing_from_the_others() {
    let (mut limits, now) = limits(&[
        config(10, 2, RateLimitKey::Caller),
        config(100, 5, RateLimitKey::Total),
    ]);
    for _ in 0..100 {
        let _ = limits.admit(now, from(666));
    }
    for polite in 0..3 {
        assert_eq!(limits.admit(now, from(polite)), Ok(()));
    }
    let refused = limits.admit(now, from(7)).expect_err("all five are used");
    assert_eq!(refused.rule, 1);
    assert_eq!(refused.retry_after, millis(10));
    assert_eq!(
        limits.admit(now + millis(10), from(7)),
        Ok(()),
        "what the total refused was not taken from the caller's own"
    );
    let refused = limits
        .admit(now + millis(10), from(666))
        .expect_err("spent");
    assert_eq!((refused.rule, refused.retry_after), (0, millis(90)));
}

#[test]
fn who_comes_back_as_told_is_within_all_limits() {
    let (mut limits, now) = limits(&[
        config(100, 1, RateLimitKey::Caller),
        config(2, 1, RateLimitKey::Total),
    ]);
    assert_eq!(limits.admit(now, from(1)), Ok(()));
    let refused = limits.admit(now, from(1)).expect_err("both are empty");
    assert_eq!((refused.rule, refused.retry_after), (0, millis(500)));
    assert_eq!(limits.admit(now + millis(500), from(1)), Ok(()));
}

/// Planted: making room by forgetting the oldest bucket, full or not, hands the flooder its burst back.
#[test]
fn inventing_keys_gets_one_share_and_resets_nobody() {
    let (mut limits, now) = limits(&[config(1, 2, RateLimitKey::Caller)]);
    let spent = 1;
    for _ in 0..2 {
        assert_eq!(limits.admit(now, from(spent)), Ok(()));
    }
    let keys = 3 * KEYS_MAX as u64;
    let admitted = (2..keys).filter(|key| limits.admit(now, from(*key)).is_ok());
    assert_eq!(
        admitted.count(),
        KEYS_MAX - 1 + 2,
        "the table, and one share more"
    );
    assert_eq!(limits.keys(), KEYS_MAX);
    assert!(limits.admit(now, from(spent)).is_err(), "still spent");
    let later = now + SWEEP_EVERY;
    assert!(
        limits.admit(later, from(keys)).is_err(),
        "it looks for room"
    );
    assert!(limits.admit(later, from(spent)).is_err(), "and still spent");
    assert_eq!(limits.keys(), KEYS_MAX);
}

#[test]
fn buckets_that_are_full_again_make_room_for_others() {
    let (mut limits, now) = limits(&[config(1, 1, RateLimitKey::Caller)]);
    for key in 0..KEYS_MAX as u64 {
        assert_eq!(limits.admit(now, from(key)), Ok(()));
    }
    let later = now + Duration::from_secs(1);
    for key in 0..10 {
        assert_eq!(limits.admit(later, from(1_000_000 + key)), Ok(()));
    }
    assert_eq!(limits.keys(), 10);
}

#[test]
fn a_new_rate_keeps_what_was_taken_and_a_new_kind_of_key_begins_anew() {
    let (mut limits, now) = limits(&[config(10, 10, RateLimitKey::Caller)]);
    for _ in 0..10 {
        assert_eq!(limits.admit(now, from(1)), Ok(()));
    }
    limits.reconfigure(&[config(100, 10, RateLimitKey::Caller)], now);
    assert_eq!(wait(limits.admit(now, from(1))), millis(10));
    limits.reconfigure(&[config(100, 1, RateLimitKey::Caller)], now);
    assert_eq!(
        wait(limits.admit(now, from(1))),
        millis(10),
        "no debt beyond the burst"
    );
    limits.reconfigure(&[config(100, 1, RateLimitKey::Total)], now);
    assert_eq!(limits.admit(now, from(1)), Ok(()));
}

proptest! {
    /// Against its own promise, whatever the arrivals: never more than the burst and what the time has earned.
    #[test]
    fn no_span_of_time_sees_more_than_the_burst_and_the_rate(
        rate in 1u32..2_000,
        burst in 1u32..50,
        waits in prop::collection::vec(0u64..20_000_000, 1..300),
    ) {
        let (mut limits, start) = limits(&[config(rate, burst, RateLimitKey::Total)]);
        let (mut now, mut admitted) = (start, Vec::new());
        for wait in waits {
            now += Duration::from_nanos(wait);
            match limits.admit(now, from(1)) {
                Ok(()) => admitted.push(now),
                Err(refused) => {
                    prop_assert!(refused.retry_after > Duration::ZERO);
                    let early = refused.retry_after - Duration::from_nanos(1);
                    prop_assert!(limits.admit(now + early, from(1)).is_err(), "told too long a time");
                    now += refused.retry_after;
                    prop_assert!(limits.admit(now, from(1)).is_ok(), "told too short a time");
                    admitted.push(now);
                }
            }
        }
        for (first, since) in admitted.iter().enumerate() {
            for (last, until) in admitted.iter().enumerate().skip(first) {
                let span = until.duration_since(*since).as_secs_f64();
                let most = f64::from(burst) + span * f64::from(rate);
                prop_assert!((last - first + 1) as f64 <= most + 1e-6);
            }
        }
    }
}
