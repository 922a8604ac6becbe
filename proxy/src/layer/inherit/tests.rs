use std::time::Duration;

use tower::service_fn;
use weir_config::snapshot::{self, Timeout};
use weir_config::units;

use super::*;
use crate::body::Body;
use crate::policy::deadline::Deadline;
use crate::policy::priority::Tier;
use crate::policy::terms::Terms;
use crate::request::Context as RequestContext;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SPAN: Duration = Duration::from_millis(200);

fn request(trace: Option<&str>, caller: Option<&str>, left: Option<Duration>) -> Box<Request> {
    let mut head = http::Request::new(()).into_parts().0;
    if let Some(trace) = trace {
        let value = HeaderValue::from_str(trace).expect("a value");
        head.headers.insert(&crate::head::TRACEPARENT, value);
    }
    let deadline = left.map(|left| Deadline::after(left, Instant::now()));
    Box::new(Request {
        head,
        body: Body::empty(),
        context: RequestContext {
            deadline: deadline.unwrap_or(Deadline::NEVER),
            caller: caller.map(Into::into),
            upgrade: false,
            ..RequestContext::opaque(0)
        },
    })
}

/// What the app's own call has when it goes out.
async fn outbound(shared: &Arc<Shared>, deadline: bool, trace: &str) -> RequestContext {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let end = service_fn(move |request: Box<Request>| {
        let sender = sender.lock().expect("not poisoned").take().expect("once");
        assert!(sender.send(request.context).is_ok());
        std::future::ready(Ok(http::Response::new(Body::empty())))
    });
    let layer = InheritLayer {
        shared: shared.clone(),
        deadline,
    };
    let answer: Answer = layer
        .layer(end)
        .call(request(Some(trace), None, None))
        .await;
    answer.expect("an answer");
    receiver.await.expect("it went out")
}

/// A call to an app that makes one call under the trace after `after`; what that call had.
async fn through_the_app(
    shared: &Arc<Shared>,
    incoming: Box<Request>,
    after: Duration,
) -> RequestContext {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let given = shared.clone();
    let app = service_fn(move |_: Box<Request>| {
        let sender = sender.lock().expect("not poisoned").take().expect("once");
        let shared = given.clone();
        async move {
            // The app does not notice that nobody waits: its task goes on.
            let working = tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = sender.send(outbound(&shared, true, TRACE).await);
            });
            working.await.expect("no panic");
            Ok(http::Response::new(Body::empty()))
        }
    });
    let layer = BequeathLayer {
        shared: shared.clone(),
    };
    let deadline = crate::layer::deadline::DeadlineLayer { limit: None };
    let _: Answer = deadline.layer(layer.layer(app)).call(incoming).await;
    receiver.await.expect("it went out")
}

#[tokio::test(start_paused = true)]
async fn a_call_under_the_same_trace_has_what_is_left_of_the_deadline() {
    let (shared, now) = (Arc::new(Shared::default()), Instant::now());
    let incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    let context = through_the_app(&shared, incoming, SPAN / 2).await;
    assert_eq!(context.deadline, Deadline::after(SPAN, now));
    let later = outbound(&shared, true, TRACE).await;
    assert_eq!(later.deadline, Deadline::NEVER, "the app has answered");
}

#[tokio::test(start_paused = true)]
async fn what_an_app_begins_after_the_deadline_is_over_before_it_begins() {
    let shared = Arc::new(Shared::default());
    let incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    let context = through_the_app(&shared, incoming, SPAN * 2).await;
    assert!(context.deadline.is_over(Instant::now()));
}

/// Planted bug that this finds: believing whoever calls, proven or not.
#[tokio::test(start_paused = true)]
async fn a_stranger_leaves_nothing_to_anybody() {
    let shared = Arc::new(Shared::default());
    let incoming = request(Some(TRACE), None, Some(SPAN));
    let context = through_the_app(&shared, incoming, SPAN / 2).await;
    assert_eq!(context.deadline, Deadline::NEVER);
    assert!(
        shared
            .shards
            .iter()
            .all(|shard| shard.lock().expect("free").is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_deadline_inherits_none_but_still_that_it_is_a_retry() {
    let shared = Arc::new(Shared::default());
    let mut incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    incoming.context.is_retry = true;
    let bequest = shared.bequest(&incoming).expect("noted");
    let unlimited = outbound(&shared, false, TRACE).await;
    assert_eq!(
        (unlimited.deadline, unlimited.is_retry),
        (Deadline::NEVER, true)
    );
    let limited = outbound(&shared, true, TRACE).await;
    assert_ne!(limited.deadline, Deadline::NEVER);
    drop(bequest);
}

fn rule(deadline: Option<Timeout>) -> Arc<Terms> {
    Arc::new(Terms::new(&snapshot::Rule {
        name: "HTTPRoute a/b rules[0]".into(),
        request: snapshot::HeaderChanges::default(),
        response: snapshot::HeaderChanges::default(),
        rewrite: None,
        redirect: None,
        mirrors: Vec::new(),
        backends: Vec::new(),
        deadline,
        per_try_timeout: None,
        retry: None,
    }))
}

/// A stream that its rule gave all the time ended with the call that it was made for.
#[tokio::test(start_paused = true)]
async fn what_a_rule_says_of_the_deadline_counts_in_place_of_the_policy() {
    let shared = Arc::new(Shared::default());
    let incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    let bequest = shared.bequest(&incoming).expect("noted");
    let second = Timeout::After(units::Duration::from_secs(1));
    for (said, policy, inherits) in [
        (Some(Timeout::Unlimited), true, false),
        (Some(second), false, true),
        (None, true, true),
        (None, false, false),
    ] {
        let mut outgoing = request(Some(TRACE), None, None);
        outgoing.context.terms = Some(rule(said));
        shared.inherit(&mut outgoing, policy);
        let has = outgoing.context.deadline != Deadline::NEVER;
        assert_eq!(has, inherits, "{said:?}, {policy}");
    }
    drop(bequest);
}

#[tokio::test]
async fn a_request_without_a_trace_costs_no_lock_and_leaves_nothing() {
    let shared = Arc::new(Shared::default());
    // Every shard is held: whoever locked one would wait for ever.
    let held: Vec<_> = shared
        .shards
        .iter()
        .map(|shard| shard.lock().expect("free"))
        .collect();
    let incoming = request(None, Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    assert!(shared.bequest(&incoming).is_none());
    let mut outgoing = request(Some(TRACE), None, None);
    shared.inherit(&mut outgoing, true);
    assert_eq!(outgoing.context.deadline, Deadline::NEVER);
    assert!(held.iter().all(|shard| shard.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_marked_when_a_call_below_it_was_retried_in_vain_and_a_success_is_not() {
    for (status, marked) in [(500, true), (200, false)] {
        let shared = Arc::new(Shared::default());
        let below = shared.clone();
        let app = service_fn(move |_: Box<Request>| {
            let shared = below.clone();
            async move {
                let heir = outbound(&shared, true, TRACE)
                    .await
                    .heir
                    .expect("it inherits");
                heir.exhaust();
                let mut response = http::Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                Ok(response)
            }
        });
        let layer = BequeathLayer { shared };
        let incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
        let response = layer.layer(app).call(incoming).await.expect("an answer");
        assert_eq!(
            response.headers().contains_key(&head::RETRY),
            marked,
            "{status}"
        );
    }
}

/// It was as critical as its call again, and had what was left of that one's time.
#[tokio::test(start_paused = true)]
async fn a_copy_inherits_neither_time_nor_tier() {
    let shared = Arc::new(Shared::default());
    let mut incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    incoming.context.priority.tier = Tier::Critical;
    let bequest = shared.bequest(&incoming).expect("noted");
    for (is_copy, tier, inherits) in [
        (true, Tier::Sheddable, false),
        (false, Tier::Critical, true),
    ] {
        let mut own = request(Some(TRACE), None, None);
        own.context.priority.tier = Tier::Sheddable;
        own.context.is_copy = is_copy;
        shared.inherit(&mut own, true);
        assert_eq!(own.context.priority.tier, tier);
        assert_eq!(own.context.deadline != Deadline::NEVER, inherits);
        assert_eq!(own.context.heir.is_some(), inherits);
    }
    drop(bequest);
}

#[tokio::test(start_paused = true)]
async fn what_the_app_says_of_its_call_counts_more_than_what_it_inherits() {
    let shared = Arc::new(Shared::default());
    let mut incoming = request(Some(TRACE), Some("spiffe://a/ns/b/sa/c"), Some(SPAN));
    let priority = |tier, cohort| Priority { tier, cohort };
    incoming.context.priority = priority(Tier::Critical, 17);
    let bequest = shared.bequest(&incoming).expect("noted");
    for (says_tier, expected) in [(false, Tier::Critical), (true, Tier::Sheddable)] {
        let mut own = request(Some(TRACE), None, None);
        own.context.priority = priority(Tier::Sheddable, 99);
        own.context.says_tier = says_tier;
        shared.inherit(&mut own, true);
        assert_eq!(own.context.priority, priority(expected, 17));
    }
    drop(bequest);
}
