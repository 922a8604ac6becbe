//! Whether facts may be appended to an order, decided from what the order has already. No I/O.

use crate::pb::{AppendRequest, OrderEvent};

const ID_BYTES_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 128;
const EVENTS_MAX: usize = 16;
/// Of one order. A whole one has nine; whoever reads an order reads no more than these.
pub const FACTS_MAX: u32 = 32;

/// Facts of one order, well-formed.
#[derive(Clone, Debug)]
pub struct Append {
    pub order_id: String,
    pub expected_version: u32,
    /// At least one; with distinct keys, and the order's id.
    pub events: Vec<OrderEvent>,
}

impl Append {
    pub fn parse(request: AppendRequest) -> Result<Self, String> {
        let AppendRequest {
            order_id,
            expected_version,
            mut events,
        } = request;
        within("order_id", &order_id, ID_BYTES_MAX)?;
        if !order_id.bytes().all(may_be_in_a_key) {
            return Err(format!(
                "order_id is {order_id:?}, expected letters, digits, and any of _.:-"
            ));
        }
        if !(1..=EVENTS_MAX).contains(&events.len()) {
            let count = events.len();
            return Err(format!("{count} events, expected 1 to {EVENTS_MAX}"));
        }
        for event in &mut events {
            if !event.order_id.is_empty() && event.order_id != order_id {
                return Err(format!("an event of order {:?}", event.order_id));
            }
            event.order_id.clone_from(&order_id);
            within("idempotency_key", &event.idempotency_key, KEY_BYTES_MAX)?;
            if event.fact.is_none() {
                return Err("an event without a fact".to_owned());
            }
        }
        let mut keys: Vec<_> = events.iter().map(|event| &event.idempotency_key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two events with the same idempotency_key".to_owned());
        }
        Ok(Self {
            order_id,
            expected_version,
            events,
        })
    }
}

/// An order is paid for under its id: one that payment cannot write down would never end.
fn may_be_in_a_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)
}

fn within(name: &str, text: &str, bytes_max: usize) -> Result<(), String> {
    match (1..=bytes_max).contains(&text.len()) {
        true => Ok(()),
        false => Err(format!(
            "{name} has {} bytes, expected 1 to {bytes_max}",
            text.len()
        )),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    New,
    /// It is there, from the first of these seqs to the last: answer as the first time.
    Known { first: u64, last: u64 },
    /// The order has this many facts, which is not what the caller thought.
    Conflict { version: u32 },
    /// Some of its keys are there and others are not: these were never one append.
    Mixed,
    /// There is no room for another order.
    Full,
    /// There is none for so many facts of one order.
    Crowded,
}

/// `seqs` are where the keys of the append are in the log already. A repeated append is known
/// whatever version it expects: the order has moved on since, and by this very append. A log
/// without room takes no new orders; those that it took come to their end all the same.
pub fn judge(version: u32, expected_version: u32, seqs: &[Option<u64>], has_room: bool) -> Verdict {
    let known: Vec<u64> = seqs.iter().copied().flatten().collect();
    match (known.first(), known.last()) {
        (Some(&first), Some(&last)) if known.len() == seqs.len() => {
            // One append has consecutive seqs, in the order of its events.
            match known.windows(2).all(|pair| pair[1] == pair[0] + 1) {
                true => Verdict::Known { first, last },
                false => Verdict::Mixed,
            }
        }
        (Some(_), _) => Verdict::Mixed,
        _ if version != expected_version => Verdict::Conflict { version },
        _ if seqs.len() as u64 + u64::from(version) > u64::from(FACTS_MAX) => Verdict::Crowded,
        _ if version == 0 && !has_room => Verdict::Full,
        _ => Verdict::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::OrderConfirmed;
    use crate::pb::order_event::Fact;

    #[test]
    fn a_repeated_append_is_known_even_though_the_version_moved_on() {
        let verdict = judge(7, 0, &[Some(3), Some(4)], true);
        assert_eq!(verdict, Verdict::Known { first: 3, last: 4 });
        assert_eq!(judge(7, 0, &[None], true), Verdict::Conflict { version: 7 });
        assert_eq!(judge(7, 7, &[None], true), Verdict::New);
    }

    #[test]
    fn keys_of_two_appends_are_not_one() {
        assert_eq!(judge(7, 7, &[Some(3), None], true), Verdict::Mixed);
        assert_eq!(judge(7, 7, &[Some(3), Some(5)], true), Verdict::Mixed);
        assert_eq!(judge(7, 7, &[Some(4), Some(3)], true), Verdict::Mixed);
    }

    #[test]
    fn without_room_an_order_that_was_taken_goes_on_and_no_other_begins() {
        assert_eq!(judge(0, 0, &[None], false), Verdict::Full);
        assert_eq!(judge(1, 1, &[None], false), Verdict::New);
        let again = judge(1, 0, &[Some(9)], false);
        assert_eq!(again, Verdict::Known { first: 9, last: 9 });
        let last = FACTS_MAX - 1;
        assert_eq!(judge(last, last, &[None], true), Verdict::New);
        assert_eq!(judge(last, last, &[None, None], true), Verdict::Crowded);
    }

    fn confirmed(key: &str) -> OrderEvent {
        OrderEvent {
            idempotency_key: key.to_owned(),
            fact: Some(Fact::OrderConfirmed(OrderConfirmed {})),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_no_append_is_refused_by_what_is_wrong() {
        let request = |order_id: &str, events: &[OrderEvent]| AppendRequest {
            order_id: order_id.to_owned(),
            expected_version: 0,
            events: events.to_vec(),
        };
        let foreign = OrderEvent {
            order_id: "b".to_owned(),
            ..confirmed("k")
        };
        let empty = OrderEvent {
            fact: None,
            ..confirmed("k")
        };
        for (request, word) in [
            (request("", &[confirmed("k")]), "order_id"),
            (request(&"a".repeat(65), &[confirmed("k")]), "order_id"),
            (request("a b", &[confirmed("k")]), "order_id"),
            (request("a/b", &[confirmed("k")]), "order_id"),
            (request("ä", &[confirmed("k")]), "order_id"),
            (request("a", &[]), "0 events"),
            (request("a", &vec![confirmed("k"); 17]), "17 events"),
            (request("a", &[confirmed("")]), "idempotency_key"),
            (request("a", &[confirmed("k"), confirmed("k")]), "same"),
            (request("a", &[foreign]), "order \"b\""),
            (request("a", &[empty]), "without a fact"),
        ] {
            let refusal = Append::parse(request).expect_err(word);
            assert!(refusal.contains(word), "{refusal}");
        }
        for order_id in ["a", "AZ_az.09:-"] {
            Append::parse(request(order_id, &[confirmed("k")])).expect("valid");
        }
    }
}
