use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use tower::{ServiceBuilder, service_fn};
use weir_config::snapshot;

use super::*;
use crate::body::{Body, Guard};
use crate::endpoints::tests::{fail, pool};
use crate::layer::retry::RetryLayer;
use crate::layer::throttle::ThrottleLayer;
use crate::telemetry::BackendMetrics;

const SERVICE: &str = "boutique/catalog:3550";
const MARKED: u16 = 503;

/// What one try comes to: how long it takes, and the status.
type Fate = (Duration, u16);

/// A service with endpoints that do as they are told.
struct World {
    endpoints: Arc<Endpoints>,
    throttle: Arc<throttle::Shared>,
    budget: Arc<Mutex<Budget>>,
    hedge: Arc<Shared>,
    /// Where each try went, and whether it was a hedge.
    sent: Arc<Mutex<Vec<(SocketAddr, bool)>>>,
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    fn new(size: u16) -> Self {
        let endpoints = pool(size);
        let throttle = Arc::new(throttle::Shared::new(SERVICE.into(), endpoints.clone()));
        let budget = Budget::new(snapshot::Budget::default(), Instant::now());
        let budget = Arc::new(Mutex::new(budget));
        let hedge = Shared::new(
            Config::default(),
            SERVICE,
            budget.clone(),
            endpoints.clone(),
            throttle.clone(),
        );
        Self {
            endpoints,
            throttle,
            budget,
            hedge: Arc::new(hedge),
            sent: Arc::default(),
        }
    }

    /// Calls usually take 50 ms, and two of a hundred may be made twice.
    fn with_history(size: u16) -> Self {
        let world = Self::new(size);
        world.hedge.with(|policy| {
            let now = Instant::now();
            for _ in 0..100 {
                policy.begun(now - millis(200));
                policy.answered(millis(50), now);
            }
        });
        world
    }

    /// The way of a call from the retries to an endpoint. `fate` is asked with whether it is a hedge.
    fn stack<F>(&self, mode: Mode, fate: F) -> impl Call + use<F>
    where
        F: Fn(bool) -> Fate + Clone + Send + 'static,
    {
        let (endpoints, sent) = (self.endpoints.clone(), self.sent.clone());
        let attempt = service_fn(move |request: Box<Request>| {
            let (endpoints, sent, fate) = (endpoints.clone(), sent.clone(), fate.clone());
            async move {
                let RequestContext { race, hedge, .. } = &request.context;
                let mut chosen = endpoints.choose(&request.context)?;
                let address = chosen.member.address();
                if let Some(race) = race {
                    race.chose(address);
                    chosen.race = Some(race.clone());
                }
                sent.lock().expect("not poisoned").push((address, *hedge));
                let (takes, status) = fate(*hedge);
                let guard = Guard::new(chosen);
                tokio::time::sleep(takes).await;
                let mut response = Response::new(Body::full("x".into()));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                if status == MARKED {
                    let mark = HeaderValue::from_static("service");
                    response.headers_mut().insert(&head::OVERLOAD, mark);
                }
                response.body_mut().endpoint = Some(address);
                guard.settle(Ok(response))
            }
        });
        let retry = RetryLayer {
            retries: Arc::default(),
            budget: self.budget.clone(),
            endpoints: self.endpoints.clone(),
            metrics: Arc::new(BackendMetrics::new(SERVICE)),
            hedges: true,
        };
        ServiceBuilder::new()
            .layer(retry)
            .layer(HedgeLayer {
                hedge: self.hedge.clone(),
                mode,
            })
            .layer(ThrottleLayer {
                throttle: self.throttle.clone(),
                mode,
            })
            .service(attempt)
    }

    fn hedges(&self) -> usize {
        let sent = self.sent.lock().expect("not poisoned");
        sent.iter().filter(|(_, hedge)| *hedge).count()
    }

    fn assert_nothing_is_left(&self, what: &str) {
        assert_eq!(self.endpoints.in_flight(), 0, "{what}");
        for member in self.endpoints.list().iter() {
            assert_eq!(member.in_flight(), 0, "{what}");
            assert_eq!(member.learnt().waiting.oldest(), None, "{what}");
        }
    }
}

fn request(method: Method) -> Box<Request> {
    let mut head = http::Request::new(()).into_parts().0;
    let idempotent = crate::request::is_idempotent(&method)
        || head.headers.contains_key(&crate::head::IDEMPOTENCY_KEY);
    head.method = method;
    Box::new(Request {
        head,
        body: Body::empty(),
        context: RequestContext {
            idempotent,
            upgrade: false,
            ..RequestContext::opaque(0)
        },
    })
}

/// How long the caller waited, and the status.
async fn get(mut stack: impl Call) -> Fate {
    let begun = Instant::now();
    let answer = stack.call(request(Method::GET)).await;
    let status = match &answer {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.facts().http.as_u16(),
    };
    let took = begun.elapsed();
    if let Ok(response) = answer {
        use http_body_util::BodyExt;
        let body = response.into_body().collect().await;
        assert!(body.is_ok(), "these bodies are short");
    }
    (took, status)
}

fn slow_first(hedge: bool) -> Fate {
    (millis(if hedge { 20 } else { 900 }), 200)
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_made_again_elsewhere_and_the_faster_answer_counts() {
    let world = World::with_history(2);
    let (took, status) = get(world.stack(Mode::Enforce, slow_first)).await;
    assert_eq!(status, 200);
    assert!(
        (millis(70)..millis(80)).contains(&took),
        "50 and 20: {took:?}"
    );
    let sent = world.sent.lock().expect("not poisoned").clone();
    let [(first, false), (second, true)] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_ne!(first, second);
    world.assert_nothing_is_left("the slow try was cancelled");
}

/// Planted: a loser whose wait is recorded makes its endpoint look slow for having been hedged.
#[tokio::test(start_paused = true)]
async fn whoever_loses_counts_nowhere() {
    let world = World::with_history(2);
    get(world.stack(Mode::Enforce, slow_first)).await;
    let (loser, _) = world.sent.lock().expect("not poisoned")[0];
    let list = world.endpoints.list();
    let loser = list.iter().find(|member| member.address() == loser);
    let now = Instant::now();
    let learnt = loser.expect("it is one of them").learnt();
    assert!(
        learnt.latency.cost(now, 0) < 30e6,
        "no dearer than when it was new"
    );
    assert_eq!(learnt.gate.counts(now).calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_at_any_moment_leaves_nothing_behind() {
    for leaves_after in (0..=120).step_by(5) {
        let world = World::with_history(3);
        let call = get(world.stack(Mode::Enforce, slow_first));
        let left = tokio::time::timeout(millis(leaves_after), call).await;
        world.assert_nothing_is_left(&format!("after {leaves_after} ms: {left:?}"));
        let hedged = world.hedges();
        assert_eq!(hedged, usize::from(leaves_after >= 55), "{leaves_after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_an_answer_unread_gives_back_what_it_held() {
    let world = World::with_history(2);
    let mut stack = world.stack(Mode::Enforce, slow_first);
    let answer = stack.call(request(Method::GET)).await;
    assert_eq!(
        world.endpoints.in_flight(),
        1,
        "its body is still to be read"
    );
    drop((answer, stack));
    world.assert_nothing_is_left("it was dropped");
}

/// It could go to the second one's endpoint: only the first one's was known.
#[tokio::test(start_paused = true)]
async fn what_follows_two_tries_that_failed_goes_to_neither_of_their_endpoints() {
    for slow in [millis(60), millis(90)] {
        let world = World::with_history(3);
        // Whoever chose by price alone would go anywhere but there.
        fail(&world.endpoints, 0, &[("retry-after", "9")]);
        let fails = move |hedge: bool| (if hedge { millis(20) } else { slow }, 502);
        get(world.stack(Mode::Enforce, fails)).await;
        let sent = world.sent.lock().expect("not poisoned").clone();
        let [(first, false), (second, true), (third, false)] = sent[..] else {
            panic!("{sent:?}")
        };
        assert!(third != first && third != second, "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_the_other_try_and_two_are_one_failure() {
    let world = World::with_history(2);
    let fails_slowly = |hedge| {
        if hedge {
            (millis(100), 200)
        } else {
            (millis(60), 500)
        }
    };
    let (took, status) = get(world.stack(Mode::Enforce, fails_slowly)).await;
    assert_eq!(status, 200);
    assert!(took >= millis(150), "{took:?}");

    let world = World::with_history(2);
    let both = |hedge| {
        (
            millis(if hedge { 10 } else { 100 }),
            if hedge { 501 } else { 500 },
        )
    };
    let (took, status) = get(world.stack(Mode::Enforce, both)).await;
    assert_eq!((took, status), (millis(100), 500), "the first try's");
    assert_eq!(world.sent.lock().expect("not poisoned").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_or_is_a_repeat_is_not_hedged() {
    let world = World::with_history(2);
    let mut stack = world.stack(Mode::Enforce, slow_first);
    drop(stack.call(request(Method::POST)).await);
    let mut retried = request(Method::GET);
    retried.context.is_retry = true;
    drop(stack.call(retried).await);
    assert_eq!(world.hedges(), 0);
    let alone = World::with_history(1);
    let (took, _) = get(alone.stack(Mode::Enforce, slow_first)).await;
    assert_eq!((took, alone.hedges()), (millis(900), 0), "nowhere else");
}

#[tokio::test(start_paused = true)]
async fn what_only_observes_counts_and_waits() {
    let world = World::with_history(2);
    let tokens = || world.budget.lock().expect("not poisoned").tokens();
    let before = tokens();
    let (took, _) = get(world.stack(Mode::Observe, slow_first)).await;
    assert_eq!((took, world.hedges()), (millis(900), 0));
    assert_eq!(tokens(), before, "retries still have it");
}

/// Of open-loop load: how long each call took, and how many were made for how many.
async fn run(
    world: &World,
    calls: u32,
    fate: impl Fn(bool) -> Fate + Clone + Send + 'static,
) -> Vec<Duration> {
    let begun = Instant::now();
    let mut running = Vec::new();
    for number in 0..calls {
        tokio::time::sleep_until(begun + millis(number.into())).await;
        running.push(tokio::spawn(get(world.stack(Mode::Enforce, fate.clone()))));
    }
    let mut took = Vec::new();
    for call in running {
        took.push(call.await.expect("no panic").0);
    }
    took
}

fn percentile(took: &[Duration], share: f64) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() as f64 * share) as usize]
}

/// 5 ms and an exponential 10 ms; one in a hundred stalls for 500 ms.
fn mostly_fast(seed: u64) -> impl Fn(bool) -> Fate + Clone + Send + 'static {
    let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    move |_| {
        let mut rng = rng.lock().expect("not poisoned");
        let stall = if rng.u32(..100) == 0 { 500.0 } else { 0.0 };
        let work = 5.0 - 10.0 * (1.0 - rng.f64()).ln();
        (Duration::from_secs_f64((work + stall) / 1e3), 200)
    }
}

/// G9 of resilience.md: one in a hundred stalls for 500 ms.
#[tokio::test(start_paused = true)]
async fn the_slowest_in_a_thousand_take_no_longer_than_a_hedge_and_the_extra_load_is_two_in_a_hundred()
 {
    for seed in 1..=5 {
        fastrand::seed(seed);
        let world = World::new(3);
        let fate = mostly_fast(seed);
        run(&world, 2_000, fate.clone()).await;
        let (sent, calls) = (world.sent.lock().expect("not poisoned").len(), 10_000);
        let took = run(&world, calls, fate).await;
        let extra = world.sent.lock().expect("not poisoned").len() - sent - calls as usize;
        let delay = world.hedge.with(|policy| policy.begun(Instant::now()));
        let delay = delay.expect("there were thousands");
        let (p95, p999) = (percentile(&took, 0.95), percentile(&took, 0.999));
        println!(
            "seed {seed}: p95 {p95:?}, delay {delay:?}, p99.9 {p999:?}, {extra} hedges of {calls}"
        );
        assert!(
            p999 <= 2 * p95 + delay,
            "seed {seed}: {p999:?}, p95 {p95:?}, delay {delay:?}"
        );
        assert!(
            extra * 1000 <= calls as usize * 25,
            "seed {seed}: {extra} of {calls}"
        );
        world.assert_nothing_is_left("all have ended");
    }
}

/// G9: no hedge while the service says that it is overloaded, and for as long as that is remembered.
#[tokio::test(start_paused = true)]
async fn an_overloaded_service_gets_no_hedge() {
    let world = World::new(3);
    run(&world, 2_000, mostly_fast(1)).await;
    assert!(world.hedges() > 0, "or this would show nothing");
    let (_, status) = get(world.stack(Mode::Enforce, |_| (millis(1), MARKED))).await;
    assert_eq!(status, MARKED);
    let before = world.hedges();
    run(&world, 5_000, mostly_fast(2)).await;
    assert_eq!(world.hedges(), before);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_refused_a_hedge_is_asked_about_again_when_it_has_taken_twice_as_long() {
    let world = World::with_history(2);
    for _ in 0..10 {
        let mut budget = world.budget.lock().expect("not poisoned");
        let _ = budget.withdraw(crate::policy::budget::ATTEMPT, Instant::now());
    }
    let earned = async {
        tokio::time::sleep(millis(80)).await;
        let config = snapshot::Budget::default();
        *world.budget.lock().expect("not poisoned") = Budget::new(config, Instant::now());
    };
    let call = get(world.stack(Mode::Enforce, slow_first));
    let ((took, _), ()) = tokio::join!(call, earned);
    assert!(
        (millis(125)..millis(135)).contains(&took),
        "twice 54, and 20: {took:?}"
    );
    assert_eq!(world.hedges(), 1);
}
