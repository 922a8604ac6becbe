//! Runs against servers in this process: what is measured, what is counted, what is bounded.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boutique_load::{
    Arrivals, Bounds, Class, Event, GrpcCall, Journeys, Plan, Report, Sample, Work, run, run_until,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::http::{HeaderMap, StatusCode};
use rustix::thread::{Timespec, nanosleep};
use support::{Protocol, Server, ok};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
/// Longer than what is waited for takes on any machine.
const MINUTE: Duration = Duration::from_secs(60);

/// Passes in so many small steps. A machine that stands still meanwhile makes one of them late, and not a test fail.
async fn pass(time: Duration) {
    const STEP: Duration = Duration::from_millis(50);
    for _ in 0..time.as_millis().div_ceil(STEP.as_millis()) {
        sleep(STEP).await;
    }
}

/// Runs until so many requests, with their journeys, are like this; else to its end.
async fn run_until_seen(plan: Plan, many: usize, is_one: impl Fn(&Sample, &str) -> bool) -> Report {
    let (tell, mut told) = watch::channel(0);
    let note = |event: Event<'_>| {
        if let Event::Sample(sample, journeys) = event
            && is_one(sample, &journeys[usize::from(sample.journey())])
        {
            tell.send_modify(|seen| *seen += 1);
        }
    };
    let enough = async {
        let enough = told.wait_for(|seen| *seen >= many).await;
        enough.expect("the run keeps it");
    };
    run_until(plan, note, enough).await
}

/// How many of these were under way at once.
fn at_once<'a>(samples: impl Iterator<Item = &'a Sample>) -> usize {
    let mut changes: Vec<(Duration, bool)> = samples
        .flat_map(|sample| [(sample.start(), false), (sample.end(), true)])
        .collect();
    // Of the same moment those that begin come first.
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, ended) in changes {
        match ended {
            true => now -= 1,
            false => now += 1,
        }
        most = most.max(now);
    }
    most
}

#[tokio::test]
async fn a_stalled_server_shows_in_the_latency_of_everybody_who_would_have_called() {
    /// Answered before it stalls, and those that come until it goes on: half a second at 100 a second.
    const BEFORE: usize = 30;
    const STALLED: usize = 50;
    let (asked, (noted, answers)) = (Arc::new(AtomicUsize::new(0)), watch::channel(0));
    let arrivals = watch::Sender::new(0);
    let come = arrivals.clone();
    let server = Server::start(Protocol::Http1, move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        come.send_replace(number + 1);
        let (mut come, mut answers) = (come.subscribe(), answers.clone());
        async move {
            if (BEFORE..BEFORE + STALLED).contains(&number) {
                // It goes on when the others have come, which they only do if nobody waits for it.
                let all_came = come.wait_for(|come| *come >= BEFORE + STALLED).await;
                all_came.expect("the test keeps it");
                let noted = answers.wait_for(|noted| *noted >= BEFORE).await;
                noted.expect("the test keeps it");
            }
            ok()
        }
    })
    .await;
    let report = run(server.plan(100.0, Duration::from_secs(1)), |event| {
        if let Event::Sample(..) = event {
            noted.send_modify(|noted| *noted += 1);
        }
    })
    .await;

    assert_eq!(report.summary().totals.ok, 100);
    // It went on when the last of those had been sent, which was not before it was meant to be.
    let goes_on = report.samples()[BEFORE + STALLED - 1].intended();
    let mut ends: Vec<Duration> = report.samples().iter().map(Sample::end).collect();
    ends.sort_unstable();
    assert!(ends[BEFORE] >= goes_on, "{:?} {goes_on:?}", ends[BEFORE]);
    // Each waited for what was left of the stall.
    let waited = |at_least: Duration| {
        let samples = report.samples().iter();
        samples
            .filter(|sample| sample.end() - sample.intended() >= at_least)
            .count()
    };
    assert!(waited(5 * MS) >= 45, "{}", waited(5 * MS));
    assert!(waited(250 * MS) >= 25, "{}", waited(250 * MS));
    // And the window of the stall tells it.
    let stalled = report.window(320 * MS..550 * MS);
    assert_eq!(stalled.totals.offered, 23);
    assert!(stalled.all.expect("sent").p50 >= 240.0, "{stalled:?}");
    // That of before tells of before: most of those had their answers by then.
    assert_eq!(report.window(Duration::ZERO..250 * MS).totals.offered, 25);
    let before = report.samples()[..25].iter();
    let before = before.filter(|sample| sample.end() < ends[BEFORE]);
    assert!(before.count() > 12);
}

#[tokio::test]
async fn a_generator_that_was_held_up_itself_does_not_forget_the_time() {
    const HELD: Duration = Duration::from_millis(400);
    let server = Server::ok().await;
    let begin = Instant::now();
    let mut held_since = None;
    let report = run(server.plan(100.0, Duration::from_secs(2)), |event| {
        if matches!(event, Event::Sample(sample, _) if sample.intended() >= 300 * MS)
            && held_since.is_none()
        {
            // The run began after `begin`, so by its own clock it is no later.
            held_since = Some(begin.elapsed());
            // The whole runtime stands still, as on a machine that is too busy.
            let _ = nanosleep(&Timespec {
                tv_sec: 0,
                tv_nsec: HELD.subsec_nanos().into(),
            });
        }
    })
    .await;
    let summary = report.summary();
    assert_eq!(summary.totals.ok, 200, "nobody was skipped");
    assert!(summary.all.expect("sent").max >= 350.0, "{summary:?}");
    assert!(summary.send_lag.expect("sent").max >= 350.0, "{summary:?}");
    let since = held_since.expect("it was held");
    let late = report.window(since..since + 200 * MS).all.expect("sent");
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
    let report = tokio::select! {
        biased;
        report = run(plan, |_| {}) => report,
        () = pass(1_700 * MS) => panic!("a run outlives its duration by a timeout at most"),
    };

    // A timed out connection is noticed by the server a little after the next one was made.
    assert!(server.busiest.load(Ordering::SeqCst) <= 10);
    let totals = report.summary().totals;
    assert_eq!(totals.offered, 100);
    assert_eq!(totals.timeout + totals.dropped, 100, "{totals:?}");
    let sent = |report: &Report| {
        let sent = report.samples().iter();
        let sent: Vec<Sample> = sent
            .filter(|sample| sample.class() == Class::Timeout)
            .copied()
            .collect();
        sent
    };
    let timeouts = sent(&report);
    assert_eq!(at_once(timeouts.iter()), 5);
    let whole = timeouts
        .iter()
        .all(|sample| sample.end() - sample.start() >= 300 * MS);
    assert!(whole, "each has its time: {timeouts:?}");
    assert_eq!(report.failures()["too many in flight"], totals.dropped);
    assert!(!report.reached());

    // Who is given up makes room, again and again.
    let mut plan = server.plan(100.0, MINUTE);
    plan.bounds = plan
        .bounds
        .max_in_flight(5)
        .and_then(|bounds| bounds.timeout(300 * MS))
        .expect("valid");
    let is_timeout = |sample: &Sample, _: &str| sample.class() == Class::Timeout;
    let report = run_until_seen(plan, 15, is_timeout).await;
    assert!(sent(&report).len() >= 15);
    assert_eq!(at_once(sent(&report).iter()), 5);
}

#[tokio::test]
async fn the_number_of_requests_is_a_bound_too() {
    let server = Server::ok().await;
    let mut plan = server.plan(1_000.0, Duration::from_secs(30));
    plan.bounds = plan.bounds.max_requests(50).expect("valid");
    let report = tokio::select! {
        biased;
        report = run(plan, |_| {}) => report,
        () = pass(Duration::from_secs(5)) => panic!("it waits for the end of its time"),
    };
    assert_eq!(report.summary().totals.ok, 50);
}

#[tokio::test]
async fn a_run_that_is_stopped_lets_finish_what_is_in_flight() {
    const IN_FLIGHT: usize = 10;
    let (arrivals, mut come) = watch::channel(0);
    let (go_on, stopped) = watch::channel(false);
    let server = Server::start(Protocol::Http1, move |_| {
        arrivals.send_modify(|arrivals| *arrivals += 1);
        let mut stopped = stopped.clone();
        async move {
            // Nobody is answered before the run was told to stop.
            let stopped = stopped.wait_for(|stopped| *stopped).await;
            stopped.expect("the test keeps it");
            ok()
        }
    })
    .await;
    let plan = server.plan(50.0, MINUTE);
    let stop = async {
        let enough = come.wait_for(|arrivals| *arrivals >= IN_FLIGHT).await;
        enough.expect("the server keeps it");
        // A moment later, so that the run knows first.
        tokio::spawn(async move {
            sleep(200 * MS).await;
            go_on.send_replace(true);
        });
    };
    let report = run_until(plan, |_| {}, stop).await;
    assert!(report.interrupted);
    let totals = report.summary().totals;
    // In a minute it would be 3000.
    assert!((10..100).contains(&totals.ok), "{totals:?}");
    assert_eq!(totals.ok, totals.offered, "nothing was cut");
}

#[tokio::test]
async fn connections_are_kept_and_those_that_were_closed_cost_no_request() {
    let kept = Server::ok().await;
    let report = run(kept.plan(200.0, 500 * MS), |_| {}).await;
    assert_eq!(report.summary().totals.ok, 100);
    let connections = kept.connections.load(Ordering::SeqCst);
    // Another one is opened only while all are in use.
    let in_use = at_once(report.samples().iter());
    assert!(connections <= in_use, "{connections} connections, {in_use}");

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
        let mut plan = server.plan(400.0, MINUTE);
        let journeys = Journeys::shop().weighted(weights);
        plan.work = Work::Http(journeys.expect("valid"));
        // Half of those who would, about: the others fill a cart first.
        let is_order =
            |sample: &Sample, journey: &str| journey == "checkout" && sample.class() == Class::Ok;
        let report = run_until_seen(plan, 80, is_order).await;
        assert_eq!(report.failures(), BTreeMap::new(), "{weights}");
        let all = report.summary().totals;
        assert_eq!(all.offered, all.ok);
        let checkouts = report.journeys().into_iter();
        let checkouts = checkouts.filter(|journey| journey.journey == "checkout");
        let orders: u64 = checkouts.map(|journey| journey.summary.totals.ok).sum();
        assert!(orders >= 80, "{orders} ordered");
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
    let mut plan = server.plan(400.0, MINUTE);
    plan.work = Work::Http(Journeys::shop().weighted("checkout=1").expect("valid"));
    let is_refused = |sample: &Sample, _: &str| sample.class() == Class::Error;
    let report = run_until_seen(plan, 40, is_refused).await;
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
    let (tell, mut told) = watch::channel(0);
    let (mut ended, mut ticks) = (0, Vec::new());
    run_until(
        server.plan(100.0, MINUTE),
        |event| match event {
            Event::Sample(..) => ended += 1,
            Event::Tick(tick) => {
                ticks.push((tick.clone(), ended));
                tell.send_replace(ticks.len());
            }
        },
        async {
            let enough = told.wait_for(|ticks| *ticks == 2).await;
            enough.expect("the test keeps it");
        },
    )
    .await;
    let mut before = 0;
    for (number, (tick, ended)) in (1..).zip(&ticks[..2]) {
        assert!(tick.elapsed >= number * Duration::from_secs(1), "{tick:?}");
        assert_eq!(tick.totals.offered, *ended, "all that ended until then");
        let latest = tick.latest.totals.offered;
        assert_eq!(latest, ended - before, "those since the last");
        assert!(latest > 0, "{tick:?}");
        before = *ended;
    }
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
