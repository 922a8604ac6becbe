//! Facts that the order log is told from beside it, so that a subscriber that is slow has much before it; and how much
//! that is.

use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use serde::Deserialize;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::knobs::{AnyError, channel};
use super::stage::Stage;
use crate::client::Client;
use crate::error::{Error, Result};

const LOG: &str = "orderlog/0";
/// On the pod's loopback, where nothing is redirected: what is told passes by the sidecars that are measured.
const PORT: u16 = 7300;
const APPEND: &str = "/boutique.events.v1.OrderLog/Append";
const READ: &str = "/boutique.events.v1.OrderLog/Read";
/// The log takes 64 KiB in a message and 16 facts in an append.
const FACTS_PER_APPEND: u32 = 15;
const REASON_MAX: usize = 4000;
/// An order has 32 facts at most.
const FACTS_MAX: u32 = 32;
/// Between appends, so that they are no load that visitors feel.
const PAUSE: Duration = Duration::from_millis(40);
const MIB: f64 = 1_048_576.0;

/// Orders of nobody, each cancelled so often. Told in `setup` that they are there, they are none of those that a run counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cancellations {
    pub orders: u32,
    /// Facts that each of them has already.
    #[serde(default)]
    pub after: u32,
    /// And gets now.
    pub facts: u32,
    /// How long the reason is that each of these gives, in bytes.
    #[serde(default)]
    pub reason: usize,
}

/// Of `boutique.events.v1.OrderEvent`, what is said here.
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(string, tag = "2")]
    order_id: String,
    #[prost(string, tag = "7")]
    idempotency_key: String,
    #[prost(message, optional, tag = "17")]
    order_confirmed: Option<()>,
    #[prost(message, optional, tag = "18")]
    order_cancelled: Option<OrderCancelled>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OrderCancelled {
    #[prost(string, tag = "1")]
    reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendRequest {
    #[prost(string, tag = "1")]
    order_id: String,
    #[prost(uint32, tag = "2")]
    expected_version: u32,
    #[prost(message, repeated, tag = "3")]
    events: Vec<Event>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ReadRequest {
    #[prost(uint64, tag = "1")]
    from_seq: u64,
}

impl Cancellations {
    pub(super) fn mistake(&self) -> Option<String> {
        if self.orders == 0 || self.facts == 0 {
            return Some("no order that is cancelled is no backlog".into());
        }
        if self.after + self.facts > FACTS_MAX || self.reason > REASON_MAX {
            return Some(format!(
                "an order has {FACTS_MAX} facts at most, and a reason {REASON_MAX} bytes"
            ));
        }
        None
    }

    pub(super) fn describe(&self) -> String {
        let facts = self.orders * self.facts;
        let mib = f64::from(facts) * self.reason as f64 / MIB;
        format!("the log is told {facts} facts, {mib:.1} MiB")
    }

    fn appends(&self) -> impl Iterator<Item = AppendRequest> + '_ {
        let orders = 1..=self.orders;
        orders.flat_map(move |order| {
            let (begin, end) = (self.after, self.after + self.facts);
            let parts = (begin..end).step_by(FACTS_PER_APPEND as usize);
            parts.map(move |version| AppendRequest {
                order_id: format!("backlog-{order}"),
                expected_version: version,
                events: (version..end.min(version + FACTS_PER_APPEND))
                    .map(|place| self.event(place))
                    .collect(),
            })
        })
    }

    fn event(&self, place: u32) -> Event {
        let reason = ".".repeat(self.reason);
        Event {
            idempotency_key: format!("cancelled-{place}"),
            order_cancelled: Some(OrderCancelled { reason }),
            ..Event::default()
        }
    }

    pub(super) async fn tell(&self, stage: &Stage) -> Result<()> {
        let lab = stage.shop().lab().client();
        let told = async {
            let mut log = log(lab).await?;
            for append in self.appends() {
                log.ready().await?;
                let codec = ProstCodec::<AppendRequest, ()>::default();
                let path = PathAndQuery::from_static(APPEND);
                log.unary(tonic::Request::new(append), path, codec).await?;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        told.await
            .map_err(|error: AnyError| Error::Request(format!("{LOG} is told facts: {error}")))
    }
}

async fn log(lab: &Client) -> Result<Grpc<tonic::transport::Channel>, AnyError> {
    Ok(Grpc::new(channel(lab, LOG, PORT).await?))
}

/// MiB of facts that the log has for the notifier and that nobody was mailed of.
pub(super) async fn waiting(stage: &Stage) -> Result<f64> {
    let lab = stage.shop().lab();
    let last = "sed -n 's/^X-Order-Seq: //p' \"${MBOX_FILE:-/data/notifier.mbox}\" | tail -n 1";
    let output = lab.exec(Some("notifier/0"), &["sh", "-c", last])?;
    // No mail yet: none of them was mailed.
    let mailed: u64 = output.stdout.trim().parse().unwrap_or_default();
    let read = async {
        let mut log = log(lab.client()).await?;
        log.ready().await?;
        let from = ReadRequest {
            from_seq: mailed + 1,
        };
        let codec = ProstCodec::<ReadRequest, Event>::default();
        let path = PathAndQuery::from_static(READ);
        let events = log.server_streaming(tonic::Request::new(from), path, codec);
        let mut events = events.await?.into_inner();
        let mut bytes = 0;
        while let Some(event) = events.message().await? {
            bytes += for_the_notifier(&event);
        }
        Ok(bytes as f64 / MIB)
    };
    read.await
        .map_err(|error: AnyError| Error::Request(format!("{LOG} is read: {error}")))
}

/// Bytes of a fact that it is told; it asks for no others.
fn for_the_notifier(event: &Event) -> usize {
    match event.order_confirmed.is_some() || event.order_cancelled.is_some() {
        true => prost::Message::encoded_len(event),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn told(text: &str) -> Cancellations {
        serde_saphyr::from_str(text).expect("valid")
    }

    #[test]
    fn each_order_gets_its_facts_one_after_the_other_in_appends_that_the_log_takes() {
        let all = told("{orders: 2, after: 1, facts: 31, reason: 4000}");
        assert_eq!(all.mistake(), None);
        let appends: Vec<AppendRequest> = all.appends().collect();
        let of = |append: &AppendRequest| {
            let facts = append.events.len();
            (append.order_id.clone(), append.expected_version, facts)
        };
        let of_each = |order: &str| {
            [(1, 15), (16, 15), (31, 1)].map(|(version, facts)| (order.into(), version, facts))
        };
        let expected = [of_each("backlog-1"), of_each("backlog-2")].concat();
        assert_eq!(appends.iter().map(of).collect::<Vec<_>>(), expected);
        assert!(
            appends
                .iter()
                .all(|append| append.encoded_len() <= 64 * 1024)
        );
        let keys = appends[..3].iter().flat_map(|append| &append.events);
        let mut keys: Vec<&str> = keys.map(|event| &*event.idempotency_key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 31, "none is taken for another");
        let facts = appends.iter().flat_map(|append| &append.events);
        let bytes: usize = facts.map(for_the_notifier).sum();
        assert!(bytes > 2 * 31 * 4000, "{bytes}");
    }

    #[test]
    fn what_the_log_would_refuse_is_a_mistake() {
        for text in [
            "{orders: 0, facts: 1}",
            "{orders: 1, facts: 0}",
            "{orders: 1, after: 2, facts: 31}",
            "{orders: 1, facts: 1, reason: 4001}",
        ] {
            assert!(told(text).mistake().is_some(), "{text}");
        }
    }

    #[test]
    fn only_ends_of_orders_are_for_the_notifier() {
        let confirmed = Event {
            order_confirmed: Some(()),
            ..Event::default()
        };
        assert!(for_the_notifier(&confirmed) > 0);
        let placed = Event {
            order_id: "a".into(),
            ..Event::default()
        };
        assert_eq!(for_the_notifier(&placed), 0);
    }
}
