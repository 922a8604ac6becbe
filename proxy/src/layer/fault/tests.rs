use http_body_util::BodyExt;
use tower::Service;
use weir_config::snapshot::FaultDelay;
use weir_config::units;

use super::*;
use crate::endpoints::tests::pool;
use crate::layer::attempt::Attempt;
use crate::policy::deadline::Deadline;
use crate::policy::retry::Verdict;
use crate::request::Context;

const POLICY: &str = "boutique/fails";
const BODY: &[u8] = &[7; 1000];

/// An endpoint that is well.
#[derive(Clone)]
struct Well;

impl Transport for Well {
    async fn send(&self, _: &Endpoints, to: &Member, _: Box<Request>) -> Answer {
        let mut response = Response::new(Body::full(BODY.into()));
        response.body_mut().endpoint = Some(to.address());
        Ok(response)
    }
}

fn fault(effect: Option<FaultEffect>) -> snapshot::Fault {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = since.expect("after 1970").as_millis();
    snapshot::Fault {
        policy: POLICY.into(),
        until_ms: u64::try_from(now_ms).expect("it fits") + 60_000,
        matches: None,
        callers: Vec::new(),
        percentage: 100.try_into().expect("a percentage"),
        delay: None,
        effect,
    }
}

fn connection(broken: BrokenConnection) -> snapshot::Fault {
    fault(Some(FaultEffect::Connection(broken)))
}

fn delayed(millis: u64) -> snapshot::Fault {
    let time = units::Duration::from_millis(millis);
    let delay = Some(FaultDelay { time, jitter: None });
    snapshot::Fault {
        delay,
        ..fault(None)
    }
}

/// One service with two endpoints.
fn attempt(said: &[snapshot::Fault]) -> Attempt<Well> {
    let faults = Arc::new(Shared::new("boutique/payment:80".into()));
    faults.reconfigure(said, None);
    Attempt {
        endpoints: pool(2),
        faults,
        transport: Well,
    }
}

fn request(seconds: u64, grpc: bool) -> Box<Request> {
    let deadline = Deadline::after(Duration::from_secs(seconds), Instant::now());
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: Context {
            deadline,
            grpc,
            upgrade: false,
            ..Context::opaque(0)
        },
    })
}

async fn body(answer: Answer) -> Vec<u8> {
    let collected = answer.expect("an answer").into_body().collect().await;
    collected.expect("the whole body").to_bytes().to_vec()
}

#[tokio::test(start_paused = true)]
async fn an_aborted_call_is_answered_in_its_own_protocol_and_says_whose_doing_it_is() {
    let answer = FaultAnswer {
        grpc_status: 14,
        http_status: 503,
    };
    let mut attempt = attempt(&[fault(Some(FaultEffect::Abort(answer)))]);
    for grpc in [false, true] {
        let response = attempt.call(request(5, grpc)).await.expect("an answer");
        let headers = response.headers();
        assert_eq!(headers[&head::FAULT], POLICY);
        assert_eq!(headers[&PROXY_ERROR], CODE);
        assert!(
            response.body().endpoint.is_some(),
            "as if somebody had answered"
        );
        match grpc {
            true => assert_eq!(headers[&head::GRPC_STATUS], "14"),
            false => assert_eq!(response.status(), 503),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_to_retries_and_gates_what_a_real_one_is() {
    for (broken, verdict) in [
        (BrokenConnection::Reset, Verdict::Unavailable),
        (BrokenConnection::GoAway, Verdict::Unprocessed),
    ] {
        let mut attempt = attempt(&[connection(broken)]);
        let error = attempt
            .call(request(5, false))
            .await
            .err()
            .expect("no answer");
        assert_eq!(error.facts().verdict, verdict);
        assert_eq!(error.facts().code, CODE);
        assert!(error.endpoint().is_some());
        let response = error.into_response(false);
        assert_eq!(response.headers()[&head::FAULT], POLICY);
        assert_eq!(response.status(), 502);
    }
    let mut attempt = attempt(&[connection(BrokenConnection::Reset)]);
    for _ in 0..20 {
        drop(attempt.call(request(5, false)).await);
    }
    let endpoints = attempt.endpoints.list();
    let is_open = |index: usize| endpoints[index].learnt().gate.state().as_str() == "open";
    assert!(is_open(0) || is_open(1), "five in a row are enough");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_has_a_call_until_its_time_is_up_and_is_told_as_such() {
    let mut attempt = attempt(&[connection(BrokenConnection::BlackHole)]);
    let started = Instant::now();
    let error = attempt
        .call(request(5, false))
        .await
        .err()
        .expect("no answer");
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(error.facts().code, CODE);
    assert_eq!(error.facts().http, 504);
    assert_eq!(attempt.faults.held.load(Ordering::Relaxed), 0, "given back");
}

#[tokio::test(start_paused = true)]
async fn who_is_held_is_let_go_when_the_fault_ends_or_nobody_says_so_any_more() {
    let hole = connection(BrokenConnection::BlackHole);
    let mut attempt = attempt(std::slice::from_ref(&hole));
    let started = Instant::now();
    let error = attempt.call(request(600, false)).await.err();
    assert!(matches!(error, Some(Error::Injected { .. })));
    let took = started.elapsed().as_secs();
    assert!((58..=60).contains(&took), "its end, by itself: {took}");
    assert_eq!(
        body(attempt.call(request(5, false)).await).await,
        BODY,
        "over"
    );

    attempt
        .faults
        .reconfigure(std::slice::from_ref(&hole), None);
    let waits = tokio::spawn(attempt.call(request(600, false)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    attempt.faults.reconfigure(&[hole, delayed(1)], None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished(), "it is still said");
    attempt.faults.reconfigure(&[], None);
    let error = waits.await.expect("no panic").err();
    assert!(matches!(error, Some(Error::Injected { .. })));
    assert_eq!(started.elapsed().as_secs() - took, 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_held_than_may_be_and_the_others_pass() {
    let attempt = attempt(&[connection(BrokenConnection::BlackHole)]);
    let call = || attempt.clone().call(request(5, false));
    let held: Vec<_> = (0..HELD_MAX).map(|_| tokio::spawn(call())).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(body(call().await).await, BODY, "left alone");
    for one in held {
        assert!(one.await.expect("no panic").is_err());
    }
    assert!(call().await.is_err(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_delay_comes_before_the_call_and_its_answer_is_marked() {
    let mut attempt = attempt(&[delayed(300)]);
    let started = Instant::now();
    let answer = attempt.call(request(5, false)).await;
    assert_eq!(started.elapsed().as_millis(), 300);
    let marked = answer.as_ref().expect("an answer").headers();
    assert_eq!(marked[&head::FAULT], POLICY);
    assert_eq!(body(answer).await, BODY);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_comes_whole_at_its_pace_and_at_once_when_the_fault_is_over() {
    let slow = fault(Some(FaultEffect::SlowBody {
        bytes_per_second: 100.try_into().expect("a count"),
    }));
    let mut attempt = attempt(&[slow]);
    let started = Instant::now();
    let response = attempt.call(request(600, false)).await;
    let hint = response.as_ref().map(http_body::Body::size_hint);
    assert_eq!(hint.ok().and_then(|hint| hint.exact()), Some(1000));
    assert_eq!(attempt.faults.held.load(Ordering::Relaxed), 1);
    assert_eq!(body(response).await, BODY);
    let took = started.elapsed().as_secs_f64();
    assert!((9.8..10.2).contains(&took), "{took}");
    assert_eq!(attempt.faults.held.load(Ordering::Relaxed), 0);

    let started = Instant::now();
    let response = attempt.call(request(600, false)).await;
    attempt.faults.reconfigure(&[], None);
    assert_eq!(body(response).await, BODY);
    assert!(started.elapsed().as_secs_f64() < 0.2);
}

#[tokio::test(start_paused = true)]
async fn without_a_fault_nothing_is_asked_and_after_the_last_one_nothing_any_more() {
    let mut attempt = attempt(&[connection(BrokenConnection::Reset)]);
    assert!(attempt.faults.armed.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(body(attempt.call(request(5, false)).await).await, BODY);
    assert!(!attempt.faults.armed.load(Ordering::Relaxed));
    assert!(attempt.faults.in_force().is_empty());
}
