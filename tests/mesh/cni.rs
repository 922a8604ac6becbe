//! CNI mode: nothing in a pod may write rules. The node's plugin does, as a container runtime calls it; and a pod whose
//! plugin was not there stops before anything of its own has started.

use std::path::PathBuf;

use serde_json::{Value, json};

use weir_lab::Output;

use crate::world::{World, eventually, hop, labelled};

fn world() -> World {
    let more = format!(
        "{}{}",
        hop("late"),
        labelled("outsider", "app: outsider, weir.dev/inject: 'false'", 1)
    );
    // It comes later, to a node that has lost its plugin.
    World::built(1, "", &more, |lab| {
        lab.cni(true).without_plugin("late").replicas("late", 0)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_may_write_no_rules_are_in_the_mesh_and_one_whose_node_wrote_none_stops() {
    let world = world();
    let answer = world.get("server:80", "/headers").await;
    assert_eq!(answer.status(), 200);
    for (pod, direction) in [("caller", "outbound"), ("server", "inbound")] {
        let secure = [("direction", direction), ("tls", "mtls")];
        assert!(
            world.metrics(pod).sum("weir_requests_total", &secure) >= 1.0,
            "{pod}"
        );
        let first = &world.lab.pod(pod).expect("it runs").containers[0];
        assert_eq!(first.name, "weir-validate");
        assert!(first.state.succeeded);
        assert!(
            world
                .lab
                .log(&format!("{pod}-0"), "weir-validate")
                .contains("IPv4 verified")
        );
    }
    assert!(rules(&world, "server").contains("redirect to :14143"));
    assert_eq!(
        rules(&world, "outsider"),
        "",
        "who is not in the mesh is left alone"
    );

    world.lab.scale("late", 1).expect("it is made");
    let validator = || world.lab.pod("late").map(|pod| pod.containers[0].clone());
    eventually("the validator ends with 95", || {
        validator().is_ok_and(|first| first.state.message.contains("exit code 95"))
    })
    .await;
    let late = world.lab.pod("late").expect("it is there");
    assert!(
        late.containers[1..].iter().all(|other| !other.state.ran),
        "and nothing else has started: {late:?}"
    );
    let said = world.lab.log("late-0", "weir-validate");
    assert!(
        said.contains("was not redirected to 127.0.0.1:14140")
            && said.contains("DaemonSet weir-cni"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_may_be_called_again_notices_what_was_changed_and_waits_for_an_api_server_that_is_away()
 {
    let world = world();
    let before = rules(&world, "server");
    assert_eq!(
        plugin(&world, "ADD", "server"),
        Ok(Some(previous())),
        "twice is once"
    );
    assert_eq!(rules(&world, "server"), before);
    assert_eq!(plugin(&world, "CHECK", "server"), Ok(None));
    for command in ["ADD", "CHECK"] {
        plugin(&world, command, "outsider").expect("it is none of ours");
    }
    assert_eq!(rules(&world, "outsider"), "");

    let pid = pid(&world, "server");
    fine(
        &world,
        &[
            "nsenter",
            "-n",
            "-t",
            &pid,
            "nft",
            "flush chain inet weir pre",
        ],
    );
    let changed = plugin(&world, "CHECK", "server").expect_err("traffic passes by the sidecar");
    assert_eq!(changed["code"], 100, "{changed}");
    plugin(&world, "ADD", "server").expect("it is mended");
    assert_eq!(plugin(&world, "CHECK", "server"), Ok(None));
    assert_eq!(plugin(&world, "DEL", "server"), Ok(None));
    assert_eq!(world.get("server:80", "/headers").await.status(), 200);

    let kubeconfig = std::fs::read_to_string(networks(&world).join("weir-cni.kubeconfig"))
        .expect("the lab's own");
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let server = kubeconfig["clusters"][0]["cluster"]["server"]
        .as_str()
        .expect("a server");
    let port = server.rsplit(':').next().expect("a port");
    let away = format!(
        "add table ip away; add chain ip away out {{ type filter hook output priority 0; }}; \
         add rule ip away out tcp dport {port} reject with tcp reset"
    );
    fine(&world, &["nft", &away]);
    world.lab.scale("server", 2).expect("it is made");
    let second = || world.lab.pod("server/1").expect("it is there");
    eventually("it says why it waits", || {
        second()
            .message
            .contains("cannot tell whether pod tests/server-1 is in the mesh")
    })
    .await;
    assert!(
        second()
            .containers
            .iter()
            .all(|container| !container.state.ran),
        "{:?}",
        second()
    );
    fine(&world, &["nft", "delete table ip away"]);
    eventually("it starts when the API server is back", || second().ready).await;
}

fn networks(world: &World) -> PathBuf {
    world.lab.folder().join("cni/net.d")
}

fn previous() -> Value {
    json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.244.0.9/32" }], "of": "the plugin before" })
}

/// As a runtime would call it: what it answers, or its error.
fn plugin(world: &World, command: &str, pod: &str) -> Result<Option<Value>, Value> {
    let chain =
        std::fs::read_to_string(networks(world).join("10-lab.conflist")).expect("the lab's own");
    let chain: Value = serde_json::from_str(&chain).expect("JSON");
    let mut told = chain["plugins"][1].clone();
    assert_eq!(told["type"], "weir-cni");
    told["cniVersion"] = chain["cniVersion"].clone();
    told["name"] = chain["name"].clone();
    told["prevResult"] = previous();
    let path = world.lab.folder().join("told.json");
    std::fs::write(&path, told.to_string()).expect("a file");
    let script = format!(
        "CNI_COMMAND={command} CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/proc/{}/ns/net \
         CNI_ARGS='K8S_POD_NAMESPACE=tests;K8S_POD_NAME={pod}-0' exec {} < {}",
        pid(world, pod),
        world.lab.folder().join("cni/bin/weir-cni").display(),
        path.display()
    );
    let output = on_node(world, &["sh", "-c", &script]);
    let answer = || {
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    match (output.code, output.stdout.is_empty()) {
        (0, true) => Ok(None),
        (0, false) => Ok(Some(answer())),
        _ => Err(answer()),
    }
}

/// Of the app.
fn pid(world: &World, pod: &str) -> String {
    let pod = world.lab.pod(pod).expect("there is such a pod");
    let app = pod
        .containers
        .iter()
        .find(|container| container.name == "app");
    app.and_then(|app| app.state.pid)
        .expect("the app runs")
        .to_string()
}

fn rules(world: &World, pod: &str) -> String {
    fine(
        world,
        &[
            "nsenter",
            "-n",
            "-t",
            &pid(world, pod),
            "nft",
            "list",
            "ruleset",
        ],
    )
}

fn fine(world: &World, argv: &[&str]) -> String {
    let output = on_node(world, argv);
    assert_eq!(output.code, 0, "{argv:?}: {output:?}");
    output.stdout
}

fn on_node(world: &World, argv: &[&str]) -> Output {
    tokio::task::block_in_place(|| world.lab.exec(None, argv)).expect("the lab answers")
}
