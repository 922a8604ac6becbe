//! A duty that waits for the end of a call.

use http::Response;
use tokio::time::Instant;

use super::Body;
use super::watch::Watch;
use crate::error::Error;
use crate::policy::outcome::Outcome;

/// What has to be done when it is known how a call went.
pub trait Duty: Send + 'static {
    /// The head is there, or never will be.
    fn answered(&mut self, _: &Result<Response<Body>, Error>) {}

    /// `now`: read once for all who wait for the end of the same call.
    fn done(self, outcome: Outcome, now: Instant);
}

impl<F: FnOnce(Outcome) + Send + 'static> Duty for F {
    fn done(self, outcome: Outcome, _: Instant) {
        self(outcome);
    }
}

/// A duty that is done exactly once: with the outcome of the call, or as cancelled when it is dropped.
pub struct Guard<D: Duty>(Option<D>);

impl<D: Duty> Guard<D> {
    pub fn new(duty: D) -> Self {
        Self(Some(duty))
    }

    /// To note what has become known meanwhile.
    pub fn duty(&mut self) -> &mut D {
        self.0
            .as_mut()
            .expect("only settling takes it, and that consumes the guard")
    }

    /// Done now when there is no response; otherwise when the response's body has ended.
    pub fn settle(
        mut self,
        mut result: Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, Error> {
        let mut duty = self.0.take().expect("a guard is settled once");
        if let Ok(response) = &mut result
            && response.body().watch.is_none()
        {
            let watch = Watch::of(response);
            response.body_mut().watch = Some(Box::new(watch));
        }
        duty.answered(&result);
        match result
            .as_mut()
            .map(|response| &mut response.body_mut().watch)
        {
            Ok(watch) => {
                let watch = watch.as_mut().expect("it was made above, if not before");
                let inner = watch.guards.take();
                watch.guards = Some(Box::new(Around { inner, duty }));
            }
            Err(error) => duty.done(error.outcome(), Instant::now()),
        }
        result
    }
}

impl<D: Duty> Drop for Guard<D> {
    fn drop(&mut self) {
        if let Some(duty) = self.0.take() {
            duty.done(Outcome::Cancelled, Instant::now());
        }
    }
}

/// Guards that have been put around one another.
pub(super) trait Guards: Send {
    /// From the innermost to the outermost.
    fn done(self: Box<Self>, outcome: Outcome, now: Instant);
}

struct Around<D> {
    inner: Option<Box<dyn Guards>>,
    duty: D,
}

impl<D: Duty> Guards for Around<D> {
    fn done(self: Box<Self>, outcome: Outcome, now: Instant) {
        let Self { inner, duty } = *self;
        if let Some(inner) = inner {
            inner.done(outcome, now);
        }
        duty.done(outcome, now);
    }
}
