//! At most so many requests in flight; a bounded number more wait, for a bounded time; the rest is refused at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::Mode;

use super::{AnswerFuture, Call, Guarded};
use crate::body::Duty;
use crate::error::Error;
use crate::policy::concurrency::{Abandoned, Entry, Limit as Policy};
use crate::policy::deadline::Deadline;
use crate::policy::outcome::Outcome;
use crate::policy::queue::WaiterId;
use crate::request::Request;
use crate::telemetry::{Direction, would_refuse};

/// The limit of a service, shared by all workers, and those who wait at it.
pub struct Shared {
    state: Mutex<State>,
    service: Arc<str>,
}

struct State {
    policy: Policy,
    /// Observe: counts who would have had to wait, and lets everybody in.
    mode: Mode,
    waiting: HashMap<WaiterId, oneshot::Sender<()>>,
    queue_timeout: Duration,
}

/// A place among those in flight, given back on drop.
pub struct Permit(Arc<Shared>);

impl Shared {
    pub fn new(service: Arc<str>, in_flight: u32, queue: u32, queue_timeout: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                policy: Policy::new(in_flight, queue),
                mode: Mode::Enforce,
                waiting: HashMap::new(),
                queue_timeout,
            }),
            service,
        }
    }

    pub fn reconfigure(&self, in_flight: u32, queue: u32, queue_timeout: Duration) {
        let mut state = self.state.lock().expect("no panic while locked");
        state.queue_timeout = queue_timeout;
        state.policy.reconfigure(in_flight, queue);
        while let Some(next) = state.policy.admit_next() {
            state.wake(next);
        }
    }

    /// Those who wait when it begins to observe wait no longer.
    pub fn set_mode(&self, mode: Mode) {
        let mut state = self.state.lock().expect("no panic while locked");
        state.mode = mode;
        if mode == Mode::Observe {
            while let Some(next) = state.policy.admit_any() {
                state.wake(next);
            }
        }
    }

    pub fn observes(&self) -> bool {
        self.state.lock().expect("no panic while locked").mode == Mode::Observe
    }

    /// (in flight, waiting)
    pub fn load(&self) -> (u32, u32) {
        let state = self.state.lock().expect("no panic while locked");
        (state.policy.in_flight(), state.policy.queued())
    }

    pub fn in_flight_max(&self) -> u32 {
        let state = self.state.lock().expect("no panic while locked");
        state.policy.in_flight_max()
    }

    /// In flight over the limit: 0.0 idle, 1.0 full.
    pub fn utilisation(&self) -> f32 {
        let state = self.state.lock().expect("no panic while locked");
        state.policy.utilisation()
    }

    /// Without waiting where there is room, so that the common case needs no future of its own.
    fn enter(self: &Arc<Self>) -> Result<Result<Permit, Wait>, Error> {
        let mut state = self.state.lock().expect("no panic while locked");
        if state.mode == Mode::Observe {
            let within = state.policy.enter_regardless();
            drop(state);
            if !within {
                would_refuse(Direction::Outbound, &self.service, "in-flight-limit");
            }
            return Ok(Ok(Permit(self.clone())));
        }
        match state.policy.enter() {
            Entry::Admitted => Ok(Ok(Permit(self.clone()))),
            Entry::Queued(id) => {
                let (wake, woken) = oneshot::channel();
                state.waiting.insert(id, wake);
                let limit = state.queue_timeout;
                drop(state);
                Ok(Err(Wait {
                    place: Place {
                        id,
                        shared: Some(self.clone()),
                    },
                    service: self.service.clone(),
                    woken,
                    limit,
                }))
            }
            Entry::Full => Err(Error::QueueFull {
                service: self.service.to_string(),
            }),
        }
    }

    fn leave(&self) {
        let mut state = self.state.lock().expect("no panic while locked");
        if let Some(next) = state.policy.leave() {
            state.wake(next);
        }
    }
}

impl State {
    /// `next` has been admitted. If its caller goes away at this very moment, its [`Place`] gives the permit back.
    fn wake(&mut self, next: WaiterId) {
        if let Some(wake) = self.waiting.remove(&next) {
            let _ = wake.send(());
        }
    }
}

/// It has nothing to learn from the outcome; it only stays until there is one.
impl Duty for Permit {
    fn done(self, _: Outcome, _: Instant) {}
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

struct Wait {
    place: Place,
    service: Arc<str>,
    woken: oneshot::Receiver<()>,
    limit: Duration,
}

/// A place in the queue, left on drop.
struct Place {
    id: WaiterId,
    /// `None` once it has become a permit.
    shared: Option<Arc<Shared>>,
}

impl Place {
    fn into_permit(mut self) -> Permit {
        Permit(self.shared.take().expect("a place becomes a permit once"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let mut state = shared.state.lock().expect("no panic while locked");
        state.waiting.remove(&self.id);
        if state.policy.abandon(self.id) == Abandoned::Granted
            && let Some(next) = state.policy.leave()
        {
            state.wake(next);
        }
    }
}

impl Wait {
    /// Not beyond the deadline of the call either: whose time is up here was refused here, and nobody was asked.
    async fn permit(self, deadline: Deadline) -> Result<Permit, Error> {
        let started = Instant::now();
        let until = Deadline::after(self.limit, started).min(deadline);
        let turn = async {
            match until.instant() {
                Some(until) => tokio::time::timeout_at(until, self.woken).await,
                None => Ok(self.woken.await),
            }
        };
        match turn.await {
            Ok(Ok(())) => Ok(self.place.into_permit()),
            _ => Err(Error::QueueTimeout {
                service: self.service.to_string(),
                waited: started.elapsed(),
            }),
        }
    }
}

#[derive(Clone)]
pub struct LimitLayer {
    pub limit: Arc<Shared>,
}

#[derive(Clone)]
pub struct Limit<S> {
    limit: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit {
            limit: self.limit.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Limit<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Guarded<S::Future, Permit>, AnswerFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        match self.limit.enter() {
            Ok(Ok(permit)) => Either::Left(Guarded::new(self.inner.call(request), Some(permit))),
            Ok(Err(wait)) => {
                let mut inner = self.inner.clone();
                Either::Right(Box::pin(async move {
                    let permit = wait.permit(request.context.deadline).await?;
                    Guarded::new(inner.call(request), Some(permit)).await
                }))
            }
            Err(error) => Either::Right(Box::pin(std::future::ready(Err(error)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(in_flight: u32) -> Arc<Shared> {
        let timeout = Duration::from_secs(1);
        Arc::new(Shared::new(
            "limit/observed:1".into(),
            in_flight,
            10,
            timeout,
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_observes_lets_everybody_in_and_counts_whom_it_would_not_have() {
        let limit = shared(2);
        let held: Vec<_> = (0..2).map(|_| limit.enter()).collect();
        let waiting = limit
            .enter()
            .expect("there is a queue")
            .err()
            .expect("it is full");
        limit.set_mode(Mode::Observe);
        let waited = waiting.permit(Deadline::NEVER).await;
        assert!(waited.is_ok(), "who waited goes on");
        let more: Vec<_> = (0..5).map(|_| limit.enter()).collect();
        assert!(more.iter().all(|entered| matches!(entered, Ok(Ok(_)))));
        assert_eq!(limit.load(), (8, 0));
        drop((held, waited, more));
        assert_eq!(limit.load(), (0, 0), "every place is given back");
        let metrics = String::from_utf8(crate::telemetry::render()).expect("text");
        let counted = "weir_would_refuse_total{direction=\"outbound\",reason=\"in-flight-limit\",service=\"limit/observed:1\"} 5";
        assert!(metrics.contains(counted), "{metrics}");
    }

    #[tokio::test(start_paused = true)]
    async fn when_it_enforces_again_it_lets_in_nobody_until_there_is_room() {
        let limit = shared(1);
        limit.set_mode(Mode::Observe);
        let held: Vec<_> = (0..3).map(|_| limit.enter()).collect();
        limit.set_mode(Mode::Enforce);
        let waiting = limit
            .enter()
            .expect("there is a queue")
            .err()
            .expect("it is full");
        assert!(
            waiting.permit(Deadline::NEVER).await.is_err(),
            "three are in flight, one may be"
        );
        drop(held);
        assert!(matches!(limit.enter(), Ok(Ok(_))));
    }

    fn queued(limit: &Arc<Shared>) -> Wait {
        let entered = limit.enter().expect("there is a queue");
        entered.err().expect("it is full")
    }

    /// The place is its own already, but it has not run since; whoever waits behind it must not wait for nobody.
    #[tokio::test(start_paused = true)]
    async fn who_leaves_in_the_very_moment_of_its_turn_passes_the_place_on() {
        let limit = shared(1);
        let held = limit.enter();
        let (leaves, waits) = (queued(&limit), queued(&limit));
        drop(held);
        assert_eq!(limit.load(), (1, 1), "handed over, not thrown open");
        drop(leaves);
        let permit = waits.permit(Deadline::NEVER).await;
        assert!(permit.is_ok(), "the place went on");
        drop(permit);
        assert_eq!(limit.load(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_before_its_turn_takes_no_place_from_anybody() {
        let limit = shared(1);
        let held = limit.enter();
        let (leaves, waits) = (queued(&limit), queued(&limit));
        drop(leaves);
        assert_eq!(limit.load(), (1, 1));
        drop(held);
        assert!(waits.permit(Deadline::NEVER).await.is_ok());
        assert_eq!(limit.load(), (0, 0));
    }
}
