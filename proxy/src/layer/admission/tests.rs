use http::Response;
use tokio::sync::Semaphore;
use tower::service_fn;

use super::*;
use crate::body::Body;
use crate::policy::priority::Tier;
use crate::request::Context as RequestContext;

fn limits(limit: u32, queue: u32, mode: Mode) -> InboundLimits {
    use weir_config::units::{Count, Duration};
    let mut limits = InboundLimits::default();
    limits.adaptive.mode = mode;
    limits.adaptive.min = Count::try_from(i64::from(limit)).expect("in bounds");
    limits.adaptive.max = limits.adaptive.min;
    limits.queue = Count::try_from(i64::from(queue)).expect("in bounds");
    limits.queue_timeout = Duration::from_millis(100);
    limits
}

fn request(tier: Tier) -> Box<Request> {
    let mut context = RequestContext::opaque(0);
    context.upgrade = false;
    context.priority.tier = tier;
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context,
    })
}

/// An app that answers when it is told to, so many times; and the admission before it.
struct World {
    answers: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl World {
    fn new(limits: &InboundLimits) -> Self {
        Self {
            answers: Arc::new(Semaphore::new(0)),
            shared: Arc::new(Shared::new(limits)),
        }
    }

    fn call(&self, request: Box<Request>) -> tokio::task::JoinHandle<Answer> {
        let answers = self.answers.clone();
        let app = service_fn(move |_: Box<Request>| {
            let answers = answers.clone();
            async move {
                answers.acquire().await.expect("it is open").forget();
                Ok(Response::new(Body::empty()))
            }
        });
        let layer = AdmissionLayer {
            admission: self.shared.clone(),
        };
        let mut service = layer.layer(app);
        tokio::spawn(async move { service.call(request).await })
    }

    async fn settled(&self) -> (u32, u32) {
        // Paused time: everybody who can run has run before it moves.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let load = self.shared.load();
        (load.in_flight, load.queued)
    }
}

fn reason(answer: Answer) -> Option<Reason> {
    match answer {
        Err(Error::Shed { reason, .. }) => Some(reason),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn some_get_in_some_wait_and_the_rest_is_told_at_once() {
    let world = World::new(&limits(2, 1, Mode::Enforce));
    let inside = [
        world.call(request(Tier::Default)),
        world.call(request(Tier::Default)),
    ];
    assert_eq!(world.settled().await, (2, 0));
    assert_eq!(world.shared.utilisation(), 1.0);
    let waits = world.call(request(Tier::Default));
    assert_eq!(world.settled().await, (2, 1));
    let shed = world.call(request(Tier::Default)).await.expect("no panic");
    assert_eq!(reason(shed), Some(Reason::QueueFull));
    world.answers.add_permits(3);
    for call in inside.into_iter().chain([waits]) {
        drop(call.await.expect("no panic").expect("an answer"));
    }
    assert_eq!(world.settled().await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_allows() {
    let world = World::new(&limits(1, 9, Mode::Enforce));
    let _inside = world.call(request(Tier::Default));
    world.settled().await;
    let started = Instant::now();
    let waited = world.call(request(Tier::Default)).await.expect("no panic");
    assert_eq!(reason(waited), Some(Reason::QueueTimeout));
    assert_eq!(started.elapsed().as_millis(), 100);
    assert_eq!(world.settled().await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_matters_more_is_let_in_first() {
    let world = World::new(&limits(1, 9, Mode::Enforce));
    let inside = world.call(request(Tier::Default));
    world.settled().await;
    let later = world.call(request(Tier::Sheddable));
    world.settled().await;
    let first = world.call(request(Tier::Critical));
    world.settled().await;
    world.answers.add_permits(2);
    drop(inside.await.expect("no panic").expect("an answer"));
    drop(first.await.expect("no panic").expect("it came first"));
    assert!(!later.is_finished());
}

/// Planted: a place handed to a caller that has gone is not given back.
#[tokio::test(start_paused = true)]
async fn places_come_back_from_callers_that_leave_at_any_moment() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(&limits(3, 5, Mode::Enforce));
        let mut calls = Vec::new();
        for _ in 0..60 {
            match rng.u8(..5) {
                0 | 1 => calls.push(world.call(request(rng.choice(Tier::ALL).expect("tiers")))),
                2 if !calls.is_empty() => {
                    // Dropped while it waits, while it is in the app, or just as its turn has come.
                    calls.swap_remove(rng.usize(..calls.len())).abort();
                }
                3 => world.answers.add_permits(1),
                _ => tokio::time::sleep(Duration::from_millis(rng.u64(..60))).await,
            }
            let load = world.shared.load();
            assert!(
                load.in_flight <= 3 && load.queued <= 5,
                "seed {seed}: {load:?}"
            );
        }
        calls.iter().for_each(|call| call.abort());
        for call in calls {
            let _ = call.await;
        }
        assert_eq!(world.settled().await, (0, 0), "seed {seed}");
    }
}

/// Between a worker's deciding and its telling, the one whose turn it is leaves on another.
#[tokio::test(start_paused = true)]
async fn who_leaves_between_the_verdict_and_the_word_of_it_gives_the_place_back() {
    let shared = Arc::new(Shared::new(&limits(1, 9, Mode::Enforce)));
    let enter = || shared.enter(&request(Tier::Default).context);
    let inside = enter().ok().and_then(Result::ok).expect("there is room");
    let waiting = || enter().ok().and_then(Result::err).expect("it is full");
    let (leaves, waits) = (waiting(), waiting());
    let (now, place) = (Instant::now(), inside.place);
    std::mem::forget(inside); // its place is given back by hand, as another worker would
    let decisions = {
        let mut policy = shared.policy.lock().expect("free");
        policy.leave(place, Duration::ZERO, Ended::Answered, now);
        policy.take_decisions()
    };
    drop(leaves);
    shared.tell(decisions, now);
    let admitted = waits.verdict().await;
    assert!(admitted.is_ok(), "the place went on to who waits");
    drop(admitted);
    assert_eq!((shared.load().in_flight, shared.load().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_leaves_room_in_it() {
    let world = World::new(&limits(1, 1, Mode::Enforce));
    let inside = world.call(request(Tier::Default));
    world.settled().await;
    let leaves = world.call(request(Tier::Default));
    assert_eq!(world.settled().await, (1, 1));
    leaves.abort();
    assert_eq!(world.settled().await, (1, 0));
    let waits = world.call(request(Tier::Default));
    assert_eq!(world.settled().await, (1, 1));
    world.answers.add_permits(2);
    for call in [inside, waits] {
        assert!(call.await.expect("no panic").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn observing_holds_nobody_back() {
    let world = World::new(&limits(1, 0, Mode::Observe));
    let calls = [(); 5].map(|()| world.call(request(Tier::Default)));
    assert_eq!(world.settled().await, (5, 0));
    world.answers.add_permits(5);
    for call in calls {
        assert!(call.await.expect("no panic").is_ok());
    }
    let shed = world.shared.load().counts.shed[Tier::Default.index()];
    assert_eq!(shed[Reason::QueueFull as usize], 4);
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_those_in_who_wait() {
    let world = World::new(&limits(1, 9, Mode::Enforce));
    let _calls = [(); 4].map(|()| world.call(request(Tier::Default)));
    assert_eq!(world.settled().await, (1, 3));
    world.shared.reconfigure(&limits(3, 9, Mode::Enforce));
    assert_eq!(world.settled().await, (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_shed_is_answered_in_the_callers_protocol_and_marked() {
    for (service, mark) in [(false, "local"), (true, "service")] {
        let error = Error::Shed {
            reason: Reason::Priority,
            service,
        };
        assert_eq!(error.outcome(), Outcome::Failure(Fault::Overload));
        let response = error.into_response(true);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "1000");
        assert_eq!(response.headers()["x-weir-overload"], mark);
    }
    let error = Error::Shed {
        reason: Reason::QueueFull,
        service: false,
    };
    let response = error.into_response(false);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["weir-proxy-error"], "queue-full");
}

/// Planted: taking each request that finds no room for news.
#[tokio::test(start_paused = true)]
async fn that_there_is_no_room_is_told_once_and_that_there_is_again() {
    let world = World::new(&limits(1, 100, Mode::Enforce));
    let mut told = Vec::new();
    let mut calls = Vec::new();
    for tick in 0..400 {
        // An app that answers ten times a second, asked twenty times a second for 20 s, with a pause in which it catches up.
        if !(80..90).contains(&tick) && tick < 200 {
            calls.extend((0..2).map(|_| world.call(request(Tier::Default))));
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        world.answers.add_permits(1);
        tokio::task::yield_now().await;
        told.extend(world.shared.tick(Instant::now()).map(|said| (tick, said)));
    }
    let [(began, first), (ended, last)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((first.change, last.change), (Change::Began, Change::Ended));
    assert!((9..20).contains(&began), "{began}");
    assert_eq!((first.load.limit, first.load.in_flight), (1, 1));
    assert!(first.load.enforced);
    assert!((298..320).contains(&ended), "{ended}");
    assert_eq!(last.load.queued, 0);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Sockets were no streams: their places came back with the head of the answer, and the cap on streams was none.
#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_is_a_stream_for_as_long_as_it_lasts_and_one_that_is_refused_is_not()
{
    for (status, held) in [(101, 1), (400, 0)] {
        let world = World::new(&limits(1, 0, Mode::Enforce));
        let app = service_fn(move |_: Box<Request>| async move {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        });
        let layer = AdmissionLayer {
            admission: world.shared.clone(),
        };
        let mut upgrade = request(Tier::Default);
        upgrade.context.upgrade = true;
        let answer = layer.layer(app).call(upgrade).await.expect("an answer");
        let (mut head, body) = answer.into_parts();
        drop(body);
        let place = head.extensions.remove::<Arc<Admitted>>();
        let streams = || world.shared.load().streams;
        assert_eq!((place.is_some(), streams()), (held == 1, held), "{status}");
        assert_eq!(world.settled().await, (0, 0));
        drop(place);
        assert_eq!(streams(), 0);
    }
}

/// The app hangs, and its caller goes.
#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_given_up_gives_its_place_back() {
    let world = World::new(&limits(1, 0, Mode::Enforce));
    let mut upgrade = request(Tier::Default);
    upgrade.context.upgrade = true;
    let call = world.call(upgrade);
    world.settled().await;
    assert_eq!(world.shared.load().streams, 1);
    call.abort();
    world.settled().await;
    assert_eq!(world.shared.load().streams, 0);
}
