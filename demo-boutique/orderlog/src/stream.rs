//! Streams of facts, each no more than a place in the log: they are asked for the next fact when the
//! subscriber has room for it, and look into the log then.

use std::pin::Pin;

use boutique_chassis::server::{GoingAway, gone};
use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::credit::Credit;
use crate::log::Log;
use crate::pb::subscribe_acked_request::Message;
use crate::pb::{OrderEvent, SubscribeAckedRequest};
use crate::service::storage;

pub(crate) type Facts = Pin<Box<dyn Stream<Item = Result<OrderEvent, Status>> + Send>>;

/// Facts that are looked at in one go while none of them is wanted; then others get their turn.
const SKIPPED_MAX: u32 = 256;

/// A place in the log.
pub(crate) struct Place {
    log: Log,
    head: watch::Receiver<u64>,
    next: u64,
    /// Field numbers of the facts that are wanted; none is all.
    types: Vec<i32>,
}

impl Place {
    pub(crate) fn new(log: Log, from_seq: u64, types: Vec<i32>) -> Self {
        Self {
            head: log.head(),
            log,
            next: from_seq.max(1),
            types,
        }
    }

    /// The next that is wanted, as soon as there is one. To stop waiting for it loses nothing.
    async fn next(&mut self) -> Result<OrderEvent, Status> {
        let mut skipped = 0;
        loop {
            let next = self.next;
            self.head
                .wait_for(|head| *head >= next)
                .await
                .map_err(|_| Status::unavailable("the log is closed"))?;
            let event = self.log.event(next).map_err(storage)?;
            let event = event.ok_or_else(|| Status::data_loss(format!("seq {next} is missing")))?;
            self.next += 1;
            if self.wants(&event) {
                return Ok(event);
            }
            skipped += 1;
            if skipped % SKIPPED_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn wants(&self, event: &OrderEvent) -> bool {
        self.types.is_empty() || self.types.contains(&event.fact_type())
    }
}

/// What is there now and what will be, until the service goes away.
pub(crate) fn subscribe(place: Place, going_away: GoingAway) -> Facts {
    Box::pin(unfold(Some((place, going_away)), |state| async move {
        let (mut place, going_away) = state?;
        tokio::select! {
            biased;
            () = gone(going_away.clone()) => None,
            event = place.next() => {
                let state = event.is_ok().then_some((place, going_away));
                Some((event, state))
            }
        }
    }))
}

/// What is there now: of one order, or at most so many of all.
pub(crate) fn read(log: Log, mut next: Cursor) -> Facts {
    Box::pin(unfold(Some(log), move |state| {
        let step = state.and_then(|log| match next.advance(&log) {
            Ok(event) => event.map(|event| (Ok(event), Some(log))),
            Err(status) => Some((Err(status), None)),
        });
        std::future::ready(step)
    }))
}

/// Which fact a reader wants next.
pub(crate) enum Cursor {
    All {
        next: u64,
        /// The last that there was when the reading began, or that is wanted.
        last: u64,
    },
    Order {
        order_id: String,
        version: u32,
        from_seq: u64,
        left: u64,
    },
}

impl Cursor {
    fn advance(&mut self, log: &Log) -> Result<Option<OrderEvent>, Status> {
        let seq = match self {
            Self::All { next, last } if *next <= *last => {
                *next += 1;
                Some(*next - 1)
            }
            Self::Order { left: 1.., .. } => self.of_order(log)?,
            Self::All { .. } | Self::Order { .. } => None,
        };
        match seq {
            Some(seq) => log.event(seq).map_err(storage),
            None => Ok(None),
        }
    }

    fn of_order(&mut self, log: &Log) -> Result<Option<u64>, Status> {
        let Self::Order {
            order_id,
            version,
            from_seq,
            left,
        } = self
        else {
            return Ok(None);
        };
        loop {
            *version += 1;
            let seq = log.seq_of(order_id, *version).map_err(storage)?;
            if seq.is_none_or(|seq| seq >= *from_seq) {
                *left -= 1;
                return Ok(seq);
            }
        }
    }
}

/// A subscriber that says how many it wants.
pub(crate) struct Acked {
    pub(crate) log: Log,
    pub(crate) consumer: String,
    pub(crate) place: Place,
    pub(crate) said: Streaming<SubscribeAckedRequest>,
    pub(crate) going_away: GoingAway,
    pub(crate) credit: Credit,
}

impl Acked {
    pub(crate) fn stream(self) -> Facts {
        Box::pin(unfold(Some(self), |state| async move {
            let mut this = state?;
            match this.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(this))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<OrderEvent>, Status> {
        loop {
            tokio::select! {
                // What the subscriber says comes first: there is little of it, and it never waits behind facts.
                biased;
                () = gone(self.going_away.clone()) => return Ok(None),
                said = self.said.message() => match said? {
                    Some(said) => self.hear(said)?,
                    // It said all it wanted to say: nobody would ever grant credit again.
                    None => return Ok(None),
                },
                event = self.place.next(), if self.credit.is_open() => {
                    self.credit.spend();
                    return event.map(Some);
                }
            }
        }
    }

    fn hear(&mut self, said: SubscribeAckedRequest) -> Result<(), Status> {
        match said.message {
            Some(Message::RequestN(count)) => {
                self.credit.request(count).map_err(Status::invalid_argument)
            }
            Some(Message::Ack(seq)) if seq >= self.place.next => {
                // What it skipped it would never be sent again.
                Err(Status::invalid_argument(format!(
                    "an ack of seq {seq}, and {} is not sent yet",
                    self.place.next
                )))
            }
            Some(Message::Ack(seq)) => Ok(self.log.ack(&self.consumer, seq)?),
            Some(Message::Open(_)) => Err(Status::invalid_argument("open comes once, and first")),
            None => Err(Status::invalid_argument("a message that says nothing")),
        }
    }
}
