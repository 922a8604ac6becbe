//! Says along with each answer how busy this app is, where it is, and only to sidecars that have proven who they are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Answer, Call, admission};
use crate::error::Error;
use crate::head;
use crate::policy::load::stamp;
use crate::request::Request;

#[derive(Clone)]
pub struct LoadLayer {
    pub admission: Arc<admission::Shared>,
}

#[derive(Clone)]
pub struct Load<S> {
    admission: Arc<admission::Shared>,
    inner: S,
}

impl<S> Layer<S> for LoadLayer {
    type Service = Load<S>;

    fn layer(&self, inner: S) -> Load<S> {
        Load {
            admission: self.admission.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Load<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Stamped<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        // How busy a service is, is nobody's business but the mesh's.
        let meshed = request.context.caller.is_some();
        Stamped {
            admission: meshed.then(|| self.admission.clone()),
            call: self.inner.call(request),
        }
    }
}

pin_project! {
    pub struct Stamped<F> {
        #[pin]
        call: F,
        admission: Option<Arc<admission::Shared>>,
    }
}

impl<F: Future<Output = Answer>> Future for Stamped<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let mut answer = ready!(this.call.poll(cx));
        if let (Ok(response), Some(admission)) = (&mut answer, this.admission)
            && let Some(value) = stamp(admission.utilisation())
        {
            response.headers_mut().insert(&head::LOAD, value);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tower::{ServiceBuilder, service_fn};
    use weir_config::snapshot::{InboundLimits, Mode};
    use weir_config::units::Count;

    use super::*;
    use crate::body::Body;
    use crate::layer::admission::AdmissionLayer;
    use crate::request::Context as RequestContext;

    /// What is said of a limit of ten while `busy` calls are in flight, that of the answer included.
    async fn said(busy: usize, caller: Option<&str>) -> Option<String> {
        let mut limits = InboundLimits::default();
        limits.adaptive.mode = Mode::Enforce;
        (limits.adaptive.min, limits.adaptive.max) = (Count::of(10), Count::of(10));
        let admission = Arc::new(admission::Shared::new(&limits));
        let app = service_fn(|_: Box<Request>| async { Ok(Response::new(Body::full("x".into()))) });
        let mut stack = ServiceBuilder::new()
            .layer(LoadLayer {
                admission: admission.clone(),
            })
            .layer(AdmissionLayer { admission })
            .service(app);
        let mut answers = Vec::new();
        for _ in 0..busy {
            let request = Box::new(Request {
                head: http::Request::new(()).into_parts().0,
                body: Body::empty(),
                context: RequestContext {
                    caller: caller.map(Into::into),
                    upgrade: false,
                    ..RequestContext::opaque(0)
                },
            });
            let answer = stack.call(request).await;
            answers.push(answer.unwrap_or_else(|error| panic!("there is room: {error}")));
        }
        let headers = answers.last().expect("one at least").headers();
        let value = headers.get(&head::LOAD)?.to_str().expect("digits");
        Some(value.to_owned())
    }

    /// Planted: stamping whoever asks tells strangers when a flood begins to hurt.
    #[tokio::test]
    async fn a_caller_of_the_mesh_hears_of_a_busy_app_and_a_stranger_nothing() {
        assert_eq!(said(4, Some("spiffe://a/ns/b/sa/c")).await, None);
        assert_eq!(
            said(7, Some("spiffe://a/ns/b/sa/c")).await.as_deref(),
            Some("70")
        );
        assert_eq!(
            said(10, Some("spiffe://a/ns/b/sa/c")).await.as_deref(),
            Some("100")
        );
        assert_eq!(said(10, None).await, None);
    }
}
