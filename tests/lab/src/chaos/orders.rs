//! What became of orders, and what was charged for them, as the log and payment's ledger have it. Pure.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// By their ids.
#[derive(Clone, Debug, Default)]
pub struct Orders(BTreeMap<String, Standing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    Confirmed,
    Cancelled,
}

impl Orders {
    /// What `orderview --facts` prints: seq, order, what happened.
    pub fn parse(facts: &str) -> Result<Self> {
        let mut orders = BTreeMap::new();
        for line in facts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let &[_, order, fact] = words.as_slice() else {
                return Err(Error::Request(format!(
                    "orderview --facts: {line:?} is no fact"
                )));
            };
            let standing = orders.entry(order.to_owned()).or_insert(Standing::Open);
            match fact {
                "order_confirmed" => *standing = Standing::Confirmed,
                "order_cancelled" => *standing = Standing::Cancelled,
                _ => {}
            }
        }
        Ok(Self(orders))
    }

    /// Those that were not there before.
    pub fn since(mut self, before: &Self) -> Self {
        self.0.retain(|order, _| !before.0.contains_key(order));
        self
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn open(&self) -> usize {
        self.standing(Standing::Open).count()
    }

    pub fn confirmed(&self) -> impl Iterator<Item = &str> {
        self.standing(Standing::Confirmed)
    }

    fn standing(&self, wanted: Standing) -> impl Iterator<Item = &str> {
        let orders = self.0.iter();
        orders.filter_map(move |(order, standing)| (*standing == wanted).then_some(&**order))
    }
}

/// The fewest and the most charges, less refunds, that any of these orders has. None of no order.
pub fn charges<'a>(ledger: &str, orders: impl Iterator<Item = &'a str>) -> Option<(i64, i64)> {
    let mut charges: BTreeMap<&str, i64> = BTreeMap::new();
    for line in ledger.lines() {
        let mut words = line.split(' ');
        let (kind, key, transaction) = (words.next(), words.next(), words.next());
        // `ORDER` where checkout pays and `ORDER:payment` where fulfilment does: the same order twice is one that was charged twice.
        let order = key.and_then(|key| key.split(':').next());
        let charged = charges.entry(order.unwrap_or_default()).or_default();
        match (kind, transaction) {
            (Some("CHARGE"), _) => *charged += 1,
            // Of what was never charged: it only forbids the charge.
            (Some("REFUND"), Some("-")) => {}
            (Some("REFUND"), _) => *charged -= 1,
            _ => {}
        }
    }
    let each = orders.map(|order| charges.get(order).copied().unwrap_or_default());
    each.fold(None, |range, charged| {
        let (fewest, most) = range.unwrap_or((charged, charged));
        Some((charged.min(fewest), charged.max(most)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(facts: &[&str]) -> Orders {
        let lines = (1..)
            .zip(facts)
            .map(|(seq, fact)| format!("{seq} {fact}\n"));
        Orders::parse(&lines.collect::<String>()).expect("facts")
    }

    #[test]
    fn orders_of_a_run_are_those_that_were_not_there_before_also_when_they_end_later() {
        let before = ["a order_placed", "b order_placed", "b order_confirmed"];
        let since = [
            "a order_confirmed",
            "c order_placed",
            "c payment_authorized",
            "c order_confirmed",
            "d order_placed",
            "d order_cancelled",
            "e order_placed",
        ];
        let after = orders(&[&before[..], &since[..]].concat());
        let run = after.since(&orders(&before));
        assert_eq!((run.count(), run.open()), (3, 1));
        assert_eq!(run.confirmed().collect::<Vec<_>>(), ["c"]);
        Orders::parse("orderview: UNAVAILABLE").expect_err("no fact");
    }

    #[test]
    fn an_order_that_nobody_charged_and_one_charged_under_two_keys_are_both_told() {
        let ledger = "\
CHARGE a:payment t1 USD 12 500000000 -
CHARGE b:payment t2 USD 12 500000000 -
CHARGE b t3 USD 12 500000000 -
CHARGE other t4 USD 1 0 -
CHARGE other:payment t5 USD 1 0 -
";
        let of = |orders: &[&'static str]| charges(ledger, orders.iter().copied());
        assert_eq!(of(&["a"]), Some((1, 1)));
        assert_eq!(
            of(&["a", "b"]),
            Some((1, 2)),
            "b was charged under two keys"
        );
        assert_eq!(of(&["a", "lost"]), Some((0, 1)), "one has no charge");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_was_paid_back_is_no_charge_and_what_only_forbids_one_is_no_refund() {
        let ledger = "\
CHARGE a:payment t1 USD 12 500000000 -
REFUND a:payment t1 -
REFUND b:payment - -
CHARGE b t2 USD 12 500000000 -
";
        assert_eq!(charges(ledger, ["a", "b"].into_iter()), Some((0, 1)));
    }
}
