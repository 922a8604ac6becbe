//! An app with an exact capacity, and three times as much to do: who is served, how fast, and who is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;

use crate::world::{WEB, World};

/// Callers are not to make up for what is refused: the test is about who is.
const POLICY: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {retries: {attempts: 1}}
  inbound:
    concurrency: {adaptive: {min: 4, max: 500}}
    queue: {size: 100, maxWait: 100ms}
    priorities:
    - {match: {http: {pathPrefix: /serve/40/critical}}, tier: Critical}
    - {match: {http: {pathPrefix: /serve/40/report}}, tier: Sheddable}
";

/// The app works on eight at once (`lab-app/http.rs`), 40 ms each.
const CAPACITY: f64 = 200.0;
/// Connections, each asking four times a second: half of the capacity, and two and a half times of it.
const CRITICAL: usize = 25;
const REPORTS: usize = 125;
const EVERY: Duration = Duration::from_millis(250);
/// The critical ones alone: what the app takes without a queue is what the limit measures a queue by. One that starts in
/// the middle of an overload has only the queue to go by.
const CALM: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(8);

struct Sample {
    at: Instant,
    took: Duration,
    status: u16,
    retry_after: bool,
    /// Who refused, and why.
    code: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_the_load_is_served_at_capacity_with_short_waits_and_what_matters_first() {
    let world = World::with(1, POLICY, "");
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..CRITICAL + REPORTS {
        let critical = number < CRITICAL;
        if number == CRITICAL {
            tokio::time::sleep(CALM).await;
        }
        let path = if critical {
            "/serve/40/critical"
        } else {
            "/serve/40/report"
        };
        let sender = world.http1("server:80").await;
        // Each kind evenly: all that matters within a sixth of the time would be an overload of its own.
        let (nth, of) = if critical {
            (number, CRITICAL)
        } else {
            (number - CRITICAL, REPORTS)
        };
        let offset = EVERY.mul_f64(nth as f64 / of as f64);
        let calling = call_on(sender, path, offset, stop.clone());
        callers.push((critical, tokio::spawn(calling)));
    }
    tokio::time::sleep(WARM_UP + MEASURED).await;
    let end = Instant::now();
    stop.store(true, Ordering::Relaxed);
    let (mut critical, mut reports) = (Vec::new(), Vec::new());
    for (is_critical, caller) in callers {
        let samples = caller.await.expect("a caller does not panic");
        let measured = samples
            .into_iter()
            .filter(|sample| sample.at > end - MEASURED);
        if is_critical {
            &mut critical
        } else {
            &mut reports
        }
        .extend(measured);
    }

    let served = |samples: &[Sample]| samples.iter().filter(|sample| sample.status == 200).count();
    let goodput = (served(&critical) + served(&reports)) as f64 / MEASURED.as_secs_f64();
    let mut took: Vec<Duration> = (critical.iter().chain(&reports))
        .filter(|sample| sample.status == 200)
        .map(|sample| sample.took)
        .collect();
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    let offered = (critical.len() + reports.len()) as f64 / MEASURED.as_secs_f64();
    println!(
        "offered {offered:.0}/s, served {goodput:.0}/s, p99 {p99:?}, critical {} of {}, reports {} of {}",
        served(&critical),
        critical.len(),
        served(&reports),
        reports.len()
    );
    let mut why = std::collections::BTreeMap::new();
    for sample in critical.iter().filter(|sample| sample.status != 200) {
        *why.entry((sample.status, &sample.code)).or_insert(0) += 1;
    }
    println!("critical refused: {why:?}");
    let load = &world.sidecar_state("server")["inbound"]["8080"];
    println!("{load:#}");
    assert!(offered > 2.2 * CAPACITY, "this is no overload");
    assert!(goodput > 0.9 * CAPACITY, "{goodput}");
    assert!(p99 < Duration::from_millis(300), "{p99:?}");
    assert!(served(&critical) as f64 >= 0.99 * critical.len() as f64);
    let refused: Vec<&Sample> = reports
        .iter()
        .filter(|sample| sample.status != 200)
        .collect();
    assert!(
        refused
            .iter()
            .all(|sample| sample.status == 503 && sample.retry_after)
    );

    let metrics = world.metrics("server");
    let of = |name: &str| metrics.sum(name, &[("service", WEB)]);
    // Every refusal is counted by whoever made it: the service's sidecar, or the caller's that spared it.
    let spared = world
        .metrics("caller")
        .sum("weir_throttled_total", &[("service", WEB)]);
    assert!(of("weir_inbound_shed_total") > 0.0 && spared > 0.0);
    assert!(of("weir_inbound_shed_total") + spared >= refused.len() as f64);
    assert!(of("weir_inbound_offered_total") >= of("weir_inbound_admitted_total"));
    assert!(of("weir_inbound_saturated_seconds_total") > 1.0);
    let critical_shed = metrics.sum(
        "weir_inbound_shed_total",
        &[("service", WEB), ("tier", "critical")],
    );
    assert!(
        critical_shed <= 0.01 * critical.len() as f64,
        "{critical_shed}"
    );
}

/// Asks so often whether or not the last answer was slow, as far as one connection can.
async fn call_on(
    mut sender: SendRequest<Full<Bytes>>,
    path: &'static str,
    offset: Duration,
    stop: Arc<AtomicBool>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut due = Instant::now() + offset;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due.into()).await;
        let request = Request::get(path).header("host", "server");
        let request = request.body(Full::default()).expect("a request");
        sender.ready().await.expect("the connection stays");
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        body.collect().await.expect("a whole body");
        samples.push(Sample {
            at: due,
            took: due.elapsed(),
            status: head.status.as_u16(),
            code: (head.headers.get("weir-proxy-error"))
                .map(|code| String::from_utf8_lossy(code.as_bytes()).into_owned()),
            retry_after: head.headers.contains_key("retry-after"),
        });
        due += EVERY;
    }
    samples
}
