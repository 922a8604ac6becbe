//! `boutique.events.v1.OrderLog`.

use std::sync::Arc;

use boutique_chassis::chaos::Chaos;
use boutique_chassis::server::{GoingAway, gone, log as complain, traceparent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::append::{Append, FACTS_MAX, Verdict};
use crate::credit::Credit;
use crate::log::{Log, LogError};
use crate::pb::order_event::Fact;
use crate::pb::order_log_server::OrderLog;
use crate::pb::subscribe_acked_request::Message;
use crate::pb::{
    AppendRequest, AppendResponse, FactType, OrderEvent, ReadRequest, SubscribeAckedRequest,
    SubscribeRequest,
};
use crate::store::{Outcome, StoreError};
use crate::stream::{self, Acked, Cursor, Facts, Place};

/// Streams at once over all connections: each is a place in the log, and a few buffers of HTTP/2.
const STREAMS_MAX: usize = 256;
const TYPES_MAX: usize = 16;
const CONSUMER_BYTES_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct OrderLogService {
    log: Log,
    chaos: Chaos,
    going_away: GoingAway,
    streams: Arc<Semaphore>,
}

impl OrderLogService {
    pub fn new(log: Log, chaos: Chaos, going_away: GoingAway) -> Self {
        Self {
            log,
            chaos,
            going_away,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    async fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.chaos.strike().await?;
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| Status::resource_exhausted(format!("{STREAMS_MAX} streams are open")))
    }

    /// Whoever asks for what comes after a fact that is not there, has seen it in another log.
    fn place(&self, from_seq: u64, types: Vec<i32>) -> Result<Place, Status> {
        let last = self.log.last().map_err(storage)?;
        if from_seq > last + 1 {
            return Err(Status::out_of_range(format!(
                "this log ends at seq {last}: whoever wants seq {from_seq} has followed another one, and has to begin anew"
            )));
        }
        Ok(Place::new(self.log.clone(), from_seq, known(types)?))
    }

    async fn appended(&self, request: AppendRequest) -> Result<AppendResponse, Status> {
        let append = Append::parse(request).map_err(Status::invalid_argument)?;
        let expected_version = append.expected_version;
        match self.log.append(append).await? {
            Outcome::Appended { first, last }
            | Outcome::Refused(Verdict::Known { first, last }) => Ok(AppendResponse {
                first_seq: first,
                last_seq: last,
            }),
            Outcome::Refused(Verdict::Conflict { version }) => Err(Status::aborted(format!(
                "the order has {version} facts, not {expected_version}"
            ))),
            Outcome::Refused(Verdict::Mixed) => Err(Status::failed_precondition(
                "the order has some of these idempotency keys, but not of one append",
            )),
            Outcome::Refused(Verdict::Full) => Err(Status::resource_exhausted(format!(
                "no new orders: {}",
                self.log.fullness()
            ))),
            Outcome::Refused(Verdict::Crowded) => Err(Status::failed_precondition(format!(
                "an order has at most {FACTS_MAX} facts"
            ))),
            Outcome::Refused(Verdict::New) => Err(Status::internal("new, and yet refused")),
        }
    }
}

/// The stream, holding its permit until it is dropped.
fn counted(facts: Facts, permit: OwnedSemaphorePermit) -> Response<Facts> {
    Response::new(Box::pin(facts.map(move |fact| {
        let _held = &permit;
        fact
    })))
}

#[tonic::async_trait]
impl OrderLog for OrderLogService {
    type ReadStream = Facts;
    type SubscribeStream = Facts;
    type SubscribeAckedStream = Facts;

    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        trace(&mut request.events, &metadata);
        self.chaos.strike().await?;
        let answer = self.appended(request).await;
        if let Err(status) = &answer {
            complain("orderlog", status, &metadata);
        }
        answer.map(Response::new)
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Facts>, Status> {
        let permit = self.admit().await?;
        let ReadRequest {
            from_seq,
            limit,
            order_id,
        } = request.into_inner();
        let from_seq = from_seq.max(1);
        let limit = if limit == 0 { u64::MAX } else { limit };
        let cursor = if order_id.is_empty() {
            let head = *self.log.head().borrow();
            Cursor::All {
                next: from_seq,
                last: head.min(from_seq.saturating_add(limit - 1)),
            }
        } else {
            Cursor::Order {
                order_id,
                version: 0,
                from_seq,
                left: limit,
            }
        };
        Ok(counted(stream::read(self.log.clone(), cursor), permit))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Facts>, Status> {
        let permit = self.admit().await?;
        let SubscribeRequest { from_seq, types } = request.into_inner();
        let place = self.place(from_seq, types)?;
        let facts = stream::subscribe(place, self.going_away.clone());
        Ok(counted(facts, permit))
    }

    async fn subscribe_acked(
        &self,
        request: Request<Streaming<SubscribeAckedRequest>>,
    ) -> Result<Response<Facts>, Status> {
        let permit = self.admit().await?;
        let mut said = request.into_inner();
        let first = tokio::select! {
            biased;
            () = gone(self.going_away.clone()) => return Err(Status::unavailable("the log goes away")),
            first = said.message() => first?,
        };
        let Some(Message::Open(open)) = first.and_then(|said| said.message) else {
            return Err(Status::invalid_argument("the first message is open"));
        };
        if !(1..=CONSUMER_BYTES_MAX).contains(&open.consumer.len()) {
            return Err(Status::invalid_argument(format!(
                "consumer has {} bytes, expected 1 to {CONSUMER_BYTES_MAX}",
                open.consumer.len()
            )));
        }
        let from_seq = match open.from_seq {
            0 => self.log.acked(&open.consumer) + 1,
            from_seq => from_seq,
        };
        let acked = Acked {
            place: self.place(from_seq, open.types)?,
            log: self.log.clone(),
            consumer: open.consumer,
            said,
            going_away: self.going_away.clone(),
            credit: Credit::default(),
        };
        Ok(counted(acked.stream(), permit))
    }
}

/// Of a type that is none of these nothing would ever come.
fn known(types: Vec<i32>) -> Result<Vec<i32>, Status> {
    if types.len() > TYPES_MAX {
        return Err(Status::invalid_argument(format!(
            "{} types, expected at most {TYPES_MAX}",
            types.len()
        )));
    }
    let is_known =
        |&number: &i32| FactType::try_from(number).is_ok_and(|of| of != FactType::Unspecified);
    match types.iter().find(|number| !is_known(number)) {
        None => Ok(types),
        Some(number) => Err(Status::invalid_argument(format!(
            "there is no fact of type {number}"
        ))),
    }
}

/// The facts of a call belong to its trace, unless they say another.
fn trace(events: &mut [OrderEvent], metadata: &MetadataMap) {
    // version-trace-span-flags
    let Some(trace_id) = traceparent(metadata).and_then(|value| value.split('-').nth(1)) else {
        return;
    };
    if trace_id.len() != 32 || !trace_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return;
    }
    for event in events.iter_mut().filter(|event| event.trace_id.is_empty()) {
        event.trace_id = trace_id.to_owned();
    }
}

impl OrderEvent {
    /// The number that its fact has in `FactType`; 0 without one.
    pub fn fact_type(&self) -> i32 {
        let of = match &self.fact {
            None => FactType::Unspecified,
            Some(Fact::OrderPlaced(_)) => FactType::OrderPlaced,
            Some(Fact::StockReserved(_)) => FactType::StockReserved,
            Some(Fact::PaymentAuthorized(_)) => FactType::PaymentAuthorized,
            Some(Fact::PaymentDeclined(_)) => FactType::PaymentDeclined,
            Some(Fact::PaymentRefunded(_)) => FactType::PaymentRefunded,
            Some(Fact::OrderShipped(_)) => FactType::OrderShipped,
            Some(Fact::ShipmentFailed(_)) => FactType::ShipmentFailed,
            Some(Fact::OrderConfirmed(_)) => FactType::OrderConfirmed,
            Some(Fact::OrderCancelled(_)) => FactType::OrderCancelled,
        };
        of as i32
    }
}

pub(crate) fn storage(error: StoreError) -> Status {
    Status::from(LogError::from(error))
}

impl From<LogError> for Status {
    fn from(error: LogError) -> Self {
        let text = error.to_string();
        match error {
            LogError::Busy | LogError::Consumers => Self::resource_exhausted(text),
            // An append may be repeated, so this says that it should be.
            LogError::Unknown(_) | LogError::Store(StoreError::Storage(_) | StoreError::Closed) => {
                Self::unavailable(text)
            }
            LogError::Store(StoreError::Damaged { .. }) => Self::data_loss(text),
        }
    }
}
