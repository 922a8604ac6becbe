//! The outbound stack in paused time: all of it is the proxy's own but the sockets, which are functions here. Minutes
//! take milliseconds, so whole experiments of resilience.md section 12 are unit tests.

mod turns;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use weir_config::snapshot::{self, AccessLog as Format};
use weir_config::units;

use super::*;
use crate::connector::Connector;
use crate::endpoints::{Described, Endpoints};
use crate::facts;
use crate::head;
use crate::layer::{Answer, throttle};
use crate::member::Member;
use crate::policy::budget::Budget;
use crate::policy::deadline::{Deadline, parse_millis};
use crate::policy::transition::Phase;
use crate::request::{Context as RequestContext, Protocol};
use crate::telemetry::{BackendMetrics, Direction};

type Serve = Arc<dyn Fn(Box<Request>) -> BoxFuture<'static, StatusCode> + Send + Sync>;

/// Who answers at which address.
#[derive(Clone, Default)]
struct Servers(Arc<HashMap<SocketAddr, Serve>>);

impl Transport for Servers {
    async fn send(&self, _: &Endpoints, to: &Member, request: Box<Request>) -> Answer {
        let status = self.0[&to.address()](request).await;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.body_mut().endpoint = Some(to.address());
        Ok(response)
    }
}

/// A sidecar in front of one service.
#[derive(Clone)]
struct Sidecar {
    stack: Stack,
    endpoints: Arc<Endpoints>,
    limit: Arc<limit::Shared>,
}

/// `servers`: each listens on a real port as well, for the synthetic probes.
fn sidecar(outbound: &snapshot::Outbound, servers: &[Serve]) -> Sidecar {
    let listen = |_: &Serve| TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let listeners: Vec<_> = servers.iter().map(listen).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
    let addresses: Vec<_> = listeners.iter().map(address).collect();
    // They listen for as long as the process lives, and nobody accepts.
    listeners.into_iter().for_each(std::mem::forget);

    let service: Arc<str> = "boutique/catalog:3550".into();
    let metrics = Arc::new(BackendMetrics::new(&service));
    let connector = Connector {
        identity: Arc::default(),
        mark: None,
    };
    let endpoints = Arc::new(Endpoints::new(
        service.clone(),
        outbound,
        1,
        connector,
        facts::channel().0,
        metrics.clone(),
    ));
    let described = |address: &SocketAddr| Described {
        address: *address,
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    endpoints.update(true, addresses.iter().map(described).collect(), &[]);
    let ticking = endpoints.clone();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(50)).await;
            ticking.tick(Instant::now());
        }
    });
    let limits = &outbound.limits;
    let limit = Arc::new(limit::Shared::new(
        service.clone(),
        limits.in_flight.get(),
        limits.queue.get(),
        *limits.queue_timeout,
    ));
    let route = Outbound {
        service: service.clone(),
        route: "".into(),
        metrics: Arc::new(RouteMetrics::new(Direction::Outbound, &service, "")),
        log: AccessLog::new(Direction::Outbound, Format::Disabled),
        inherit: InheritLayer {
            shared: Arc::default(),
            deadline: true,
        },
        priorities: None,
        fallback: None,
        breaker: None,
        deadline: DeadlineLayer {
            limit: outbound.deadline.map(|deadline| deadline.get()),
        },
        limit: limit.clone(),
        retry: RetryLayer {
            retries: Arc::new(outbound.retries.clone()),
            budget: Arc::new(Mutex::new(Budget::new(
                outbound.retries.budget,
                Instant::now(),
            ))),
            endpoints: endpoints.clone(),
            metrics,
            hedges: false,
        },
        hedge: None,
        throttle: ThrottleLayer {
            throttle: Arc::new(throttle::Shared::new(service.clone(), endpoints.clone())),
            mode: snapshot::Mode::Enforce,
        },
        endpoints: endpoints.clone(),
        faults: Arc::new(fault::Shared::new(service.clone())),
    };
    let servers = addresses.into_iter().zip(servers.iter().cloned());
    let stack = outbound_over(route, Servers(Arc::new(servers.collect())));
    Sidecar {
        stack,
        endpoints,
        limit,
    }
}

fn policy(timeout: Duration) -> snapshot::Outbound {
    let millis = timeout.as_millis() as u64;
    snapshot::Outbound {
        deadline: Some(units::Duration::from_millis(millis)),
        ..snapshot::Outbound::default()
    }
}

fn request() -> Box<Request> {
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: RequestContext {
            idempotent: true,
            upgrade: false,
            protocol: Protocol::Http2,
            ..RequestContext::opaque(0)
        },
    })
}

/// What the next sidecar makes of the request, the app in between having handed its headers on.
fn received(request: &Request) -> Box<Request> {
    let headers = &request.head.headers;
    let now = Instant::now();
    let left = headers
        .get(&head::REQUEST_TIMEOUT_MS)
        .and_then(|value| parse_millis(value.as_bytes()));
    let mut received = self::request();
    received.context.deadline = Deadline::of_request(left, now);
    received.context.is_retry = request.context.is_retry || headers.contains_key(&head::ATTEMPT);
    received
}

impl Sidecar {
    /// Until the answer has been read to its end.
    async fn call(&self, request: Box<Request>) -> StatusCode {
        match self.stack.clone().call(request).await {
            Ok(response) => {
                let status = response.status();
                let read = response.into_body().collect().await;
                read.map_or(StatusCode::BAD_GATEWAY, |_| status)
            }
            Err(error) => error.facts().http,
        }
    }

    fn in_flight(&self) -> u32 {
        self.endpoints.list().iter().map(|m| m.in_flight()).sum()
    }
}

/// Users that call at a constant rate, whatever becomes of it; how many succeeded of those who asked in each second.
async fn users(sidecars: &[Sidecar], rate: u32, seconds: usize) -> Vec<f64> {
    let good: Arc<Vec<AtomicU32>> = Arc::new((0..seconds).map(|_| AtomicU32::new(0)).collect());
    let mut calls = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for second in 0..seconds {
        for number in 0..rate {
            // By the clock: each sleep alone would be rounded up to a millisecond.
            let at = second as f64 + f64::from(number) / f64::from(rate);
            sleep_until(begun + Duration::from_secs_f64(at)).await;
            let sidecar = sidecars[number as usize % sidecars.len()].clone();
            let good = good.clone();
            calls.spawn(async move {
                if sidecar.call(request()).await == StatusCode::OK {
                    good[second].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    calls.join_all().await;
    let share = |good: &AtomicU32| f64::from(good.load(Ordering::Relaxed)) / f64::from(rate);
    good.iter().map(share).collect()
}

/// G5 in the small: four fifths of the capacity are gone for three seconds; 20 sidecars may retry.
#[tokio::test(start_paused = true)]
async fn a_retry_storm_ends_with_its_trigger_and_hardly_adds_to_it() {
    let permits = Arc::new(Semaphore::new(8));
    let work = Arc::new(AtomicU64::new(8_000));
    let attempts = Arc::new(Mutex::new(vec![0u32; 14]));
    let begun = Instant::now();
    let server: Serve = {
        let (permits, work, attempts) = (permits.clone(), work.clone(), attempts.clone());
        Arc::new(move |_| {
            let second = begun.elapsed().as_secs() as usize;
            attempts.lock().expect("not poisoned")[second] += 1;
            let (permits, work) = (permits.clone(), work.clone());
            Box::pin(async move {
                let _permit = permits.acquire().await.expect("never closed");
                sleep(Duration::from_micros(work.load(Ordering::Relaxed))).await;
                StatusCode::OK
            })
        })
    };
    let policy = policy(Duration::from_millis(500));
    let sidecars: Vec<_> = (0..20)
        .map(|_| sidecar(&policy, std::slice::from_ref(&server)))
        .collect();
    tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        work.store(40_000, Ordering::Relaxed);
        sleep(Duration::from_secs(3)).await;
        work.store(8_000, Ordering::Relaxed);
    });
    let success = users(&sidecars, 800, 10).await;
    assert_eq!(success[..3], [1.0; 3]);
    assert!(success[4] < 0.5, "the trigger is one: {success:?}");
    assert!(
        success[7..].iter().all(|&share| share > 0.99),
        "{success:?}"
    );
    let attempts = attempts.lock().expect("not poisoned");
    let during: u32 = attempts[3..6].iter().sum();
    assert!(f64::from(during) <= 1.08 * 2400.0, "{attempts:?}");
    assert!(
        attempts.iter().all(|&n| f64::from(n) <= 1.10 * 800.0),
        "{attempts:?}"
    );
    assert!(sidecars.iter().all(|sidecar| sidecar.in_flight() == 0));
    assert_eq!(permits.available_permits(), 8);
}

/// G8: A → B → C → D, and D fails. `handed_on`: the apps hand on that they serve a retry.
async fn calls_at_d(handed_on: bool) -> f64 {
    let calls = Arc::new(AtomicU32::new(0));
    let d: Serve = {
        let calls = calls.clone();
        Arc::new(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { StatusCode::SERVICE_UNAVAILABLE })
        })
    };
    let policy = policy(Duration::from_secs(2));
    let through = |next: Serve| -> Serve {
        let sidecar = sidecar(&policy, &[next.clone(), next]);
        Arc::new(move |request| {
            let sidecar = sidecar.clone();
            let inner = if handed_on {
                received(&request)
            } else {
                self::request()
            };
            Box::pin(async move { sidecar.call(inner).await })
        })
    };
    let b = through(through(d));
    let a = sidecar(&policy, &[b.clone(), b]);
    let success = users(&[a], 100, 10).await;
    assert!(success.iter().all(|&share| share == 0.0));
    f64::from(calls.load(Ordering::Relaxed)) / 1000.0
}

#[tokio::test(start_paused = true)]
async fn retries_of_three_hops_do_not_multiply() {
    for handed_on in [true, false] {
        let calls = calls_at_d(handed_on).await;
        assert!((1.0..=1.1).contains(&calls), "{handed_on}: {calls}");
    }
}

/// G10: 200 ms for three hops. The second spends 150 of them before it calls the third, which wants 100.
#[tokio::test(start_paused = true)]
async fn work_that_nobody_waits_for_any_longer_is_stopped_at_every_hop_and_none_is_begun() {
    let (begun, finished) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let late = Arc::new(AtomicBool::new(false));
    let third: Serve = {
        let (begun, finished, late) = (begun.clone(), finished.clone(), late.clone());
        Arc::new(move |request| {
            let request = received(&request);
            if request.context.deadline.is_over(Instant::now()) {
                late.store(true, Ordering::Relaxed);
            }
            begun.fetch_add(1, Ordering::Relaxed);
            let finished = finished.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(100)).await;
                finished.fetch_add(1, Ordering::Relaxed);
                StatusCode::OK
            })
        })
    };
    // Their own policies would give them 15 s.
    let policy = snapshot::Outbound::default();
    let to_third = sidecar(&policy, &[third]);
    let second: Serve = {
        let to_third = to_third.clone();
        Arc::new(move |request| {
            let (to_third, inner) = (to_third.clone(), received(&request));
            Box::pin(async move {
                sleep(Duration::from_millis(150)).await;
                let mut inner = inner;
                inner.context.idempotent = false;
                to_third.call(inner).await
            })
        })
    };
    let to_second = sidecar(&policy, &[second]);
    for _ in 0..20 {
        let mut request = request();
        request.context.idempotent = false;
        request.context.deadline = Deadline::after(Duration::from_millis(200), Instant::now());
        let asked = Instant::now();
        let status = to_second.call(request).await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        let took = asked.elapsed().as_millis();
        assert!((200..=205).contains(&took), "{took} ms");
        sleep(Duration::from_millis(50)).await;
        assert_eq!(to_second.in_flight() + to_third.in_flight(), 0);
    }
    assert_eq!(begun.load(Ordering::Relaxed), 20);
    assert_eq!(finished.load(Ordering::Relaxed), 0, "nobody waited for it");
    assert!(!late.load(Ordering::Relaxed));
}

/// G16 in the small: a replica of three is good and bad for two seconds each, seen by ten sidecars.
#[tokio::test(start_paused = true)]
async fn a_flapping_replica_costs_nothing_and_nobody_comes_back_together() {
    let bad = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(Mutex::new(HashMap::<u64, u32>::new()));
    let begun = Instant::now();
    let flapping: Serve = {
        let (bad, sent) = (bad.clone(), sent.clone());
        Arc::new(move |_| {
            let slot = begun.elapsed().as_millis() as u64 / 100;
            *sent.lock().expect("not poisoned").entry(slot).or_default() += 1;
            let is_bad = bad.load(Ordering::Relaxed);
            Box::pin(async move {
                let (millis, status) = match is_bad {
                    true => (1, StatusCode::SERVICE_UNAVAILABLE),
                    false => (8, StatusCode::OK),
                };
                sleep(Duration::from_millis(millis)).await;
                status
            })
        })
    };
    let good: Serve = Arc::new(|_| {
        Box::pin(async {
            sleep(Duration::from_millis(8)).await;
            StatusCode::OK
        })
    });
    let policy = policy(Duration::from_secs(1));
    let servers = [flapping, good.clone(), good];
    let sidecars: Vec<_> = (0..10).map(|_| sidecar(&policy, &servers)).collect();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(2)).await;
            bad.fetch_xor(true, Ordering::Relaxed);
        }
    });
    let success = users(&sidecars, 500, 40).await;
    let mean = success.iter().sum::<f64>() / success.len() as f64;
    assert!(mean >= 0.999, "{mean}");
    // 17 a 100 ms would be its fair share.
    let sent = sent.lock().expect("not poisoned");
    let most = sent
        .iter()
        .filter(|(slot, _)| **slot >= 20)
        .map(|(_, n)| *n)
        .max();
    assert!(most <= Some(25), "{most:?}");
}

/// A black hole among three: what is in flight there is tried elsewhere as soon as its silence tells, and it gets
/// nothing more.
#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_no_request_and_is_out_in_three_hundred_milliseconds() {
    let hangs = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let hanging: Serve = {
        let (hangs, asked) = (hangs.clone(), asked.clone());
        Arc::new(move |_| {
            let hangs = hangs.load(Ordering::Relaxed);
            asked.fetch_add(u32::from(hangs), Ordering::Relaxed);
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(8)).await;
                StatusCode::OK
            })
        })
    };
    let good: Serve = Arc::new(|_| {
        Box::pin(async {
            sleep(Duration::from_millis(8)).await;
            StatusCode::OK
        })
    });
    let sidecar = sidecar(
        &policy(Duration::from_secs(1)),
        &[hanging, good.clone(), good],
    );
    let endpoints = sidecar.endpoints.clone();
    let watch = tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        hangs.store(true, Ordering::Relaxed);
        let broke = Instant::now();
        let closed = |m: &Arc<Member>| m.learnt().gate.state() == Phase::Closed;
        while endpoints.list().iter().all(closed) {
            sleep(Duration::from_millis(5)).await;
        }
        broke.elapsed()
    });
    // Its port is open, so once a second or so a request is the probe that finds out.
    let success = users(&[sidecar], 300, 6).await;
    assert!(success.iter().all(|&share| share == 1.0), "{success:?}");
    let out_after = watch.await.expect("it is noticed");
    assert!(out_after <= Duration::from_millis(300), "{out_after:?}");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 12, "{asked}");
}

/// Callers that leave at any moment - in the queue, as their turn comes, in the app, between two tries - leave nothing
/// behind: no place of the limit, none of an endpoint, no probe.
#[tokio::test(start_paused = true)]
async fn whenever_callers_leave_every_place_is_given_back() {
    for seed in 0..50 {
        let dice = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let draw = {
            let dice = dice.clone();
            move |max: u64| dice.lock().expect("not poisoned").u64(..max)
        };
        let server: Serve = {
            let draw = draw.clone();
            Arc::new(move |_| {
                let (millis, fails) = (draw(40), draw(4) == 0);
                Box::pin(async move {
                    sleep(Duration::from_millis(millis)).await;
                    match fails {
                        true => StatusCode::SERVICE_UNAVAILABLE,
                        false => StatusCode::OK,
                    }
                })
            })
        };
        let mut policy = policy(Duration::from_millis(300));
        policy.limits.in_flight = units::Count::of(3);
        policy.limits.queue = units::Count::of(5);
        policy.limits.queue_timeout = units::Duration::from_millis(20);
        let sidecar = sidecar(&policy, &[server.clone(), server]);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (sidecar, patience) = (sidecar.clone(), Duration::from_millis(draw(60)));
            calls.spawn(async move {
                // Nobody is told why it ended: the caller may be gone.
                let _ = tokio::time::timeout(patience, sidecar.call(request())).await;
            });
            sleep(Duration::from_millis(draw(10))).await;
        }
        calls.join_all().await;
        assert_eq!(sidecar.limit.load(), (0, 0), "seed {seed}");
        assert_eq!(sidecar.in_flight(), 0, "seed {seed}");
        for member in sidecar.endpoints.list().iter() {
            assert_eq!(member.learnt().waiting.oldest(), None, "seed {seed}");
        }
    }
}
