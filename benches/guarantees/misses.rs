//! Targets that Weir is known to miss, and why: they are shown as missed, and the command does not fail for them unless it is
//! asked to be strict. Every other miss fails it.

use crate::figure::Figure::{self, *};
use crate::plan::Case;

/// G7's app has one core, so that twelve times its capacity is not more than a driver can send.
const ONE_CORE: &str = "the app has one core, and a request that may be shed and is in it when a critical one comes shares that until it is done: the \
     sidecar lets in as few as slow critical ones by a quarter in the mean, and takes some seconds to find out how many those are";

const KNOWN: &[(&str, &str, Figure, &str)] = &[
    (
        "G7",
        "critical at half the capacity, beside a ramp to 12 × of what may be shed",
        P99ToHealthy,
        ONE_CORE,
    ),
    (
        "G6",
        "… nine short, one 31 × as long",
        Converged,
        "a quarter of a second, of which four in a row have to be good, has some 25 of the long requests, and by chance fewer: no whole \
         second was below 98 %",
    ),
    (
        "G6",
        "… in bursts of 20",
        Converged,
        "the first four quarters of a second have to have 90 % each, and what eight busy cores get done in one varies by 6 %: of an app that is \
         never idle one in five begins with a quarter that has not; no whole second was below 96 %",
    ),
    (
        "G8",
        "… two attempts each, D fails 30 %",
        Success,
        "ten successes pay for one retry, so retries make up for a tenth of the calls and not for 30 %: the same rule that keeps the row \
         above at 1.1",
    ),
];

/// Why this is missed, if that is known.
pub fn reason(case: &Case, figure: Figure) -> Option<&'static str> {
    let mut known = KNOWN.iter();
    let found = known.find(|(experiment, name, of, _)| {
        case.experiment == *experiment && case.name == *name && figure == *of
    });
    found.map(|(.., reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Bound;
    use crate::plan::cases;

    #[test]
    fn what_is_known_to_be_missed_is_a_target_of_a_case() {
        let cases = cases();
        for (experiment, name, figure, reason) in KNOWN {
            let is_it = |case: &&Case| case.experiment == *experiment && case.name == *name;
            let case = cases.iter().find(is_it);
            let case = case.unwrap_or_else(|| panic!("no case: {experiment} {name}"));
            let target = case.figures.iter().find(|(of, _)| of == figure);
            let has_target = target.is_some_and(|(_, bound)| *bound != Bound::None);
            assert!(has_target, "no target: {experiment} {name}: {reason}");
        }
    }
}
