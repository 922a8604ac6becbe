//! How long a change takes to be in force in a thousand sidecars (security.md, P-5). A measurement, not a gate: it
//! runs alone and in release, `cargo test --release -p weir-control-plane --test scale -- --ignored --nocapture`.

mod world;

use std::time::Duration;

use tokio::time::Instant;

use world::{Stream, World, channel, give_token, hello, pod, policy, service, slice, token, write};

const SIDECARS: usize = 1000;
const SERVICES: usize = 1000;
const SUBSCRIPTIONS: usize = 10;
const CHANGES: usize = 20;

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("a size");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
        / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a thousand sidecars; run it alone, in release"]
async fn a_change_is_in_force_in_a_thousand_sidecars_within_a_second() {
    let folder = world::folder();
    for n in 0..SERVICES {
        let (name, ip) = (
            format!("s{n}"),
            format!("10.97.{}.{}", n / 250, n % 250 + 1),
        );
        write(
            folder.path(),
            &format!("{name}.yaml"),
            &(service(&name, &ip) + &slice(&name, &[("10.1.0.2", "catalog-0")])),
        );
    }
    let pods: Vec<String> = (0..SIDECARS).map(|n| format!("client-{n}")).collect();
    for (n, name) in pods.iter().enumerate() {
        write(
            folder.path(),
            &format!("pod-{name}.yaml"),
            &pod(name, &format!("10.2.{}.{}", n / 250, n % 250 + 1)),
        );
        give_token(folder.path(), name, &token(name));
    }
    let started = Instant::now();
    let world = World::with(folder, |_| {}).await;
    println!(
        "start with {SERVICES} services and {SIDECARS} pods: {:?}, {} MiB",
        started.elapsed(),
        rss_mib()
    );

    let started = Instant::now();
    let credentials = world.certify("client-0").await; // one service account for all of them
    let (done, mut all_done) = tokio::sync::mpsc::channel::<(usize, Instant)>(SIDECARS * CHANGES);
    for (n, name) in pods.iter().enumerate() {
        let channel = channel(
            world.plane.address,
            &world.trust_bundle(),
            Some(&credentials),
        )
        .await
        .expect("TLS");
        let mut stream = Stream::open(channel, hello("boutique", name))
            .await
            .expect("a stream");
        stream.next().await;
        stream.subscribe("10.96.0.1:3550").await;
        for k in 0..SUBSCRIPTIONS - 1 {
            let other = (n * 7 + k * 131) % SERVICES;
            stream
                .subscribe(&format!("10.97.{}.{}:3550", other / 250, other % 250 + 1))
                .await;
        }
        stream
            .until(|stream| stream.endpoints.len() == SUBSCRIPTIONS)
            .await;
        let done = done.clone();
        tokio::spawn(async move {
            for change in 0..CHANGES {
                stream.next().await;
                done.send((change, Instant::now()))
                    .await
                    .expect("somebody counts");
            }
            stream.is_quiet().await;
        });
    }
    println!(
        "{SIDECARS} sidecars connected, {SUBSCRIPTIONS} addresses each: {:?}, {} MiB (both ends)",
        started.elapsed(),
        rss_mib()
    );

    let mut last = Vec::new();
    for change in 0..CHANGES {
        let version = world.plane.mesh.version();
        world.write(
            "policy.yaml",
            &policy("catalog", &format!("{}s", change + 3)),
        );
        while world.plane.mesh.version() == version {
            tokio::time::sleep(Duration::from_millis(1)).await; // until the file was read
        }
        let changed = Instant::now();
        for _ in 0..SIDECARS {
            let (of, at) = all_done.recv().await.expect("an answer");
            assert_eq!(of, change);
            last.push(at.saturating_duration_since(changed));
        }
    }
    last.sort();
    let at = |percent: usize| last[(last.len() - 1) * percent / 100];
    println!(
        "change to ack: p50 {:?}, p99 {:?}, max {:?}; {} MiB (both ends)",
        at(50),
        at(99),
        at(100),
        rss_mib()
    );
    assert!(
        at(50) <= Duration::from_millis(200) && at(99) <= Duration::from_secs(1),
        "slower than P-5"
    );
}
