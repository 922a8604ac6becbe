//! Tests: chains of services, each with the outbound and inbound layers that carry context through its app, in paused time.
//! `tests/mesh/chain.rs` is the same with real sidecars.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, service_fn};
use weir_config::snapshot::Retries;
use weir_config::units::Count;

use super::deadline::DeadlineLayer;
use super::inherit::{BequeathLayer, InheritLayer, Shared};
use super::retry::RetryLayer;
use super::{Answer, AnswerFuture};
use crate::body::Body;
use crate::endpoints::tests::pool;
use crate::error::Error;
use crate::head;
use crate::policy::budget::Budget;
use crate::policy::deadline::Deadline;
use crate::request::{Context, Request};
use crate::telemetry::BackendMetrics;

/// Whatever takes a request and answers it.
type Hop = Arc<dyn Fn(Box<Request>) -> AnswerFuture + Send + Sync>;

fn request(trace: &HeaderValue) -> Box<Request> {
    let mut head = http::Request::new(()).into_parts().0;
    head.headers.insert(&head::TRACEPARENT, trace.clone());
    Box::new(Request {
        head,
        body: Body::empty(),
        context: Context {
            idempotent: true,
            upgrade: false,
            ..Context::opaque(0)
        },
    })
}

fn trace(number: u32) -> HeaderValue {
    let text = format!("00-{:032x}-00000000000000aa-01", number + 1);
    HeaderValue::from_str(&text).expect("a value")
}

/// The outbound side of a pod, calling `peer`.
fn outbound(pod: &Arc<Shared>, deadline: Duration, retries: Retries, peer: Hop) -> Hop {
    let now = Instant::now();
    let retry = RetryLayer {
        budget: Arc::new(Mutex::new(Budget::new(retries.budget, now))),
        retries: Arc::new(retries),
        endpoints: pool(1),
        metrics: Arc::new(BackendMetrics::new("chain/of:1")),
        hedges: false,
    };
    let limit = Some(deadline);
    let inherit = InheritLayer {
        shared: pod.clone(),
        deadline: true,
    };
    let attempt = service_fn(move |request| peer(request));
    let stack = inherit.layer(DeadlineLayer { limit }.layer(retry.layer(attempt)));
    Arc::new(move |request| Box::pin(stack.clone().call(request)))
}

/// The inbound side of a pod, asking `app`: what comes over the wire is the head and what is left of the deadline.
fn inbound(pod: &Arc<Shared>, app: Hop) -> Hop {
    let bequeath = BequeathLayer {
        shared: pod.clone(),
    };
    let app = service_fn(move |request| app(request));
    let stack = DeadlineLayer { limit: None }.layer(bequeath.layer(app));
    Arc::new(move |sent: Box<Request>| {
        let mut received = Box::new(Request {
            head: sent.head,
            body: Body::empty(),
            context: Context {
                deadline: sent.context.deadline,
                caller: Some("spiffe://mesh/ns/a/sa/b".into()),
                upgrade: false,
                ..Context::opaque(0)
            },
        });
        let headers = &mut received.head.headers;
        received.context.is_retry = headers.contains_key(&head::ATTEMPT);
        head::strip_own_headers(headers);
        Box::pin(stack.clone().call(received))
    })
}

/// An app that waits, as in a queue of its own, and then asks the next one under the trace that it got. It does not notice when
/// it is given up on.
fn relay(wait: impl Fn() -> Duration + Send + Sync + 'static, next: Hop) -> Hop {
    Arc::new(move |request| {
        let trace = request.head.headers.get(&head::TRACEPARENT).cloned();
        let (next, wait) = (next.clone(), wait());
        let working = tokio::spawn(async move {
            sleep(wait).await;
            let answer = next(self::request(&trace.expect("it is passed on"))).await;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = match answer {
                Ok(response) => response.status(),
                Err(error) => error.facts().http,
            };
            response
        });
        Box::pin(async move { Ok(working.await.expect("no panic")) })
    })
}

/// An app that counts what it begins, and answers with `status` after `takes`.
fn worker(begun: &Arc<AtomicU32>, takes: Duration, status: StatusCode) -> Hop {
    let begun = begun.clone();
    Arc::new(move |_| {
        begun.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            sleep(takes).await;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            Ok(response)
        })
    })
}

/// Calls at D for one of a user, when A calls B calls C calls D, and D fails.
async fn amplification(calls: u32, burst: u32) -> f64 {
    const LONG: Duration = Duration::from_secs(15);
    let mut retries = Retries::default();
    retries.budget.burst = Count::of(burst);
    let pods: [Arc<Shared>; 4] = Default::default();
    let begun = Arc::new(AtomicU32::new(0));
    let failing = worker(&begun, Duration::ZERO, StatusCode::SERVICE_UNAVAILABLE);
    let mut peer = inbound(&pods[3], failing);
    for pod in pods[1..3].iter().rev() {
        let next = outbound(pod, LONG, retries.clone(), peer);
        peer = inbound(pod, relay(|| Duration::ZERO, next));
    }
    let user = outbound(&pods[0], LONG, retries, peer);
    for number in 0..calls {
        let answer: Answer = user(request(&trace(number))).await;
        assert_eq!(
            answer.expect("an answer").status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        sleep(Duration::from_millis(10)).await;
    }
    f64::from(begun.load(Ordering::Relaxed)) / f64::from(calls)
}

/// G8. Planted bugs that this finds: a budget that is empty says nothing to the hop above; a retry says nothing to the ones
/// below.
#[tokio::test(start_paused = true)]
async fn three_layers_of_retries_are_one() {
    let by_default = amplification(500, 10).await;
    assert!(by_default <= 1.1, "{by_default}");
    let rich = amplification(100, 1000).await;
    assert!(
        (1.99..2.01).contains(&rich),
        "who can pay for it retries once: {rich}"
    );
}

/// G10. B's app queues for 0 to 300 ms, and a call has 200 ms.
#[tokio::test(start_paused = true)]
async fn nothing_begins_at_the_third_hop_for_a_call_whose_time_is_over() {
    const BUDGET: Duration = Duration::from_millis(200);
    let pods: [Arc<Shared>; 3] = Default::default();
    let begun = Arc::new(AtomicU32::new(0));
    let working = worker(&begun, Duration::from_millis(20), StatusCode::OK);
    let at_c = inbound(&pods[2], working);
    let turn = AtomicU32::new(0);
    let queue =
        move || Duration::from_millis(u64::from(turn.fetch_add(37, Ordering::Relaxed) % 300));
    let to_c = outbound(&pods[1], Duration::from_secs(15), Retries::default(), at_c);
    let at_b = inbound(&pods[1], relay(queue, to_c));
    let once = Retries {
        attempts: Count::of(1),
        ..Retries::default()
    };
    let user = outbound(&pods[0], BUDGET, once, at_b);
    let (mut in_time, mut late) = (0, 0);
    for number in 0..300 {
        let sent = Instant::now();
        match user(request(&trace(number))).await {
            Ok(response) if response.status().is_success() => in_time += 1,
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
                late += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
                assert!(sent.elapsed() <= BUDGET + Duration::from_millis(5));
                late += 1;
            }
        }
        // What still queues at B gets its turn.
        sleep(BUDGET * 2).await;
    }
    assert!(late > 90 && in_time > 150, "{in_time} in time, {late} late");
    let begun = begun.load(Ordering::Relaxed);
    // Those that began in time and could not end in time, 20 ms of 300, are the only ones in vain.
    assert!(
        begun - in_time <= 300 / 10,
        "{begun} begun, {in_time} in time"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_on_is_refused_under_its_own_trace_and_no_other() {
    let pod = Arc::new(Shared::default());
    let begun = Arc::new(AtomicU32::new(0));
    let peer = worker(&begun, Duration::from_millis(20), StatusCode::OK);
    let to_peer = outbound(&pod, Duration::from_secs(15), Retries::default(), peer);
    let silent: Hop = Arc::new(|_| Box::pin(std::future::pending()));
    let at_pod = inbound(&pod, silent);
    let mut incoming = request(&trace(1));
    incoming.context.deadline = Deadline::after(Duration::from_millis(1), Instant::now());
    assert!(matches!(
        at_pod(incoming).await,
        Err(Error::DeadlineExceeded { .. })
    ));
    let own = to_peer(request(&trace(2))).await;
    assert_eq!(own.expect("an answer").status(), StatusCode::OK);
    let doomed = to_peer(request(&trace(1))).await;
    assert!(matches!(doomed, Err(Error::DeadlineExceeded { .. })));
    assert_eq!(begun.load(Ordering::Relaxed), 1);
}
