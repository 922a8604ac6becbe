use std::sync::Mutex;

use weir_config::snapshot;

use super::*;
use crate::endpoints::tests::{described_at, fail, pool, pool_at};
use crate::policy::budget::{Budget, Millitokens, TRANSPARENT};
use crate::replay::Replay;
use crate::request::{Context, Protocol};

fn no_faults() -> Arc<fault::Shared> {
    Arc::new(fault::Shared::new("a/b:1".into()))
}

fn request(deadline: Deadline, try_until: Deadline, grpc: bool) -> Box<Request> {
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: Context {
            deadline,
            try_until,
            grpc,
            upgrade: false,
            protocol: Protocol::Http2,
            ..Context::opaque(0)
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_has_until_the_end_of_its_try_and_then_it_is_known_which_time_was_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = silent.local_addr().expect("it is bound");
    let now = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(10), now);
    let third = Deadline::after(Duration::from_secs(3), now);
    for (try_until, took, code) in [
        (third, 3, "per-try-timeout"),
        (deadline, 7, "deadline-exceeded"),
    ] {
        let (mut attempt, started) = (
            Attempt {
                endpoints: pool_at(&[address]),
                faults: no_faults(),
                transport: Sockets,
            },
            Instant::now(),
        );
        let result = attempt.call(request(deadline, try_until, false)).await;
        let error = result.err().expect("nobody answers");
        assert_eq!(error.facts().code, code);
        assert_eq!(started.elapsed().as_secs(), took);
    }
}

/// Takes so long for an answer.
#[derive(Clone)]
struct Takes(Duration);

impl Transport for Takes {
    async fn send(&self, _: &Endpoints, _: &Member, _: Box<Request>) -> Answer {
        tokio::time::sleep(self.0).await;
        Ok(http::Response::new(Body::empty()))
    }
}

/// In a retry storm all were given up on at a quarter of their time, with nothing to follow, and the app worked for nobody.
#[tokio::test(start_paused = true)]
async fn a_try_has_more_than_its_share_while_no_other_is_paid_for() {
    let millis = Duration::from_millis;
    let outcome = async |tokens: u32, until_paid: Option<Duration>| {
        let started = Instant::now();
        let deadline = Deadline::after(millis(500), started);
        let mut budget = Budget::new(snapshot::Budget::default(), started);
        while budget.tokens() > Millitokens(tokens * 1000) {
            assert!(budget.withdraw(TRANSPARENT, started));
        }
        let budget = Arc::new(Mutex::new(budget));
        let mut request = request(deadline, Deadline::NEVER, false);
        request.context.share = Some(Share {
            until: deadline.share(4, started),
            budget: budget.clone(),
            replay: None,
        });
        let mut attempt = Attempt {
            endpoints: pool(1),
            faults: no_faults(),
            transport: Takes(millis(300)),
        };
        let pays = async {
            match until_paid {
                Some(until) => tokio::time::sleep(until).await,
                None => std::future::pending().await,
            }
            for _ in 0..20 {
                let mut budget = budget.lock().expect("not poisoned");
                budget.deposit(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = attempt.call(request) => result,
            () = pays => unreachable!("it never ends"),
        };
        (result.is_ok(), started.elapsed())
    };
    assert_eq!(outcome(10, None).await, (false, millis(125)));
    assert_eq!(outcome(0, None).await, (true, millis(300)));
    let (answered, elapsed) = outcome(0, Some(millis(150))).await;
    assert!(!answered, "now one is");
    assert!(
        elapsed >= millis(150) && elapsed <= millis(225),
        "{elapsed:?}"
    );
}

/// Half of its time was kept for a try that could not end in the other half, and so was not made.
#[tokio::test(start_paused = true)]
async fn a_try_has_more_than_its_share_where_no_other_could_end_in_time() {
    let millis = Duration::from_millis;
    for (usual, took) in [(400, 450), (200, 250)] {
        let attempt = |takes| Attempt {
            endpoints: pool(1),
            faults: no_faults(),
            transport: Takes(millis(takes)),
        };
        let mut usually = attempt(usual);
        let whole = request(Deadline::NEVER, Deadline::NEVER, false);
        assert!(usually.call(whole).await.is_ok());
        let mut slow = Attempt {
            endpoints: usually.endpoints,
            ..attempt(450)
        };
        let started = Instant::now();
        let deadline = Deadline::after(millis(500), started);
        let budget = Budget::new(snapshot::Budget::default(), started);
        let mut request = request(deadline, Deadline::NEVER, false);
        request.context.replayable = true;
        request.context.share = Some(Share {
            until: deadline.share(2, started),
            budget: Arc::new(Mutex::new(budget)),
            replay: None,
        });
        let answer = slow.call(request).await;
        assert_eq!(started.elapsed(), millis(took), "{usual}");
        assert_eq!(answer.is_ok(), took == 450);
    }
}

/// A PUT of a megabyte had half of its deadline, and its endpoint the blame, though nothing could follow.
#[tokio::test(start_paused = true)]
async fn a_try_that_no_other_can_follow_has_all_of_the_time() {
    let outcome = async |takes| {
        let started = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(500), started);
        let replay = Replay::new(Body::full("kept".into()));
        replay.commit();
        let budget = Budget::new(snapshot::Budget::default(), started);
        let mut request = request(deadline, Deadline::NEVER, false);
        request.context.replayable = true;
        request.context.share = Some(Share {
            until: deadline.share(2, started),
            budget: Arc::new(Mutex::new(budget)),
            replay: Some(replay),
        });
        let mut attempt = Attempt {
            endpoints: pool(1),
            faults: no_faults(),
            transport: Takes(Duration::from_millis(takes)),
        };
        let answer = attempt.call(request).await;
        answer.map_err(|error| error.facts().code).map(drop)
    };
    assert_eq!(outcome(400).await, Ok(()), "there was time for it");
    let late = Err("deadline-exceeded");
    assert_eq!(
        outcome(60_000).await,
        late,
        "its caller's time, not the try's"
    );
}

/// Many waited at an endpoint that was ejected, a few could be paid for, and the rest failed though they were being served.
#[tokio::test(start_paused = true)]
async fn who_waits_for_an_endpoint_that_is_ejected_stays_while_no_other_try_is_paid_for() {
    for (tokens, served) in [(1, false), (0, true)] {
        let endpoints = pool(2);
        let [bad, good] = [0, 1].map(|index| endpoints.list()[index].address());
        let started = Instant::now();
        let deadline = Deadline::after(Duration::from_secs(10), started);
        let mut budget = Budget::new(snapshot::Budget::default(), started);
        while budget.tokens() > Millitokens(tokens * 1000) {
            assert!(budget.withdraw(TRANSPARENT, started));
        }
        let mut request = request(deadline, Deadline::NEVER, false);
        request.context.tried = vec![good];
        request.context.replayable = true;
        request.context.share = Some(Share {
            until: deadline.share(2, started),
            budget: Arc::new(Mutex::new(budget)),
            replay: None,
        });
        let mut attempt = Attempt {
            endpoints: endpoints.clone(),
            faults: no_faults(),
            transport: Takes(Duration::from_millis(300)),
        };
        let call = tokio::spawn(async move { attempt.call(request).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(endpoints.list()[0].address(), bad);
        for _ in 0..5 {
            fail(&endpoints, 0, &[]);
        }
        let answer = call.await.expect("no panic");
        assert_eq!(answer.is_ok(), served, "{tokens} tokens");
        assert_eq!(started.elapsed() < Duration::from_millis(10), !served);
    }
}

/// A partition would otherwise be nobody's fault, and no breaker would open.
#[tokio::test(start_paused = true)]
async fn who_had_more_than_a_share_and_said_nothing_is_to_blame() {
    let started = Instant::now();
    let deadline = Deadline::after(Duration::from_millis(500), started);
    let mut budget = Budget::new(snapshot::Budget::default(), started);
    while budget.withdraw(TRANSPARENT, started) {}
    let mut request = request(deadline, Deadline::NEVER, false);
    request.context.share = Some(Share {
        until: deadline.share(2, started),
        budget: Arc::new(Mutex::new(budget)),
        replay: None,
    });
    let mut attempt = Attempt {
        endpoints: pool(1),
        faults: no_faults(),
        transport: Takes(Duration::from_secs(60)),
    };
    let error = attempt.call(request).await.err().expect("no answer");
    assert_eq!(error.facts().code, "per-try-timeout");
    assert_eq!(started.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn the_next_hop_is_told_what_is_left_and_not_asked_when_nothing_is() {
    let deadline = Deadline::after(Duration::from_millis(1200), Instant::now());
    tokio::time::advance(Duration::from_millis(200)).await;
    for (grpc, header, value) in [
        (true, "grpc-timeout", "1000000u"),
        (false, "x-request-timeout-ms", "1000"),
    ] {
        let mut request = request(deadline, Deadline::NEVER, grpc);
        request.tell_deadline(Instant::now());
        assert_eq!(request.head.headers[header], value);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let endpoints = pool(1);
    let mut attempt = Attempt {
        endpoints: endpoints.clone(),
        faults: no_faults(),
        transport: Sockets,
    };
    let late = attempt.call(request(deadline, Deadline::NEVER, true)).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded { .. })));
    let member = &endpoints.list()[0];
    assert_eq!(member.in_flight(), 0);
    assert_eq!(member.learnt().waiting.oldest(), None);
}

/// Answers with what the next hop was told.
#[derive(Clone)]
struct Told;

impl Transport for Told {
    async fn send(&self, _: &Endpoints, _: &Member, request: Box<Request>) -> Answer {
        let mut response = http::Response::new(Body::empty());
        *response.headers_mut() = request.head.headers;
        Ok(response)
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_the_first_endpoint_has_so_much_less_time_left() {
    let endpoints = pool_at(&[]);
    let arrival = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let described = described_at(([127, 0, 0, 1], 1000).into());
        endpoints.update(false, vec![described], &[]);
    };
    let deadline = Deadline::after(Duration::from_secs(1), Instant::now());
    let mut attempt = Attempt {
        endpoints: endpoints.clone(),
        faults: no_faults(),
        transport: Told,
    };
    let call = attempt.call(request(deadline, Deadline::NEVER, false));
    let (answer, ()) = tokio::join!(call, arrival);
    let answer = answer.expect("there is an endpoint now");
    assert_eq!(answer.headers()["x-request-timeout-ms"], "850");
}

/// Which endpoint says nothing the first time it is asked and fails from then on; all others are well.
#[derive(Clone)]
struct Hangs(std::net::SocketAddr, Arc<std::sync::atomic::AtomicU32>);

impl Transport for Hangs {
    async fn send(&self, _: &Endpoints, to: &Member, _: Box<Request>) -> Answer {
        let mut response = http::Response::new(Body::empty());
        if to.address() == self.0 {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok(response)
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_endpoint_that_is_ejected_hears_of_it_if_it_may_go_elsewhere() {
    for replayable in [true, false] {
        let endpoints = pool(2);
        let [bad, good] = [0, 1].map(|index| endpoints.list()[index].address());
        let attempt = Attempt {
            endpoints,
            faults: no_faults(),
            transport: Hangs(bad, Arc::default()),
        };
        let call = || {
            let deadline = Deadline::after(Duration::from_secs(10), Instant::now());
            let mut request = request(deadline, Deadline::NEVER, false);
            request.context.tried = vec![good];
            request.context.replayable = replayable;
            attempt.clone().call(request)
        };
        let (waits, started) = (tokio::spawn(call()), Instant::now());
        tokio::time::sleep(Duration::from_millis(1)).await;
        for _ in 0..5 {
            drop(call().await.expect("it answers"));
        }
        let error = waits.await.expect("no panic").err().expect("no answer");
        let code = error.facts().code;
        if replayable {
            assert!(matches!(error, Error::Ejected { .. }), "{code}");
            assert!(started.elapsed() < Duration::from_millis(10));
        } else {
            assert_eq!(code, "deadline-exceeded", "it may be at work");
        }
    }
}

/// Its endpoint is ejected by another worker while the request is being sent.
#[derive(Clone)]
struct Ejecting(Arc<Endpoints>);

impl Transport for Ejecting {
    async fn send(&self, _: &Endpoints, to: &Member, _: Box<Request>) -> Answer {
        let is_meant = |member: &Arc<Member>| member.address() == to.address();
        let index = self.0.list().iter().position(is_meant);
        for _ in 0..5 {
            fail(&self.0, index.expect("it is in the pool"), &[]);
        }
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_ejected_before_anybody_listens_is_left_all_the_same() {
    let endpoints = pool(2);
    let started = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(10), started);
    let mut request = request(deadline, Deadline::NEVER, false);
    request.context.replayable = true;
    let mut attempt = Attempt {
        transport: Ejecting(endpoints.clone()),
        endpoints,
        faults: no_faults(),
    };
    let error = attempt.call(request).await.err().expect("no answer");
    assert!(matches!(error, Error::Ejected { .. }), "{error}");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// `weir explain` said of it that it was nowhere, and refused.
#[tokio::test(start_paused = true)]
async fn who_had_the_request_when_its_time_was_up_is_told_of() {
    let endpoints = pool(1);
    let deadline = Deadline::after(Duration::from_millis(500), Instant::now());
    let mut attempt = Attempt {
        endpoints: endpoints.clone(),
        faults: no_faults(),
        transport: Takes(Duration::from_secs(60)),
    };
    let late = attempt
        .call(request(deadline, Deadline::NEVER, false))
        .await;
    let error = late.err().expect("no answer");
    assert_eq!(error.facts().code, "deadline-exceeded");
    assert_eq!(error.endpoint(), Some(endpoints.list()[0].address()));
}
