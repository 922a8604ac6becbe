//! Chains of services: what a call brings holds for all that is done because of it, and no app knows of it.
//!
//! The apps pass on `traceparent` and nothing else (`relay.rs` of the lab's app).

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::SendRequest;

use crate::world::{World, hop, http1_over, whole};

const BUDGET: Duration = Duration::from_millis(200);
/// What the last hop works on each call.
const WORK: Duration = Duration::from_millis(20);
/// Between two clocks readings of processes that share two CPUs with a compiler.
const SLACK: Duration = Duration::from_millis(10);

/// A user's call through the chain.
struct Call {
    number: u128,
    sent: SystemTime,
    took: Duration,
    status: u16,
}

impl Call {
    fn expires(&self) -> SystemTime {
        self.sent + BUDGET
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    path: &str,
    number: u128,
    traced: bool,
) -> Call {
    let mut request = Request::get(path).header("host", host);
    if traced {
        let trace = format!("00-{number:032x}-00000000000000aa-01");
        request = request.header("traceparent", trace);
    }
    let request = request.body(Full::default()).expect("a request");
    sender.ready().await.expect("an open connection");
    let (sent, begun) = (SystemTime::now(), Instant::now());
    let response = whole(sender.send_request(request).await.expect("an answer")).await;
    Call {
        number,
        sent,
        took: begun.elapsed(),
        status: response.status().as_u16(),
    }
}

/// When each call's work began in this pod's app, asked past all sidecars.
async fn begun(world: &World, pod: &str) -> Vec<(u128, SystemTime)> {
    let mut sender = http1_over(world.dial_from(Some(pod), "127.0.0.1:8080")).await;
    let request = Request::get("/begun").header("host", "app");
    let request = request.body(Full::default()).expect("a request");
    let text = whole(sender.send_request(request).await.expect("an answer")).await;
    let line = |line: &str| {
        let (name, at) = line.split_once(' ')?;
        let at = Duration::from_micros(at.parse().ok()?);
        Some((name.parse().ok()?, SystemTime::UNIX_EPOCH + at))
    };
    text.body().lines().filter_map(line).collect()
}

/// Until the whole way works: sidecars get to know a service when it is first used.
async fn until_open(world: &World, host: &str, path: &str) {
    let to = format!("{host}:80");
    let open = async || world.get(&to, path).await.status() == 200;
    let begun = Instant::now();
    while !open().await {
        assert!(
            begun.elapsed() < crate::world::PATIENCE,
            "{path} stays shut"
        );
    }
}

/// Calls whose queue at the second hop is 150 ms in the mean, from none to 300 ms.
async fn queued_calls(world: &World, first: u128, traced: bool) -> Vec<Call> {
    const CALLERS: u128 = 6;
    const EACH: u128 = 40;
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let mut sender = world.http1("b:80").await;
        callers.push(tokio::spawn(async move {
            let mut calls = Vec::new();
            for turn in 0..EACH {
                let number = first + caller * EACH + turn;
                let wait = (turn * 97 + caller * 31) % 300;
                let path = format!("/after/{wait}/c/work/{}/{number}/200", WORK.as_millis());
                calls.push(ask(&mut sender, "b", &path, number, traced).await);
            }
            calls
        }));
    }
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.expect("a caller does not panic"));
    }
    // What is still queued at the second hop begins within this.
    tokio::time::sleep(Duration::from_millis(400)).await;
    all
}

/// G10 of the resilience design. Planted bug that this finds: an outbound side that does not look for what it inherits.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_for_a_caller_whose_time_is_over() {
    let policy = format!(
        "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {{name: b, namespace: tests}}
spec:
  targetRefs: [{{kind: Service, name: b}}]
  outbound: {{deadline: {}ms, retries: {{attempts: 1}}}}
",
        BUDGET.as_millis()
    );
    let world = World::with(1, &policy, &[hop("b"), hop("c")].concat());
    until_open(&world, "b", "/after/0/c/work/0/0/200").await;

    let mut wasted = Vec::new();
    for (first, traced) in [(1_000_000, false), (2_000_000, true)] {
        let calls = queued_calls(&world, first, traced).await;
        let works = begun(&world, "c").await;
        let began = |call: &Call| {
            let of_call = works.iter().find(|(number, _)| *number == call.number);
            of_call.map(|(_, at)| *at)
        };
        let late = |after: Duration| {
            let began_late =
                |call: &&Call| began(call).is_some_and(|at| at > call.expires() - WORK + after);
            calls.iter().filter(began_late).count()
        };
        let expired = calls.iter().filter(|call| call.status == 504);
        let mut over: Vec<Duration> = expired
            .map(|call| call.took.saturating_sub(BUDGET))
            .collect();
        over.sort_unstable();
        let median = over[over.len() / 2];
        let (in_vain, after_expiry) = (late(SLACK), late(WORK + SLACK));
        println!(
            "traced {traced}: {} calls, {} over time (told {median:?} after the deadline in the median, {:?} at worst), \
             {in_vain} works in vain, {after_expiry} begun after the deadline",
            calls.len(),
            over.len(),
            over.last().expect("some are")
        );
        assert!(over.len() > calls.len() / 4, "the queue is long enough");
        assert!(calls.iter().all(|call| [200, 504].contains(&call.status)));
        assert!(median < Duration::from_millis(5), "{median:?}");
        if traced {
            assert_eq!(after_expiry, 0);
        }
        wasted.push(in_vain);
    }
    assert!(
        wasted[0] > 40,
        "without the trace {} works are in vain",
        wasted[0]
    );
    assert!(wasted[1] * 10 <= wasted[0], "{wasted:?}");
}

/// G8 of the resilience design. Planted bugs that this finds: retries that are not told of further down, and a failure
/// after retries that is not told of further up.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_retried_by_the_hop_above_it_alone() {
    const CALLS: u128 = 300;
    let world = World::with(1, "", &[hop("b"), hop("c"), hop("d")].concat());
    until_open(&world, "b", "/after/0/c/after/0/d/work/0/0/200").await;
    let mut sender = world.http1("b:80").await;
    let mut amplification = async |first: u128, traced: bool, calls: u128| {
        let before = begun(&world, "d").await.len();
        for number in first..first + calls {
            let path = format!("/after/0/c/after/0/d/work/0/{number}/503");
            let call = ask(&mut sender, "b", &path, number, traced).await;
            assert_eq!(call.status, 503);
        }
        let works = begun(&world, "d").await.len() - before;
        works as f64 / calls as f64
    };

    let by_default = amplification(1_000_000, true, CALLS).await;
    println!("calls at D for one of a user: {by_default:.3}, with the default budget");
    assert!(by_default <= 1.1, "{by_default}");

    // Who can afford all retries still makes them in one place.
    world.write_policy(
        "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: rich, namespace: tests}
spec:
  targetRefs: [{kind: Namespace, name: tests}]
  outbound: {retries: {budget: {perSuccess: 1.0, burst: 1000}}}
",
    );
    // `policy.rs` shows that it holds within one.
    tokio::time::sleep(Duration::from_secs(2)).await;
    earn(&world).await;
    let traced = amplification(2_000_000, true, 60).await;
    // Each takes three seconds, the backoffs of some fifty tries.
    let untraced = amplification(3_000_000, false, 15).await;
    println!("with all the budget: {traced:.2} calls at D under a trace, {untraced:.2} without");
    assert!(traced <= 2.1, "{traced}");
    assert!(
        untraced > 4.0,
        "else the trace makes no difference: {untraced}"
    );
}

/// Successes, which fill every hop's budget.
async fn earn(world: &World) {
    let mut sender = world.http1("b:80").await;
    for number in 0..400 {
        let call = ask(
            &mut sender,
            "b",
            "/after/0/c/after/0/d/work/0/0/200",
            number + 1,
            true,
        );
        assert_eq!(call.await.status, 200);
    }
}
