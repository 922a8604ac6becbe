//! A request and all its attempts end by its deadline: the caller's own, or the policy's where that is earlier.

use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::{Layer, Service};

use super::{Answer, Call};
use crate::error::Error;
use crate::policy::deadline::Deadline as Policy;
use crate::request::Request;

#[derive(Clone, Copy)]
pub struct DeadlineLayer {
    /// `None`: only the caller's own deadline holds.
    pub limit: Option<Duration>,
}

#[derive(Clone)]
pub struct Deadline<S> {
    limit: Option<Duration>,
    inner: S,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            limit: self.limit,
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Deadline<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<InTime<S::Future>, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        let context = &mut request.context;
        let by_rule = (context.terms.as_ref()).is_some_and(|terms| terms.sets_deadline());
        if let Some(limit) = self.limit.filter(|_| !by_rule) {
            context.deadline = context.deadline.min(Policy::after(limit, context.begun));
        }
        if context.deadline.is_over(context.received) {
            // Inherited: nobody waits for what the app still wants to begin.
            return Either::Right(std::future::ready(Err(Error::DeadlineExceeded {
                at: None,
            })));
        }
        let deadline = context.deadline.instant();
        Either::Left(InTime {
            call: self.inner.call(request),
            timer: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        })
    }
}

pin_project! {
    /// A call, and the timer that ends it; the body of the answer inherits the timer.
    pub struct InTime<F> {
        #[pin]
        call: F,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = Answer>> Future for InTime<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let mut answer = match (this.call.poll(cx), this.timer.as_mut()) {
            (Poll::Ready(answer), _) => answer,
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(timer)) => {
                ready!(timer.as_mut().poll(cx));
                Err(Error::DeadlineExceeded { at: None })
            }
        };
        if let (Ok(response), Some(timer)) = (&mut answer, this.timer.take())
            && response.status() != http::StatusCode::SWITCHING_PROTOCOLS
        {
            response.body_mut().end_at(timer);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;
    use tower::service_fn;

    use super::*;
    use crate::body::{Body, Guard};
    use crate::request::Context as RequestContext;

    const LIMIT: Duration = Duration::from_secs(2);

    fn request() -> Box<Request> {
        Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext::opaque(0),
        })
    }

    async fn call<F>(
        limit: Option<Duration>,
        answer: impl Fn() -> F + Clone + Send + 'static,
    ) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let service = service_fn(move |_: Box<Request>| answer());
        DeadlineLayer { limit }.layer(service).call(request()).await
    }

    /// A response of which the head and two bytes of five have come, and no more will.
    async fn half_an_answer() -> Answer {
        let (client, mut server) = tokio::io::duplex(1024);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client));
        let (mut sender, connection) = handshake.await.expect("nothing is sent yet");
        tokio::spawn(connection);
        tokio::spawn(async move {
            let _ = server.read(&mut [0; 1024]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab";
            server.write_all(head).await.expect("it is open");
            std::future::pending::<()>().await;
        });
        let request = http::Request::new(Body::empty());
        let response = sender.send_request(request).await.expect("a head");
        Guard::new(|_| ()).settle(Ok(response.map(Body::from)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_by_its_deadline() {
        let started = Instant::now();
        let answer = call(Some(LIMIT), std::future::pending).await;
        assert!(matches!(answer, Err(Error::DeadlineExceeded { .. })));
        assert_eq!(started.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_an_answer_that_stops_half_way() {
        let started = Instant::now();
        let response = call(Some(LIMIT), half_an_answer).await.expect("a head");
        let late = tokio::time::timeout(2 * LIMIT, response.into_body().collect());
        assert!(late.await.expect("it ends").is_err());
        assert_eq!(started.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_nothing_ends() {
        let answer = call(None, std::future::pending);
        let forever = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(forever, answer).await.is_err());
    }
}
