//! A policy that from now on only observes.

use super::*;

#[test]
fn a_policy_that_only_observes_lets_go_of_what_is_out() {
    let observes = Config {
        mode: Mode::Observe,
        ..Config::default()
    };
    for (mut gate, now) in [opened(), probing()] {
        let probe = gate.admit(now);
        gate.reconfigure(observes, RAMP, now);
        assert_eq!(gate.state(), Phase::Closed);
        let told = std::iter::from_fn(|| gate.take_transition()).last();
        let told = told.expect("it is told");
        assert_eq!((told.to, told.why), (Phase::Closed, Why::PolicyChanged));
        if let Some(probe) = probe {
            gate.record(probe, HARD, now, MIDDLE, ALLOWED);
        }
        assert_eq!(gate.counts(now).failures, 5, "what was learnt stays");
        gate.reconfigure(observes, RAMP, now);
        assert_eq!(gate.take_transition(), None, "once");
    }
}
