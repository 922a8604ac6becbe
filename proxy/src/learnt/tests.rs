use super::*;
use crate::policy::gate::ProbeResult;
use crate::policy::outcome::Fault;
use crate::policy::transition::Phase;

/// An endpoint that hangs is dearer with every moment in which it answers nothing.
#[test]
fn silence_costs_as_much_as_the_answer_would_that_does_not_come() {
    let config = Config::of(&Outbound::default());
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut learnt = Learnt::new(&config, true, None, now);
    let cost = |learnt: &Learnt, now| {
        let candidate = learnt.candidate(&config, 1, false, || second, now);
        candidate.load.cost
    };
    let mut call = learnt.start(true, now);
    assert_eq!(cost(&learnt, now), 2.0 * 30e6, "its seed");
    assert_eq!(cost(&learnt, now + second), 2.0 * 1e9);
    let mut others = [(); 2].map(|()| learnt.start(true, now));
    assert_eq!(
        cost(&learnt, now + second),
        2.0 * 3e9,
        "three wait, and none is answered"
    );
    for other in &mut others {
        learnt.stop_waiting(other);
    }
    assert_eq!(
        cost(&learnt, now + second),
        2.0 * 1e9,
        "streams have their heads"
    );
    assert!(
        learnt
            .answered(&mut call, Outcome::Success, now + second)
            .is_some()
    );
    let stream = learnt.start(true, now + second);
    for (after, silent_for) in [(16, 15), (17, 0)] {
        let later = now + after * second;
        assert_eq!(
            learnt.stall(None, Some(second), &config, later),
            None,
            "alone"
        );
        assert_eq!(learnt.at_least(later), silent_for * second);
    }
    let end = Ended {
        outcome: Outcome::Cancelled,
        connect_failed: false,
        retry_after: None,
        over_quota: false,
        lost: false,
    };
    let later = now + 18 * second;
    let before = learnt.latency.cost(later, 0);
    learnt.ended(stream, end, || second, Pool::default(), later, 0);
    assert_eq!(before, learnt.latency.cost(later, 0), "a stream is no call");
    learnt.ended(call, end, || second, Pool::default(), later, 0);
}

const P99: Duration = Duration::from_millis(30);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So many wait for it while the others answer.
fn silent(waiting: u32, bounded: bool, now: Instant) -> (Config, Learnt) {
    let config = Config::of(&Outbound::default());
    let mut learnt = Learnt::new(&config, true, None, now);
    for _ in 0..waiting {
        let _ = learnt.start(bounded, now);
    }
    (config, learnt)
}

#[test]
fn the_silence_of_three_with_a_deadline_is_a_stall_and_any_other_is_to_be_asked_about() {
    let now = Instant::now();
    for (waiting, bounded, is_stall) in [(3, true, true), (2, true, false), (9, false, false)] {
        let (config, mut learnt) = silent(waiting, bounded, now);
        let later = now + millis(121);
        let stall = learnt.stall(Some(later), Some(P99), &config, later);
        assert_eq!(stall.is_some(), is_stall, "{waiting} wait");
        let asked = (!is_stall).then_some(ProbeKind::Doubt);
        assert_eq!(learnt.wants_probe(later), asked, "{waiting} wait");
        assert_eq!(learnt.wants_probe(later), None, "asked once");
    }
}

/// Whoever came only every ten seconds waited for as long as a try may take, each time.
#[test]
fn of_a_pool_that_nobody_has_called_lately_what_a_try_may_take_tells_what_is_silence() {
    let now = Instant::now();
    let (config, mut learnt) = silent(3, true, now);
    let limit = config.try_timeout * 3 / 4;
    for (passed, is_stall) in [(limit, false), (limit + millis(1), true)] {
        let later = now + passed;
        let stall = learnt.stall(Some(later), None, &config, later);
        assert_eq!(stall.is_some(), is_stall, "{passed:?}");
    }
}

/// One silent stream, or one slow call at an endpoint that gets six a second, was a black hole after 120 ms.
#[test]
fn an_endpoint_that_is_awake_when_it_is_asked_is_silent_for_new_calls_only() {
    let mut now = Instant::now();
    let (config, mut learnt) = silent(1, true, now);
    now += millis(41);
    assert_eq!(learnt.stall(Some(now), Some(P99), &config, now), None);
    assert_eq!(learnt.wants_probe(now), Some(ProbeKind::Doubt));
    learnt.probed(ProbeKind::Doubt, ProbeResult::Passed, now, 0);
    now += millis(1000);
    assert_eq!(learnt.stall(Some(now), Some(P99), &config, now), None);
    assert_eq!(learnt.wants_probe(now), None, "it is known to be slow");
    assert_eq!(learnt.at_least(now), Duration::ZERO);

    let _ = learnt.start(true, now);
    now += millis(41);
    assert_eq!(learnt.stall(Some(now), Some(P99), &config, now), None);
    assert_eq!(learnt.wants_probe(now), Some(ProbeKind::Doubt), "anew");
}

#[test]
fn an_endpoint_that_does_not_say_in_time_whether_it_is_awake_stalls_whoever_still_waits() {
    let mut now = Instant::now();
    let (config, mut learnt) = silent(0, true, now);
    let mut call = learnt.start(true, now);
    now += millis(41);
    assert_eq!(learnt.stall(Some(now), Some(P99), &config, now), None);
    assert_eq!(learnt.wants_probe(now), Some(ProbeKind::Doubt));
    learnt.stop_waiting(&mut call);
    learnt.probed(ProbeKind::Doubt, ProbeResult::Unanswered, now, 0);
    now += millis(79);
    assert_eq!(learnt.stall(Some(now), Some(P99), &config, now), None);
    now += millis(1);
    assert!(learnt.stall(Some(now), Some(P99), &config, now).is_some());
    learnt.last_completion = Some(now);
    assert_eq!(
        learnt.stall(Some(now), Some(P99), &config, now),
        None,
        "awake"
    );
}

/// The probe itself is the question.
#[test]
fn one_call_that_waits_for_an_endpoint_that_is_out_is_enough_for_a_stall() {
    let now = Instant::now();
    let (config, mut learnt) = silent(1, true, now);
    let limit = millis(120);
    let quiet_for = limit;
    (learnt.gate).stalled(now, Stall { quiet_for, limit }, true, 0);
    let later = now + millis(121);
    assert!(
        learnt
            .stall(Some(later), Some(P99), &config, later)
            .is_some()
    );
    learnt.probed(ProbeKind::Doubt, ProbeResult::Passed, later, 0);
    let stall = learnt.stall(Some(later), Some(P99), &config, later);
    assert!(stall.is_some(), "an answer from before it was out");
}

#[test]
fn a_try_has_its_share_of_the_deadline_or_less() {
    let mut outbound = Outbound::default();
    let secs = Duration::from_secs;
    assert_eq!(Config::of(&outbound).try_timeout, secs(15) / 2);
    outbound.retries.per_try_timeout = Some(weir_config::units::Duration::from_secs(1));
    assert_eq!(Config::of(&outbound).try_timeout, secs(1));
    outbound.deadline = None;
    outbound.retries.per_try_timeout = None;
    assert_eq!(Config::of(&outbound).try_timeout, STALL_TIMEOUT / 2);
}

#[test]
fn half_of_a_pool_may_be_out_but_never_the_last_and_one_of_three() {
    let max = |n| open_max(n, Percent::of(50));
    assert_eq!([0, 1, 2, 3, 4, 7].map(max), [0, 0, 1, 1, 2, 3]);
}

/// Who asked twice as often as it may kept a replica out that was well again.
#[test]
fn a_probe_that_meets_a_rate_limit_has_found_the_endpoint_well() {
    for (over_quota, phase) in [(true, Phase::Ramping), (false, Phase::Open)] {
        let mut now = Instant::now();
        let mut learnt = Learnt::new(&Config::of(&Outbound::default()), true, None, now);
        let pool = Pool {
            may_open: true,
            ..Pool::default()
        };
        let end = |learnt: &mut Learnt, outcome, over_quota, now| {
            let call = learnt.start(true, now);
            let end = Ended {
                outcome,
                connect_failed: false,
                retry_after: None,
                over_quota,
                lost: false,
            };
            learnt.ended(call, end, || P99, pool, now, 0);
        };
        while learnt.gate.state() != Phase::Open {
            end(&mut learnt, Outcome::Failure(Fault::Hard), false, now);
        }
        now += Duration::from_secs(60);
        let probe = learnt.gate.wants_probe(now);
        assert!(probe.is_some());
        learnt.gate.probe_result(ProbeResult::Passed, now, 0);
        while learnt.gate.state() == Phase::HalfOpen {
            now += Duration::from_secs(1);
            end(
                &mut learnt,
                Outcome::Failure(Fault::Overload),
                over_quota,
                now,
            );
        }
        assert_eq!(learnt.gate.state(), phase);
    }
}
