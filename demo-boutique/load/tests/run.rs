//! Runs against servers in this process: what is measured, what is counted, what is bounded.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boutique_load::{
    Arrivals, Bounds, Class, Event, GrpcCall, Journeys, Plan, Work, run, run_until,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::http::{HeaderMap, StatusCode};
use rustix::thread::{Timespec, nanosleep};
use support::{Protocol, Server, ok};
use tokio::time::{Instant, sleep, sleep_until};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_stalled_server_shows_in_the_latency_of_everybody_who_would_have_called() {
    let begin = Instant::now();
    let stall = (begin + 300 * MS)..(begin + 800 * MS);
    let server = Server::start(Protocol::Http1, move |_| {
        let stall = stall.clone();
        async move {
            if stall.contains(&Instant::now()) {
                sleep_until(stall.end).await;
            }
            ok()
        }
    })
    .await;
    let report = run(server.plan(100.0, Duration::from_secs(1)), |_| {}).await;

    assert_eq!(report.summary().totals.ok, 100);
    // Half a second at 100 a second: each waited for what was left of the stall.
    let waited = |at_least: Duration| {
        let samples = report.samples().iter();
        samples
            .filter(|sample| sample.end() - sample.intended() >= at_least)
            .count()
    };
    assert!(waited(5 * MS) >= 45, "{}", waited(5 * MS));
    assert!(
        (20..=30).contains(&waited(250 * MS)),
        "{}",
        waited(250 * MS)
    );
    // And the window of the stall tells it, where the whole run's median does not.
    let stalled = report.window(320 * MS..550 * MS).all.expect("sent");
    assert!(stalled.p50 >= 240.0, "{stalled:?}");
    assert!(
        report
            .window(Duration::ZERO..250 * MS)
            .all
            .expect("sent")
            .p50
            < 100.0
    );
}

#[tokio::test]
async fn a_generator_that_was_held_up_itself_does_not_forget_the_time() {
    let server = Server::ok().await;
    let mut held = false;
    let report = run(server.plan(100.0, Duration::from_secs(1)), |event| {
        if matches!(event, Event::Sample(sample, _) if sample.intended() >= 300 * MS) && !held {
            held = true;
            // The whole runtime stands still, as on a machine that is too busy.
            let _ = nanosleep(&Timespec {
                tv_sec: 0,
                tv_nsec: 400_000_000,
            });
        }
    })
    .await;
    let summary = report.summary();
    assert_eq!(summary.totals.ok, 100, "nobody was skipped");
    assert!(summary.all.expect("sent").max >= 350.0, "{summary:?}");
    assert!(summary.send_lag.expect("sent").max >= 350.0, "{summary:?}");
    let late = report.window(400 * MS..500 * MS).all.expect("sent");
    assert!(
        late.p50 >= 150.0,
        "meant to be sent while it stood still: {late:?}"
    );
}

#[tokio::test]
async fn never_more_than_so_many_are_in_flight_and_what_cannot_start_is_counted() {
    let server = Server::start(Protocol::Http1, async |_| {
        std::future::pending::<()>().await;
        ok()
    })
    .await;
    let mut plan = server.plan(100.0, Duration::from_secs(1));
    let bounds = plan
        .bounds
        .max_in_flight(5)
        .and_then(|bounds| bounds.timeout(300 * MS));
    plan.bounds = bounds.expect("valid");
    let start = Instant::now();
    let report = run(plan, |_| {}).await;
    assert!(
        start.elapsed() < 1_700 * MS,
        "a run outlives its duration by a timeout at most"
    );

    // A timed out connection is noticed by the server a little after the next one was made.
    assert!(server.busiest.load(Ordering::SeqCst) <= 10);
    let totals = report.summary().totals;
    assert_eq!(totals.offered, 100);
    assert_eq!(totals.timeout + totals.dropped, 100, "{totals:?}");
    assert!(
        (10..=20).contains(&totals.timeout),
        "5 every 300 ms: {totals:?}"
    );
    assert_eq!(report.failures()["too many in flight"], totals.dropped);
    assert!(!report.reached());
}

#[tokio::test]
async fn the_number_of_requests_is_a_bound_too() {
    let server = Server::ok().await;
    let mut plan = server.plan(1_000.0, Duration::from_secs(30));
    plan.bounds = plan.bounds.max_requests(50).expect("valid");
    let start = Instant::now();
    let report = run(plan, |_| {}).await;
    assert_eq!(report.summary().totals.ok, 50);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_run_that_is_stopped_lets_finish_what_is_in_flight() {
    let server = Server::start(Protocol::Http1, async |_| {
        sleep(200 * MS).await;
        ok()
    })
    .await;
    let start = Instant::now();
    let plan = server.plan(50.0, Duration::from_secs(60));
    let report = run_until(plan, |_| {}, sleep(500 * MS)).await;
    assert!(report.interrupted);
    assert!(start.elapsed() < 1_500 * MS);
    let totals = report.summary().totals;
    assert!((20..=27).contains(&totals.ok), "{totals:?}");
    assert_eq!(totals.ok, totals.offered, "nothing was cut");
}

#[tokio::test]
async fn connections_are_kept_and_those_that_were_closed_cost_no_request() {
    let kept = Server::ok().await;
    let report = run(kept.plan(200.0, 500 * MS), |_| {}).await;
    assert_eq!(report.summary().totals.ok, 100);
    let connections = kept.connections.load(Ordering::SeqCst);
    assert!(connections <= 10, "{connections} connections");

    let closing = Server::start(Protocol::Http1, async |_| {
        let mut response = ok();
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    })
    .await;
    let report = run(closing.plan(200.0, 500 * MS), |_| {}).await;
    assert_eq!(report.summary().totals.ok, 100, "{:?}", report.failures());
    assert_eq!(closing.connections.load(Ordering::SeqCst), 100);
}

#[tokio::test]
async fn the_same_seed_sends_the_same_requests_at_the_same_times() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let server = Server::start(Protocol::Http1, move |request| {
            let cookie = request.headers()["cookie"]
                .to_str()
                .expect("ASCII")
                .to_owned();
            log.lock()
                .expect("no panic")
                .push(format!("{} {cookie}", request.uri()));
            async { ok() }
        })
        .await;
        let mut plan = server.plan(200.0, 500 * MS);
        // Without the checkout: who orders depends on who was answered before.
        let journeys = Journeys::shop().weighted("browse=10,product=6,search=2,cart=2");
        plan.work = Work::Http(journeys.expect("valid"));
        plan.arrivals = Arrivals::Poisson;
        plan.seed = seed;
        let report = run(plan, |_| {}).await;
        let times: Vec<_> = report
            .samples()
            .iter()
            .map(|sample| (sample.intended(), sample.journey()))
            .collect();
        // Requests that were in flight together may arrive in another order.
        let mut asked = std::mem::take(&mut *asked.lock().expect("no panic"));
        asked.sort();
        assert_eq!(asked.len(), times.len());
        runs.push((times, asked));
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn visitors_of_the_shop_are_told_apart_by_what_they_got() {
    let server = Server::start(Protocol::Http1, async |request| {
        let mut response = ok();
        let (status, header) = match request.uri().path() {
            "/" => (StatusCode::OK, Some("x-boutique-degraded")),
            "/search" => (StatusCode::SERVICE_UNAVAILABLE, Some("x-weir-overload")),
            "/cart" => (StatusCode::SEE_OTHER, None),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        *response.status_mut() = status;
        if let Some(header) = header {
            let name = HeaderName::from_static(header);
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("local"));
        }
        response
    })
    .await;
    let mut plan = server.plan(500.0, 400 * MS);
    plan.work = Work::Http(Journeys::shop());
    let report = run(plan, |_| {}).await;

    let by_journey: BTreeMap<_, _> = report
        .journeys()
        .into_iter()
        .map(|journey| (journey.journey, journey.summary.totals))
        .collect();
    let totals = |journey: &str| by_journey[journey];
    assert!(totals("browse").offered > totals("product").offered);
    assert_eq!(totals("browse").degraded, totals("browse").offered);
    assert_eq!(totals("search").shed, totals("search").offered);
    assert_eq!(totals("cart").ok, totals("cart").offered);
    assert_eq!(totals("product").error, totals("product").offered);
    assert_eq!(totals("checkout").error, totals("checkout").offered);
    let failed = totals("product").offered + totals("checkout").offered;
    assert_eq!(report.failures()["status 500"], failed);
    let all = report.summary().totals;
    assert_eq!((all.offered, all.done), (200, 200));
}

#[tokio::test]
async fn who_checks_out_has_something_in_the_cart() {
    let full = Arc::new(Mutex::new(BTreeSet::new()));
    let server = Server::start(Protocol::Http1, move |request| {
        let visitor = request.headers()["cookie"].clone();
        let mut full = full.lock().expect("no panic");
        let ordered = match request.uri().path() {
            "/checkout" => full.remove(visitor.as_bytes()),
            _ => {
                full.insert(visitor.as_bytes().to_owned());
                false
            }
        };
        drop(full);
        async move {
            let mut response = ok();
            if !ordered {
                *response.status_mut() = StatusCode::SEE_OTHER;
            }
            response
        }
    })
    .await;
    for weights in ["cart=1,checkout=3", "checkout=1"] {
        let mut plan = server.plan(400.0, 500 * MS);
        let journeys = Journeys::shop().weighted(weights);
        plan.work = Work::Http(journeys.expect("valid"));
        let report = run(plan, |_| {}).await;
        assert_eq!(report.failures(), BTreeMap::new(), "{weights}");
        let all = report.summary().totals;
        assert_eq!((all.offered, all.ok), (200, 200));
        let checkouts = report.journeys().into_iter();
        let checkouts = checkouts.filter(|journey| journey.journey == "checkout");
        let orders: u64 = checkouts.map(|journey| journey.summary.totals.ok).sum();
        assert!(orders >= 80, "half of them, about: {orders} ordered");
    }
}

/// A cart that was lost meanwhile, say.
#[tokio::test]
async fn an_order_of_nothing_is_an_error() {
    let server = Server::start(Protocol::Http1, async |_| {
        let mut response = ok();
        *response.status_mut() = StatusCode::SEE_OTHER;
        response
    })
    .await;
    let mut plan = server.plan(400.0, 250 * MS);
    plan.work = Work::Http(Journeys::shop().weighted("checkout=1").expect("valid"));
    let report = run(plan, |_| {}).await;
    for journey in report.journeys() {
        let totals = journey.summary.totals;
        let expected = match journey.journey.as_str() {
            "checkout" => totals.error,
            _ => totals.ok,
        };
        assert_eq!(totals.offered, expected, "{}", journey.journey);
    }
    assert!(report.failures()["status 303"] >= 40);
}

#[tokio::test]
async fn the_series_adds_up_to_what_was_offered() {
    let server = Server::ok().await;
    let mut plan = server.plan(1.0, Duration::from_secs(1));
    plan.rate = "100,200@500ms".parse().expect("valid");
    let report = run(plan, |_| {}).await;
    let series = report.series(250 * MS);
    let offered: Vec<_> = series.iter().map(|point| point.totals.offered).collect();
    assert_eq!(offered, [25, 25, 50, 50]);
    assert!(
        series
            .iter()
            .all(|point| point.totals.ok == point.totals.offered)
    );
    assert!(series.iter().all(|point| point.latency.is_some()));
    let json = report.to_json(500 * MS);
    assert_eq!(json["series"]["points"][1]["offered"], 100);
    assert_eq!(json["totals"]["ok"], 150);
    assert!(
        json["latency_ms"]["served"]["p99.9"].is_number(),
        "{json:#}"
    );
}

#[tokio::test]
async fn a_tick_a_second_tells_how_it_goes() {
    let server = Server::ok().await;
    let mut ticks = Vec::new();
    run(server.plan(100.0, 2_500 * MS), |event| {
        if let Event::Tick(tick) = event {
            ticks.push(tick.clone());
        }
    })
    .await;
    assert_eq!(ticks.len(), 2);
    let of_second = ticks[1].latest.totals.offered;
    assert!((80..=120).contains(&of_second), "{of_second}");
    assert!(ticks[1].totals.offered >= 180);
}

fn grpc_plan(server: &Server, connections: usize) -> Plan {
    let call = GrpcCall::new("/boutique.v1.Cart/GetCart", b"\x0a\x01a", connections);
    Plan {
        work: Work::Grpc(call.expect("valid")),
        ..server.plan(100.0, 300 * MS)
    }
}

fn grpc_status(status: &'static str) -> HeaderMap {
    let name = HeaderName::from_static("grpc-status");
    [(name, HeaderValue::from_static(status))]
        .into_iter()
        .collect()
}

#[tokio::test]
async fn grpc_calls_carry_their_message_over_all_connections() {
    let wrong = Arc::new(AtomicUsize::new(0));
    let count = wrong.clone();
    let server = Server::start(Protocol::Http2, move |request| {
        let count = count.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let is_right = head.uri.path() == "/boutique.v1.Cart/GetCart"
                && head.headers["te"] == "trailers"
                && head.headers["grpc-timeout"] == "5000m"
                && body.as_ref() == b"\0\0\0\0\x03\x0a\x01a";
            count.fetch_add(usize::from(!is_right), Ordering::SeqCst);
            let answer = Full::new(Bytes::from_static(b"\0\0\0\0\0"));
            Response::new(answer.with_trailers(async { Some(Ok(grpc_status("0"))) }))
        }
    })
    .await;
    let report = run(grpc_plan(&server, 3), |_| {}).await;
    assert_eq!(report.summary().totals.ok, 30, "{:?}", report.failures());
    assert_eq!(wrong.load(Ordering::SeqCst), 0);
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_grpc_answer_of_trailers_only_has_its_status() {
    for (status, class) in [
        ("8", Class::Shed),
        ("4", Class::Timeout),
        ("14", Class::Error),
    ] {
        let server = Server::start(Protocol::Http2, move |_| async move {
            let mut response = ok();
            response.headers_mut().extend(grpc_status(status));
            response
        })
        .await;
        let report = run(grpc_plan(&server, 1), |_| {}).await;
        assert!(
            report
                .samples()
                .iter()
                .all(|sample| sample.class() == class),
            "{status}"
        );
        assert!(report.reached());
    }
    let silent = Server::start(Protocol::Http2, async |_| ok()).await;
    let report = run(grpc_plan(&silent, 1), |_| {}).await;
    assert_eq!(report.failures()["no grpc-status"], 30);
}

#[tokio::test]
async fn a_target_that_is_not_there_is_an_error_and_not_a_hang() {
    let server = Server::ok().await;
    let mut plan = server.plan(100.0, 200 * MS);
    // Port 1 of loopback: nothing listens there.
    let nowhere = boutique_load::Target::parse("127.0.0.1:1", &boutique_load::Reach::loopback());
    plan.target = nowhere.expect("loopback");
    plan.bounds = Bounds::new(200 * MS).expect("valid");
    let report = run(plan, |_| {}).await;
    assert_eq!(report.failures()["no connection"], 20);
    assert!(!report.reached());
}
