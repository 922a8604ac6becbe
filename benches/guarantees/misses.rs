//! Targets that Weir is known to miss, and why: they are shown as missed, and the command does not fail for them unless it is
//! asked to be strict. Every other miss fails it.

use crate::figure::Figure::{self, *};
use crate::plan::Case;

/// G7's app has one core, so that twelve times its capacity is not more than a driver can send.
const ONE_CORE: &str = "the app has one core, which a critical request shares with whatever else is in it: four at least, for no limit is lower, and \
     more in the first seconds, until the limit is found; it waits for a place behind other critical ones, too, and no longer than 100 ms: at half \
     its load one in a thousand would wait longer with nobody beside it";

const KNOWN: &[(&str, &str, Figure, &str)] = &[
    (
        "G7",
        "critical at half the capacity, beside a ramp to 12 × of what may be shed",
        Success,
        ONE_CORE,
    ),
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
