//! What the callers of a policy's target hold open, in one condition that is there for as long as it is so.

use super::Condition;
use crate::mesh::Outage;

/// More are only counted: an outage of everything need not be told endpoint by endpoint.
const TOLD_MAX: usize = 8;

/// `None`: everything is closed.
pub(super) fn condition(outages: &[Outage]) -> Option<Condition> {
    if outages.is_empty() {
        return None;
    }
    let mut told: Vec<String> = outages.iter().take(TOLD_MAX).map(text).collect();
    if let Some(more) = outages.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        told.push(format!("and {more} more"));
    }
    let open = outages.iter().any(|outage| outage.open > 0);
    Some(Condition {
        name: NAME,
        status: "True",
        reason: if open { "Open" } else { "Probing" },
        message: told.join("; "),
    })
}

pub(super) const NAME: &str = "BreakersOpen";

fn text(outage: &Outage) -> String {
    let Outage {
        what,
        callers,
        open,
        half_open,
    } = outage;
    let hold = if *open == 1 { "holds" } else { "hold" };
    let probe = if *half_open == 1 { "probes" } else { "probe" };
    match (open, half_open) {
        (0, _) => format!("{half_open} of {callers} callers {probe} {what}"),
        (_, 0) => format!("{open} of {callers} callers {hold} {what} open"),
        _ => format!("{open} of {callers} callers {hold} {what} open, {half_open} {probe} it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(what: &str, open: usize, half_open: usize) -> Outage {
        Outage {
            what: what.to_owned(),
            callers: 12,
            open,
            half_open,
        }
    }

    #[test]
    fn it_counts_callers_and_is_gone_when_all_is_closed() {
        assert_eq!(condition(&[]), None);
        for (open, half_open, reason, message) in [
            (2, 0, "Open", "2 of 12 callers hold payment-7f9 open"),
            (
                1,
                2,
                "Open",
                "1 of 12 callers holds payment-7f9 open, 2 probe it",
            ),
            (0, 1, "Probing", "1 of 12 callers probes payment-7f9"),
        ] {
            let told = condition(&[outage("payment-7f9", open, half_open)]).expect("a condition");
            assert_eq!((told.reason, told.message.as_str()), (reason, message));
        }
    }

    #[test]
    fn an_outage_of_everything_stays_readable() {
        let all: Vec<Outage> = (0..500)
            .map(|n| outage(&format!("pod-{n}"), 12, 0))
            .collect();
        let told = condition(&all).expect("a condition").message;
        assert!(told.ends_with("pod-7 open; and 492 more"), "{told}");
    }
}
