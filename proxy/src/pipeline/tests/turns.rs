//! All calls of a route begin on one stack of layers, one after the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use tower::service_fn;

use super::*;

fn request() -> Box<Request> {
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: RequestContext::opaque(0),
    })
}

/// The first call does this while it is begun; the others are answered.
fn stack_of(
    first: impl Fn(&Stack) -> Option<AnswerFuture> + Clone + Send + Sync + 'static,
) -> Stack {
    let (own, calls) = (
        Arc::new(OnceLock::<Stack>::new()),
        Arc::new(AtomicU32::new(0)),
    );
    let stack = Stack::new(service_fn({
        let own = own.clone();
        move |_: Box<Request>| {
            let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            let within = is_first
                .then(|| first(own.get().expect("it is made")))
                .flatten();
            async move {
                match within {
                    Some(within) => within.await,
                    None => Ok(Response::new(Body::empty())),
                }
            }
        }
    }));
    assert!(own.set(stack.clone()).is_ok());
    stack
}

/// With a lock that is waited for, it never ends.
#[tokio::test]
async fn a_call_that_is_begun_while_another_is_does_not_wait_for_it() {
    let stack = stack_of(|stack| Some(stack.begin(request())));
    assert!(stack.begin(request()).await.is_ok());
}

#[tokio::test]
async fn a_call_that_panics_while_it_is_begun_takes_no_other_with_it() {
    let stack = stack_of(|_| panic!("a bug"));
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stack.begin(request())));
    assert!(panicked.is_err());
    for _ in 0..3 {
        let answered = std::panic::AssertUnwindSafe(stack.begin(request())).catch_unwind();
        assert!(matches!(answered.await, Ok(Ok(_))));
    }
}
