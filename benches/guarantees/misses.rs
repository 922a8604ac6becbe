//! Targets that Weir is known to miss, and why: they are shown as missed, and the command does not fail for them unless it is
//! asked to be strict. Every other miss fails it.

use crate::figure::Figure;
use crate::plan::Case;

/// The start of a case's name, or all of it.
type Named = &'static str;

const KNOWN: &[(&str, Named, Figure, &str)] = &[];

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
