//! Innermost: one try. Chooses an endpoint, sends the request, and tells the endpoint's gate and latency how it went.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::Either;
use http::Response;
use tokio::time::Instant;
use tower::Service;

use super::{Answer, AnswerFuture, fault};
use crate::body::{Body, Guard};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::member::Member;
use crate::policy::deadline::Deadline;
use crate::policy::retry::can_end;
use crate::request::{Request, Share};

/// A message or trailers follow a head at once, or, where Nagle meets a delayed ACK, 40 ms later. The head waits no longer.
const BEGUN_MAX: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Attempt<T = Sockets> {
    pub endpoints: Arc<Endpoints>,
    pub faults: Arc<fault::Shared>,
    pub transport: T,
}

/// How a request gets to its endpoint: the seam at which tests in paused time leave the sockets out.
pub trait Transport: Clone + Send + Sync + 'static {
    fn send(
        &self,
        of: &Endpoints,
        to: &Member,
        request: Box<Request>,
    ) -> impl Future<Output = Answer> + Send;
}

#[derive(Clone, Copy)]
pub struct Sockets;

impl Transport for Sockets {
    fn send(
        &self,
        of: &Endpoints,
        to: &Member,
        request: Box<Request>,
    ) -> impl Future<Output = Answer> + Send {
        to.endpoint.call(request, of.connector())
    }
}

impl<T: Transport> Service<Box<Request>> for Attempt<T> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> AnswerFuture {
        let (endpoints, transport) = (self.endpoints.clone(), self.transport.clone());
        let faults = self.faults.clone();
        Box::pin(async move {
            if endpoints.first().await {
                request.context.begun = Instant::now();
            }
            // Before the choice: whoever is chosen counts as in flight until its guard is settled.
            if request.context.deadline.is_over(request.context.begun) {
                return Err(Error::DeadlineExceeded { at: None });
            }
            request.tell_deadline(request.context.begun);
            let mut chosen = endpoints.choose_for_request(&request)?;
            if let Some(race) = &request.context.race {
                race.chose(chosen.member.address());
                chosen.race = Some(race.clone());
            }
            let replayable = request.context.replayable;
            let grpc = request.context.grpc;
            let has_second = request.context.may_be_repeated;
            let deadline = request.context.deadline;
            let share = request.context.share.take();
            let ends = Ends {
                deadline,
                try_until: request.context.try_until,
                share: share.as_ref(),
                endpoints: &endpoints,
            };
            let member = chosen.member.clone();
            let ejected = member.until_ejected(chosen.was_eligible());
            let guard = Guard::new(chosen);
            let fault = faults.of(&request);
            let injected = fault.as_ref().map(|fault| fault.policy());
            // Where it lies it stays: moved into the select, the largest future of a request would be here twice.
            let mut call = std::pin::pin!(match fault {
                None => Either::Left(transport.send(&endpoints, &member, request)),
                // Rare, and larger than the rest: every request would have room for it.
                Some(fault) => {
                    let sent = fault.send(&transport, &endpoints, &member, request);
                    Either::Right(Box::pin(sent))
                }
            });
            let mut result = tokio::select! {
                biased;
                result = &mut call => result,
                () = left(ejected, &ends), if replayable => {
                    Err(Error::Ejected { address: member.address() })
                }
                whole = ends.reached() => Err(if whole {
                    Error::DeadlineExceeded { at: Some(member.address()) }
                } else {
                    Error::PerTryTimeout { address: member.address() }
                }),
            };
            let is_late = grpc && result.as_mut().is_ok_and(has_yet_to_begin);
            if is_late && has_second {
                result = Box::pin(begun(result)).await;
            }
            guard.settle(match injected {
                Some(policy) => result.map_err(|error| in_whose_time(error, &policy)),
                None => result,
            })
        })
    }
}

/// A server may send the head of an answer before it knows that the call fails, and then says so in trailers. To whoever
/// may try again that is the same as a status in the head, as long as no message has passed (gRFC A6 has it so for the
/// head alone).
fn has_yet_to_begin(response: &mut Response<Body>) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    response.body_mut().poll_first(&mut nobody).is_pending()
}

/// Waits for what comes behind the head, but not for long: who streams may have nothing to say for hours.
async fn begun(mut result: Answer) -> Answer {
    if let Ok(response) = &mut result {
        let first = poll_fn(|cx| response.body_mut().poll_first(cx));
        let _ = tokio::time::timeout(BEGUN_MAX, first).await;
    }
    result
}

/// Who ran out of time while a fault held the call did so because of it.
fn in_whose_time(error: Error, policy: &Arc<str>) -> Error {
    match error {
        Error::Ejected { .. } | Error::PerTryTimeout { .. } | Error::DeadlineExceeded { .. } => {
            error.injected_by(policy)
        }
        other => other,
    }
}

/// Ends when its endpoint is out and another try is paid for. Many may wait there, some of whom are being served: given up
/// with nothing to follow, all of them would have failed.
async fn left(ejected: impl Future<Output = ()>, ends: &Ends<'_>) {
    ejected.await;
    let Some(share) = ends.share else {
        return;
    };
    while ends.another_can_end(Instant::now()) {
        match share.until_another(Instant::now()) {
            Some(Duration::ZERO) => return,
            Some(wait) => tokio::time::sleep(wait).await,
            None => break,
        }
    }
    std::future::pending().await
}

/// When a try has had its time.
struct Ends<'a> {
    deadline: Deadline,
    try_until: Deadline,
    share: Option<&'a Share>,
    /// How long another try would take.
    endpoints: &'a Endpoints,
}

impl Ends<'_> {
    /// Whether it was only the whole call that has, and the try no more than its share.
    async fn reached(&self) -> bool {
        let hard = self.deadline.min(self.try_until);
        let share_until = self.share.map(|share| share.until);
        let mut soft = share_until.unwrap_or(Deadline::NEVER);
        let mut has_more = false;
        loop {
            until(hard.min(soft)).await;
            let now = Instant::now();
            match self.share {
                // It would end too late, and so is not made.
                Some(_) if !hard.is_over(now) && !self.another_can_end(now) => {
                    soft = Deadline::NEVER;
                    has_more = true;
                }
                Some(share) if !hard.is_over(now) => {
                    // Given up with nothing to follow, the time that is left would be lost, and the work with it.
                    match share.until_another(now) {
                        Some(Duration::ZERO) => return false,
                        Some(wait) => {
                            soft = Deadline::after(wait, now);
                            has_more = true;
                        }
                        // From here on it is like any call that may not be repeated.
                        None => soft = Deadline::NEVER,
                    }
                }
                _ => return hard == self.deadline && !has_more,
            }
        }
    }

    /// Whether another try could end in time, so that it would be made.
    fn another_can_end(&self, now: Instant) -> bool {
        can_end(self.deadline.remaining(now), self.endpoints.p50(now))
    }
}

async fn until(deadline: Deadline) {
    match deadline.instant() {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
