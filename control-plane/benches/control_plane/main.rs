//! The control plane at work (security.md, P-5): 1,000 Services with 5,000 endpoints, and 1,000 sidecars.
//!
//! ```sh
//! cargo bench --bench control_plane               # about three and a half minutes
//! cargo bench --bench control_plane -- --quick    # churn for five seconds instead of sixty
//! ```
//!
//! The control plane is the real program, as a process of its own. The API server and the sidecars are in this one, on
//! the same machine, and take their part of its time. Exit code 1 when a promise is not kept.

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod program;
mod sidecars;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use weir_config::{Kind, snapshot};

use cluster::Cluster;
use program::Program;
use sidecars::{Acks, Frozen};
use world::{policy, service, slice};

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
/// From the middle of the churn to its end.
const GROWTH_KIB_MAX: u64 = 8 * 1024;
/// The same while nothing but endpoints changes, so that nothing goes into the journal.
const GROWTH_OF_ENDPOINTS_KIB_MAX: u64 = 2 * 1024;
/// When everything is listed over and over, from the middle to the end.
const GROWTH_OF_LISTS_KIB_MAX: u64 = 4 * 1024;
/// It drops who does not answer for 30 s; looking, and writing a status of it, take their time.
const DROPPED_MAX: Duration = Duration::from_secs(45);

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
    runtime.block_on(run(quick))
}

async fn run(quick: bool) -> ExitCode {
    let churn_seconds = if quick { 5 } else { 60 };
    let cluster = Cluster::double().await;
    furnish(&cluster).await;
    let started = Instant::now();
    let program = Program::start(&cluster).await;
    println!(
        "{SERVICES} services listed and in force: {:?}, {} MiB",
        started.elapsed(),
        program.rss_mib()
    );
    let started = Instant::now();
    let mut acks = sidecars::connect(&cluster, program.address).await;
    println!(
        "{SIDECARS} sidecars, {SUBSCRIPTIONS} addresses each: {:?}, {} MiB",
        started.elapsed(),
        program.rss_mib()
    );

    let mut kept = true;
    let took = rollouts(&cluster, &mut acks, CHANGES).await;
    kept &= report("one policy change, acknowledged by all", took, &program);
    kept &= under_churn(&cluster, &program, &mut acks, churn_seconds).await;
    kept &= listed_anew(&cluster, &program, if quick { 5 } else { 20 }).await;
    kept &= beside_a_frozen_one(&cluster, &program, &mut acks).await;
    let rss = program.rss_mib();
    kept &= is_kept(
        "memory at the end",
        &format!("{rss} MiB"),
        rss <= RSS_MIB_MAX,
    );
    kept &= is_kept("it ends when it is told to", "", program.stop().await);
    let word = if kept { "kept" } else { "NOT kept" };
    println!(
        "{word}: p50 <= {P50_MAX:?}, p99 <= {P99_MAX:?}, <= {RSS_MIB_MAX} MiB of the control plane alone"
    );
    ExitCode::from(u8::from(!kept))
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

/// Changes the catalog's policy so many times; how long each sidecar took each time.
async fn rollouts(cluster: &Cluster, acks: &mut Acks, changes: usize) -> Vec<Duration> {
    static DEADLINE: AtomicU32 = AtomicU32::new(3000);
    let mut took = Vec::new();
    for _ in 0..changes {
        let deadline = DEADLINE.fetch_add(1, Ordering::Relaxed);
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

/// Policies change while endpoints do, and memory is looked at all the while.
async fn under_churn(
    cluster: &Cluster,
    program: &Program,
    acks: &mut Acks,
    churn_seconds: u64,
) -> bool {
    let (before, mut sizes) = (program.cpu(), Vec::new());
    let lasts = Duration::from_secs(churn_seconds);
    let worked = async {
        let changes = churn_seconds.div_ceil(3) as usize;
        tokio::join!(churn(cluster, lasts), rollouts(cluster, acks, changes))
    };
    let looks = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sizes.push(program.rss_kib());
        }
    };
    let (changes, took) = tokio::select! {
        worked = worked => worked,
        _ = looks => unreachable!("it looks for ever"),
    };
    let cpu = program.cpu() - before;
    let told = format!("{changes} in {churn_seconds} s, {cpu:?} of CPU");
    let all = changes >= churn_seconds * CHURN_PER_SECOND * 9 / 10;
    let mut kept = is_kept("endpoint changes", &told, all);
    kept &= report("one policy change meanwhile", took, program);

    let half = sizes.len() / 2;
    let most = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or_default();
    let (first, second) = (most(&sizes[..half]), most(&sizes[half..]));
    let told = format!("{first} KiB at most in its first half, {second} in its second");
    let grown = second.saturating_sub(first);
    kept &= is_kept("memory in the churn", &told, grown <= GROWTH_KIB_MAX);

    let (before, listed) = (program.rss_kib(), lists(cluster));
    let changes = churn(cluster, lasts / 2).await;
    let after = program.rss_kib();
    let told = format!("{before} KiB before {changes} more endpoint changes, {after} after them");
    let grown = after.saturating_sub(before);
    kept &= is_kept(
        "memory, endpoints alone",
        &told,
        grown <= GROWTH_OF_ENDPOINTS_KIB_MAX,
    );
    let anew = lists(cluster) - listed;
    let told = format!("{anew} lists while only endpoints changed");
    kept & is_kept("watches go on where they were", &told, anew == 0)
}

/// How many lists began so far.
fn lists(cluster: &Cluster) -> usize {
    let requests = cluster.api().requests();
    let pages = requests.iter().filter(|line| line.contains("limit="));
    pages.filter(|line| !line.contains("continue=")).count()
}

/// The API server forgets its history again and again, as after a restart: everything is listed anew.
async fn listed_anew(cluster: &Cluster, program: &Program, times: usize) -> bool {
    let mut sizes = vec![program.rss_kib()];
    for _ in 0..times * 2 {
        let all = lists(cluster) + Kind::ALL.len();
        cluster.api().compact();
        let deadline = Instant::now() + world::PATIENCE;
        while lists(cluster) < all {
            assert!(Instant::now() < deadline, "not everything is listed anew");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        sizes.push(program.rss_kib());
    }
    let (before, half, end) = (sizes[0], sizes[times], sizes[times * 2]);
    let told = format!("{before} KiB, {half} after {times} times, {end} after as many again");
    let grown = end.saturating_sub(half);
    is_kept(
        "memory, everything listed anew",
        &told,
        grown <= GROWTH_OF_LISTS_KIB_MAX,
    )
}

/// One more sidecar reads nothing: nobody waits for it, it is dropped, and it gets everything when it is back.
async fn beside_a_frozen_one(cluster: &Cluster, program: &Program, acks: &mut Acks) -> bool {
    let frozen = Frozen::connect(cluster, program.address, "cart-0").await;
    let since = Instant::now();
    let took = rollouts(cluster, acks, 3).await;
    let mut kept = report(
        "one policy change beside a sidecar that reads nothing",
        took,
        program,
    );
    let told = format!("acknowledged by {SIDECARS} of {SIDECARS} ");
    let is_dropped = async || {
        let policy = cluster.get(Kind::ResiliencePolicy, "catalog").await;
        let conditions = policy["status"]["ancestors"][0]["conditions"]
            .as_array()
            .cloned();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|it| {
            it["message"]
                .as_str()
                .is_some_and(|it| it.starts_with(&told))
        })
    };
    let mut dropped = false;
    while !dropped && since.elapsed() < DROPPED_MAX {
        tokio::time::sleep(Duration::from_millis(200)).await;
        dropped = is_dropped().await;
    }
    let after = format!("after {:?}", since.elapsed());
    kept &= is_kept("it is dropped, and the status says so", &after, dropped);
    frozen.thaw();

    let mut back = cluster.connect_at(program.address, "cart-0").await;
    back.subscribe(CATALOG_ADDRESS).await;
    let push = back.next().await;
    let policy: snapshot::Service =
        serde_json::from_slice(&push.services[0].policy_json).expect("a policy");
    let has = policy.outbound.deadline.expect("a deadline").as_millis();
    let newest = cluster.get(Kind::ResiliencePolicy, "catalog").await;
    let newest = newest["spec"]["outbound"]["deadline"].clone();
    let is_newest = newest == format!("{has}ms");
    kept & is_kept(
        "back, it has the newest policy",
        &newest.to_string(),
        is_newest,
    )
}

/// Whether the promise was kept.
fn report(what: &str, mut took: Vec<Duration>, program: &Program) -> bool {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    let told = format!(
        "p50 {p50:?}, p99 {p99:?}, max {max:?}; {} MiB",
        program.rss_mib()
    );
    is_kept(what, &told, p50 <= P50_MAX && p99 <= P99_MAX)
}

fn is_kept(what: &str, told: &str, kept: bool) -> bool {
    println!("{} {what}: {told}", if kept { "ok  " } else { "MISS" });
    kept
}
