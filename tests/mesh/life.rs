//! What comes and goes under load: the control plane, pods, their sidecars.

use std::time::Duration;

use crate::load::{self, assert_all_served};
use crate::world::{PATIENCE, World, eventually};

const EVERY: Duration = Duration::from_millis(50);
const CONTROL_PLANE: &str = "weir-control-plane";

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_dead_for_twenty_seconds_costs_no_request() {
    let world = World::with(2, "", "");
    let connected = || {
        world
            .metrics("caller")
            .sum("weir_control_plane_connected", &[])
            == 1.0
    };
    assert!(connected());
    let load = load::start(&world, "/", EVERY).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| {
        world.lab.kill(CONTROL_PLANE).expect("it is killed");
        world
            .lab
            .scale(CONTROL_PLANE, 0)
            .expect("and not started again");
    });
    eventually("the sidecar notices", || !connected()).await;
    let dead = std::time::Instant::now();
    // A new connection and a new request need nothing that only the control plane knows.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.get("server:80", "/").await.status(), 200);
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(dead.elapsed())).await;
    tokio::task::block_in_place(|| world.lab.scale(CONTROL_PLANE, 1)).expect("it is started again");
    eventually("the sidecar is connected again", connected).await;
    println!("connected again {:?} after its death", dead.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = load.end().await;
    assert!(samples.len() > 3000, "{}", samples.len());
    assert_all_served(&samples, "20 s without a control plane");
}

/// SIGTERM to the pod, as a rolling update does: its app and its sidecar, in the kubelet's order.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_restarted_one_after_the_other_cost_no_request() {
    let world = World::with(3, "", "");
    let load = load::start(&world, "/delay/20", EVERY).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for pod in ["server/0", "server/1", "server/2"] {
        tokio::task::block_in_place(|| world.lab.restart(pod)).expect("it is restarted");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = load.end().await;
    assert_all_served(&samples, "three restarts");
}

/// The same while nobody tells the callers that the pod is going: GOAWAY and refused streams are all they have.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_restarted_while_the_control_plane_is_frozen_costs_no_request() {
    let world = World::with(3, "", "");
    let load = load::start(&world, "/delay/20", EVERY).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| {
        world.lab.stop(CONTROL_PLANE).expect("it is frozen");
        // Ended, not replaced: a new pod would need a certificate.
        world.lab.scale("server", 2).expect("one pod ends");
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.lab.cont(CONTROL_PLANE).expect("it goes on");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = load.end().await;
    assert_all_served(&samples, "a pod less, and nobody was told");
}

/// Its namespace was deleted and made anew, say, and the CA's Secret with it. Who ran already knew the old one alone, and
/// never came back; its file has had the new one for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_lost_its_ca_is_believed_again() {
    let world = World::with(1, "", "");
    let connected = |pod: &str| {
        let metrics = world.metrics(pod);
        metrics.sum("weir_control_plane_connected", &[]) == 1.0
    };
    assert!(connected("caller") && connected("server"));
    tokio::task::block_in_place(|| world.lab.scale(CONTROL_PLANE, 0)).expect("it ends");
    eventually("the sidecar notices", || !connected("caller")).await;
    std::fs::remove_dir_all(world.lab.folder().join("control-plane")).expect("it had a state");
    tokio::task::block_in_place(|| world.lab.scale(CONTROL_PLANE, 1)).expect("it is started again");
    eventually("both are connected again", || {
        connected("caller") && connected("server")
    })
    .await;
    // One that has never known another CA believes the others, and they it.
    tokio::task::block_in_place(|| {
        world.lab.scale("server", 2).expect("a pod more");
        world.lab.wait_ready(PATIENCE).expect("it is certified");
    });
    for _ in 0..20 {
        assert_eq!(world.get("server:80", "/").await.status(), 200);
    }
    assert_eq!(
        world
            .metrics("server/1")
            .sum("weir_control_plane_connected", &[]),
        1.0
    );
}
