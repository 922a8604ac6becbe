//! The control plane at work (security.md, P-5): 1,000 Services with 5,000 endpoints on an API server in this process,
//! and 1,000 sidecars made of nothing but TLS clients, all on this machine.
//!
//! ```sh
//! cargo bench --bench control_plane               # about three minutes
//! cargo bench --bench control_plane -- --quick    # churn for five seconds instead of sixty
//! ```
//!
//! Exit code 1 when a promise is not kept. Memory is that of the whole process: control plane, API server and all
//! thousand clients, so the control plane alone is below it.

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_config::{Kind, snapshot};
use weir_control_plane::control_plane::ControlPlane;

use cluster::Cluster;
use world::{Stream, channel, hello, policy, service, slice};

const SIDECARS: usize = 1000;
const SERVICES: usize = 1000;
const ENDPOINTS: usize = 5;
const SUBSCRIPTIONS: usize = 10;
const CHANGES: usize = 20;
const CHURN_PER_SECOND: u64 = 100;
const CATALOG: &str = "boutique/catalog:3550";
const CATALOG_ADDRESS: &str = "10.96.0.101:3550";

const P50_MAX: Duration = Duration::from_millis(200);
const P99_MAX: Duration = Duration::from_secs(1);
const RSS_MIB_MAX: u64 = 512;
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// When a sidecar had put a change of the catalog's policy in force.
type Acks = mpsc::Receiver<Instant>;

fn main() -> ExitCode {
    // `cargo test --benches` runs it, too, and wants none of it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(if quick { 5 } else { 60 }))
}

async fn run(churn_seconds: u64) -> ExitCode {
    let started = Instant::now();
    let cluster = Cluster::double().await;
    furnish(&cluster).await;
    println!(
        "API server with {SERVICES} services: {:?}, {} MiB",
        started.elapsed(),
        rss_mib()
    );
    let started = Instant::now();
    let mut settings = cluster.settings();
    settings.stalled_after = STALLED_AFTER;
    let plane = ControlPlane::start(settings).await.expect("it starts");
    println!(
        "everything listed and in force: {:?}, {} MiB",
        started.elapsed(),
        rss_mib()
    );
    let started = Instant::now();
    let mut acks = connect(&cluster, &plane).await;
    println!(
        "{SIDECARS} sidecars, {SUBSCRIPTIONS} addresses each: {:?}, {} MiB",
        started.elapsed(),
        rss_mib()
    );

    let mut kept = true;
    kept &= report(
        "one policy change, acknowledged by all",
        rollouts(&cluster, &mut acks, CHANGES).await,
    );
    let churned = {
        let churn = churn(&cluster, Duration::from_secs(churn_seconds));
        let rollouts = rollouts(&cluster, &mut acks, churn_seconds.div_ceil(3) as usize);
        tokio::join!(churn, rollouts)
    };
    println!("{} endpoint changes in {churn_seconds} s", churned.0);
    kept &= churned.0 >= churn_seconds * CHURN_PER_SECOND * 9 / 10;
    kept &= report("the same meanwhile", churned.1);
    kept &= report(
        "the same beside a sidecar that does not answer",
        beside_a_stalled_one(&cluster, &plane, &mut acks).await,
    );
    let rss = rss_mib();
    println!("{rss} MiB at the end");
    kept &= rss <= RSS_MIB_MAX;
    plane.stop().await;
    if kept {
        println!("kept: p50 <= {P50_MAX:?}, p99 <= {P99_MAX:?}, <= {RSS_MIB_MAX} MiB");
        ExitCode::SUCCESS
    } else {
        println!(
            "NOT kept: p50 <= {P50_MAX:?}, p99 <= {P99_MAX:?}, <= {RSS_MIB_MAX} MiB, {CHURN_PER_SECOND} changes a second"
        );
        ExitCode::FAILURE
    }
}

async fn furnish(cluster: &Cluster) {
    for n in 0..SERVICES {
        let name = format!("s{n}");
        let address = format!("10.97.{}.{}", n / 250, n % 250 + 1);
        cluster.apply(&service(&name, &address)).await;
        cluster.apply(&slice_of(n, 0)).await;
    }
    for n in 0..SIDECARS {
        let ip = format!("10.2.{}.{}", n / 250, n % 250 + 1);
        cluster.pod(&format!("frontend-{}", n + 1), &ip).await;
    }
}

/// The endpoints of a service in one of two states.
fn slice_of(n: usize, state: usize) -> String {
    let ips: Vec<String> = (0..ENDPOINTS)
        .map(|k| format!("10.3.{}.{}", n % 250, k * 2 + state + 1))
        .collect();
    let endpoints: Vec<(&str, &str)> = ips.iter().map(|ip| (ip.as_str(), "none")).collect();
    slice(&format!("s{n}"), &endpoints)
}

async fn connect(cluster: &Cluster, plane: &ControlPlane) -> Acks {
    let token = cluster.token("frontend-1", &["weir.dev"]).await;
    let credentials = cluster.certify(plane, "frontend-1", token).await;
    let credentials = credentials.expect("a certificate"); // one service account for all of them
    let bundle = world::trust_bundle(cluster.folder.path());
    let (done, acks) = mpsc::channel(SIDECARS * 4);
    for n in 0..SIDECARS {
        let channel = channel(plane.address, &bundle, Some(&credentials))
            .await
            .expect("TLS");
        let first = hello("boutique", &format!("frontend-{}", n + 1));
        let mut stream = Stream::open(channel, first).await.expect("a stream");
        stream.next().await;
        stream.subscribe(CATALOG_ADDRESS).await;
        for k in 0..SUBSCRIPTIONS - 1 {
            let other = (n * 7 + k * 131) % SERVICES;
            let address = format!("10.97.{}.{}:3550", other / 250, other % 250 + 1);
            stream.subscribe(&address).await;
        }
        stream
            .until(|stream| stream.endpoints.len() == SUBSCRIPTIONS)
            .await;
        tokio::spawn(follow(stream, done.clone()));
    }
    acks
}

/// Takes what comes, for as long as anything does.
async fn follow(mut stream: Stream, done: mpsc::Sender<Instant>) {
    while let Some(push) = stream.maybe_push().await {
        stream.ack(&push).await;
        if push.services.iter().any(|policy| policy.service == CATALOG) {
            let _ = done.send(Instant::now()).await;
        }
    }
}

/// Changes the catalog's policy so many times; how long each sidecar took each time.
async fn rollouts(cluster: &Cluster, acks: &mut Acks, changes: usize) -> Vec<Duration> {
    static DEADLINE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(3000);
    let mut took = Vec::new();
    for _ in 0..changes {
        let deadline = DEADLINE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let yaml = policy("catalog", &format!("{deadline}ms"));
        let changed = Instant::now(); // before the API server has it: its own part counts, too
        cluster.apply(&yaml).await;
        for _ in 0..SIDECARS {
            let at = tokio::time::timeout(world::PATIENCE, acks.recv()).await;
            let at = at.expect("an answer in time").expect("somebody answers");
            took.push(at.saturating_duration_since(changed));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    took
}

async fn churn(cluster: &Cluster, lasts: Duration) -> u64 {
    let mut beat = tokio::time::interval(Duration::from_millis(1000 / CHURN_PER_SECOND));
    let (started, mut changes) = (Instant::now(), 0);
    while started.elapsed() < lasts {
        beat.tick().await;
        let n = usize::try_from(changes).expect("few") % SERVICES;
        let round = usize::try_from(changes).expect("few") / SERVICES;
        cluster.apply(&slice_of(n, (round + 1) % 2)).await;
        changes += 1;
    }
    changes
}

/// One more sidecar takes a push and never answers: it is dropped, and gets everything when it is back.
async fn beside_a_stalled_one(
    cluster: &Cluster,
    plane: &ControlPlane,
    acks: &mut Acks,
) -> Vec<Duration> {
    let mut stalled = cluster.connect(plane, "cart-0").await;
    stalled.subscribe(CATALOG_ADDRESS).await;
    stalled.push().await; // and no answer
    let took = rollouts(cluster, acks, 3).await;
    let end = stalled.end().await;
    println!("the one that did not answer: {}", end.message());
    let mut back = cluster.connect(plane, "cart-0").await;
    back.subscribe(CATALOG_ADDRESS).await;
    let push = back.next().await;
    let newest = cluster.get(Kind::ResiliencePolicy, "catalog").await;
    let policy: snapshot::Service =
        serde_json::from_slice(&push.services[0].policy_json).expect("a policy");
    let has = policy.outbound.deadline.expect("a deadline").as_millis();
    let deadline = newest["spec"]["outbound"]["deadline"]
        .as_str()
        .expect("a deadline");
    assert_eq!(format!("{has}ms"), deadline, "back, it has an old policy");
    println!("back, it has the newest policy ({deadline})");
    took
}

/// Whether the promise was kept.
fn report(what: &str, mut took: Vec<Duration>) -> bool {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?}; {} MiB",
        at(50),
        at(99),
        at(100),
        rss_mib()
    );
    at(50) <= P50_MAX && at(99) <= P99_MAX
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.expect("a size").parse::<u64>().expect("a number") / 1024
}
