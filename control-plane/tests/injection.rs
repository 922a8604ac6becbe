//! The injector against pods with the traits that real shops have.
//!
//! `injection/<story>.yaml` holds a pod (after its Namespace, when that says something), and
//! `injection/<story>.expected.yaml` what comes out, for some `injection/<story>.cni.expected.yaml` what comes out in CNI
//! mode. `UPDATE=1` writes the latter two anew: read the diff.

mod restricted;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_control_plane::injector::{
    InjectorSettings, NamespaceContext, Outcome, inject, uninject, warnings,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection")
}

fn stories() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures' folder");
    let mut stories: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    stories.retain(|path| !path.to_string_lossy().ends_with(".expected.yaml"));
    stories.sort();
    assert!(stories.len() >= 15, "the fixtures are gone");
    stories
}

fn read(path: &Path) -> (NamespaceContext, Value) {
    let text = std::fs::read_to_string(path).expect("a fixture");
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("a fixture is YAML");
    let pod = documents.pop().expect("a fixture has a pod");
    let namespace = documents
        .pop()
        .map(|object| NamespaceContext::from_object(&object));
    (
        namespace.unwrap_or_else(|| NamespaceContext::enabled("boutique")),
        pod,
    )
}

/// Rules by the pod itself, and by the node.
fn modes() -> [InjectorSettings; 2] {
    [false, true].map(|cni| InjectorSettings {
        cni,
        ..InjectorSettings::default()
    })
}

/// What CNI mode makes of them is written down, too.
const IN_CNI_MODE: [&str; 6] = [
    "classic-sidecar",
    "job",
    "namespace-annotations",
    "plain",
    "real-shop",
    "run-as-non-root",
];

fn result(namespace: &NamespaceContext, pod: &Value, settings: &InjectorSettings) -> Value {
    match inject(pod, namespace, settings) {
        Ok(Outcome::Injected(pod)) => pod,
        Ok(Outcome::Skipped(why)) => json!({ "skipped": why.to_string() }),
        Err(refusal) => json!({ "refused": refusal.to_string() }),
    }
}

#[test]
fn every_story_comes_out_as_written() {
    let mut stale = Vec::new();
    for story in stories() {
        let (namespace, pod) = read(&story);
        for settings in modes() {
            let name = story.file_stem().unwrap_or_default().to_string_lossy();
            if settings.cni && !IN_CNI_MODE.contains(&&*name) {
                continue;
            }
            let fresh = result(&namespace, &pod, &settings);
            let fresh = serde_saphyr::to_string(&fresh).expect("a pod is YAML");
            let ending = if settings.cni {
                "cni.expected.yaml"
            } else {
                "expected.yaml"
            };
            let expected = story.with_extension(ending);
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&expected, &fresh).expect("the expectation is written");
            }
            if std::fs::read_to_string(&expected).unwrap_or_default() != fresh {
                stale.push(format!("{}:\n{fresh}", expected.display()));
            }
        }
    }
    assert!(
        stale.is_empty(),
        "UPDATE=1 writes these anew:\n{}",
        stale.join("\n")
    );
}

#[test]
fn a_second_pass_changes_nothing() {
    for story in stories() {
        let (namespace, pod) = read(&story);
        for [first, second] in [[0, 0], [0, 1], [1, 0], [1, 1]] {
            let Ok(Outcome::Injected(once)) = inject(&pod, &namespace, &modes()[first]) else {
                continue;
            };
            let twice = inject(&once, &namespace, &modes()[second]);
            assert!(
                matches!(twice, Ok(Outcome::Skipped(_))),
                "{} was injected twice",
                story.display()
            );
        }
    }
}

/// As an API server does before it asks again, because another webhook has added a container.
#[test]
fn a_pod_to_which_a_container_was_added_is_as_if_it_had_had_it_before() {
    let agent = json!({
        "name": "later", "image": "agent:1", "ports": [{ "containerPort": 9411 }],
        "livenessProbe": { "grpc": { "port": 9411 } },
    });
    let with_agent = |pod: &Value| {
        let mut pod = pod.clone();
        let containers = pod["spec"]["containers"]
            .as_array_mut()
            .expect("containers");
        containers.push(agent.clone());
        pod
    };
    let read = |mut pod: Value| {
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                for told in container["env"].as_array_mut().into_iter().flatten() {
                    if told["name"] == "WEIR_APP_PROBERS" {
                        let text = told["value"].as_str().expect("text");
                        told["value"] = serde_json::from_str(text).expect("JSON");
                    }
                }
            }
        }
        pod
    };
    let mut ways = 0;
    for (story, settings) in
        (stories().into_iter()).flat_map(|story| modes().map(|mode| (story.clone(), mode)))
    {
        let (namespace, pod) = self::read(&story);
        let Ok(Outcome::Injected(once)) = inject(&pod, &namespace, &settings) else {
            continue;
        };
        ways += 1;
        let completed = result(&namespace, &with_agent(&once), &settings);
        let at_once = result(&namespace, &with_agent(&pod), &settings);
        assert_eq!(read(completed), read(at_once), "{}", story.display());
    }
    assert!(ways >= 16, "{ways}");
}

#[test]
fn what_was_taken_out_can_be_put_in_again_and_is_the_same() {
    let mut ways = 0;
    let all = stories().into_iter();
    for (story, settings) in all.flat_map(|story| modes().map(|mode| (story.clone(), mode))) {
        let (namespace, pod) = read(&story);
        let Ok(Outcome::Injected(once)) = inject(&pod, &namespace, &settings) else {
            continue;
        };
        ways += 1;
        let bare = uninject(&once).expect("it has a sidecar");
        let text = bare.to_string();
        for ours in [
            "\"weir-proxy\"",
            "\"weir-init\"",
            "\"weir-validate\"",
            "\"weir-identity\"",
            "inject-status",
            "app-probe",
        ] {
            assert!(
                !text.contains(ours),
                "{}: {ours} in {text}",
                story.display()
            );
        }
        assert_eq!(uninject(&bare), None, "there is nothing left to take out");
        let Ok(Outcome::Injected(mut again)) = inject(&bare, &namespace, &settings) else {
            panic!("{}: it cannot be injected again", story.display());
        };
        // What its namespace said is the pod's own word by now: the same values, by another way.
        again["metadata"]["annotations"]["weir.dev/config-hash"] =
            once["metadata"]["annotations"]["weir.dev/config-hash"].clone();
        assert_eq!(again, once, "{}", story.display());
    }
    assert!(ways >= 16, "{ways}");
}

#[test]
fn a_plain_pod_comes_back_as_it_was() {
    let pod = json!({
        "metadata": { "name": "cart", "labels": { "app": "cart" } },
        "spec": {
            "containers": [{
                "name": "cart", "image": "cart:1", "ports": [{ "containerPort": 7070 }],
                "livenessProbe": { "exec": { "command": ["true"] } },
                "readinessProbe": { "tcpSocket": { "port": 7070 }, "periodSeconds": 3 },
                "startupProbe": { "failureThreshold": 9, "httpGet": { "port": 7070, "path": "/" }, "periodSeconds": 1 },
                "lifecycle": { "preStop": { "httpGet": { "port": 7070 } } },
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    });
    let namespace = NamespaceContext::enabled("boutique");
    let Ok(Outcome::Injected(injected)) = inject(&pod, &namespace, &InjectorSettings::default())
    else {
        panic!("a plain pod is injected");
    };
    let bare = uninject(&injected).expect("it has a sidecar");
    assert_eq!(bare.to_string(), pod.to_string(), "to the letter");
}

/// Over HTTPS, and by hooks that ask by HTTP: in a strict mesh the kubelet's own plain text would be refused.
#[test]
fn hooks_and_probes_over_https_go_by_the_sidecar_and_come_back_as_they_were() {
    let (namespace, pod) = read(&folder().join("https-and-hooks.yaml"));
    let Ok(Outcome::Injected(injected)) = inject(&pod, &namespace, &InjectorSettings::default())
    else {
        panic!("it is injected");
    };
    let vault = &injected["spec"]["containers"][0];
    for (at, path) in [
        ("/readinessProbe", "/app-probe/vault/readiness"),
        ("/lifecycle/preStop", "/app-probe/vault/pre-stop"),
    ] {
        let asked = &vault.pointer(at).expect("it is there")["httpGet"];
        assert_eq!(*asked, json!({ "path": path, "port": 14191 }));
    }
    let environment = injected["spec"]["initContainers"][1]["env"].as_array();
    let mut probers = environment.into_iter().flatten();
    let probers = probers.find(|variable| variable["name"] == "WEIR_APP_PROBERS");
    let probers = probers.expect("the originals")["value"].as_str();
    let probers = probers.expect("text");
    // The kubelet would put a variable's value in its place.
    assert!(!probers.contains('$'), "{probers}");
    let originals: Value = serde_json::from_str(probers).expect("JSON");
    assert_eq!(
        originals["vault/readiness"]["httpGet"]["path"],
        "/healthz?cost=$(PRICE)"
    );
    assert_eq!(
        originals["vault/pre-stop"],
        json!({
            "httpGet": {
                "path": "/leave", "port": 8080,
                "httpHeaders": [{ "name": "x-reason", "value": "stop" }],
            },
            "timeoutSeconds": 3600,
        })
    );
    let bare = uninject(&injected).expect("it has a sidecar");
    let vault = &bare["spec"]["containers"][0];
    assert_eq!(
        vault["readinessProbe"]["httpGet"]["path"],
        "/healthz?cost=$(PRICE)"
    );
    assert_eq!(vault["lifecycle"]["preStop"]["httpGet"]["path"], "/leave");
    assert_eq!(bare["spec"]["containers"][1], pod["spec"]["containers"][1]);
}

/// Its sidecar would wait for a control plane that it cannot find, and nobody would know why.
#[test]
fn a_pod_that_does_not_ask_the_clusters_dns_gets_a_warning() {
    let warned = |policy: &str| {
        let pod = json!({ "spec": { "dnsPolicy": policy, "containers": [{ "name": "a" }] } });
        warnings(&pod, &NamespaceContext::enabled("boutique"))
    };
    for policy in ["Default", "None"] {
        let told = warned(policy).join("");
        assert!(told.contains(&format!("dnsPolicy {policy}")), "{told}");
    }
    for policy in ["ClusterFirst", "ClusterFirstWithHostNet"] {
        assert_eq!(warned(policy), Vec::<String>::new());
    }
}

/// Kubernetes takes no container that asks for more than it may have, and a quota none without a limit.
#[test]
fn a_limit_of_cpu_is_every_containers_and_no_request_is_above_it() {
    let (namespace, pod) = read(&folder().join("limited-cpu.yaml"));
    for settings in modes() {
        let Ok(Outcome::Injected(injected)) = inject(&pod, &namespace, &settings) else {
            panic!("it is injected");
        };
        for container in injected["spec"]["initContainers"].as_array().expect("ours") {
            let resources = &container["resources"];
            assert_eq!(resources["limits"]["cpu"], "5m", "{container}");
            assert_eq!(resources["requests"]["cpu"], "5m", "{container}");
            assert!(resources["limits"]["memory"].is_string(), "{container}");
        }
    }
}

/// A LimitRange says what each container must ask for at least. Annotations moved the sidecar's share only, so in such a
/// namespace no pod of the mesh could be made.
#[test]
fn what_runs_before_the_sidecar_has_no_less_than_the_sidecar() {
    for (said, requests, limits) in [
        (
            json!({}),
            json!({ "cpu": "10m", "memory": "32Mi" }),
            json!({ "memory": "64Mi" }),
        ),
        (
            json!({ "cpu-request": "50m", "memory-request": "128Mi" }),
            json!({ "cpu": "50m", "memory": "128Mi" }),
            json!({ "memory": "128Mi" }),
        ),
        (
            json!({ "memory-request": "48Mi", "memory-limit": "1Gi" }),
            json!({ "cpu": "10m", "memory": "48Mi" }),
            json!({ "memory": "1Gi" }),
        ),
        (
            json!({ "cpu-request": "200m", "cpu-limit": "0.5", "memory-limit": "8Mi" }),
            json!({ "cpu": "200m", "memory": "16Mi" }),
            json!({ "memory": "64Mi", "cpu": "0.5" }),
        ),
        (
            json!({ "cpu-request": "5m", "cpu-limit": "7m" }),
            json!({ "cpu": "7m", "memory": "32Mi" }),
            json!({ "memory": "64Mi", "cpu": "7m" }),
        ),
    ] {
        let annotations: serde_json::Map<String, Value> = said
            .as_object()
            .expect("annotations")
            .iter()
            .map(|(knob, value)| (format!("config.weir.dev/proxy-{knob}"), value.clone()))
            .collect();
        let pod = json!({
            "metadata": { "annotations": annotations },
            "spec": { "containers": [{ "name": "app" }] },
        });
        for settings in modes() {
            let injected = result(&NamespaceContext::enabled("boutique"), &pod, &settings);
            let first = &injected["spec"]["initContainers"][0]["resources"];
            assert_eq!(
                *first,
                json!({ "requests": requests, "limits": limits }),
                "{said}"
            );
        }
    }
}

/// What writes or tries the rules asked for less than it may have, and the pod was Burstable for it.
#[test]
fn a_guaranteed_pod_stays_guaranteed_with_a_sidecar_that_is() {
    let (namespace, pod) = read(&folder().join("guaranteed.yaml"));
    for settings in modes() {
        let Ok(Outcome::Injected(injected)) = inject(&pod, &namespace, &settings) else {
            panic!("it is injected");
        };
        let all = ["initContainers", "containers"].map(|list| injected["spec"][list].as_array());
        let all = all.map(|list| list.expect("a list")).into_iter().flatten();
        for container in all {
            let resources = &container["resources"];
            for resource in ["cpu", "memory"] {
                let [request, limit] = ["requests", "limits"].map(|it| &resources[it][resource]);
                let is_same = request == limit || (request == "100m" && limit == "0.1");
                assert!(request.is_string() && is_same, "{container}");
            }
        }
    }
}

/// Helm 4 applies server-side, where two entries of a list with the same key are an error.
#[test]
fn nothing_is_named_twice() {
    let all = stories().into_iter();
    for (story, settings) in all.flat_map(|story| modes().map(|mode| (story.clone(), mode))) {
        let (namespace, pod) = read(&story);
        let Ok(Outcome::Injected(pod)) = inject(&pod, &namespace, &settings) else {
            continue;
        };
        let list = |pointer: &str| {
            pod.pointer(pointer)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let containers = [list("/spec/initContainers"), list("/spec/containers")].concat();
        assert_unique(containers.iter().map(|container| &container["name"]));
        assert_unique(list("/spec/volumes").iter().map(|volume| &volume["name"]));
        for container in &containers {
            let env = container["env"].as_array().cloned().unwrap_or_default();
            assert_unique(env.iter().map(|variable| &variable["name"]));
        }
        let ports = containers
            .iter()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten());
        assert_unique(ports.map(|port| &port["containerPort"]));
    }
}

fn assert_unique<'a>(names: impl Iterator<Item = &'a Value>) {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        assert!(seen.insert(name.to_string()), "{name} is there twice");
    }
}

#[test]
fn what_the_injector_does_not_know_of_survives_it() {
    let pod = json!({ "spec": { "containers": [{ "name": "app", "futureField": { "a": [1] } }], "futurePolicy": "New" } });
    let namespace = NamespaceContext::enabled("boutique");
    let Ok(Outcome::Injected(pod)) = inject(&pod, &namespace, &InjectorSettings::default()) else {
        panic!("a plain pod is injected");
    };
    assert_eq!(pod["spec"]["futurePolicy"], "New");
    assert_eq!(
        pod["spec"]["containers"][0]["futureField"],
        json!({ "a": [1] })
    );
}

#[test]
fn a_pod_of_nonsense_is_answered_and_never_a_panic() {
    let namespace = NamespaceContext::enabled("boutique");
    for nonsense in [
        json!(null),
        json!([]),
        json!({ "spec": 1 }),
        json!({ "spec": { "containers": "x", "initContainers": { "a": 1 }, "volumes": 7 }, "metadata": "y" }),
        json!({ "spec": { "containers": [1, null, { "ports": 3, "readinessProbe": "no", "name": 5 }] } }),
        json!({ "spec": { "containers": [{ "readinessProbe": { "httpGet": { "port": -1 } } }] } }),
        json!({ "spec": { "terminationGracePeriodSeconds": 0 } }),
    ] {
        let _ = inject(&nonsense, &namespace, &InjectorSettings::default());
    }
}

/// In CNI mode a pod that `restricted` takes is taken with its sidecar, too; in the other mode NET_ADMIN stands in the way.
#[test]
fn in_cni_mode_the_injected_pod_is_as_restricted_as_its_author_wrote_it() {
    let own = json!({
        "metadata": { "name": "cart", "annotations": { "config.weir.dev/skip-outbound-ports": "25" } },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "initContainers": [restricted::container("wait")],
            "containers": [restricted::container("cart")],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    });
    assert_eq!(restricted::violations(&own), Vec::<String>::new());
    let namespace = NamespaceContext::enabled("boutique");
    let [by_itself, by_node] = modes().map(|settings| match inject(&own, &namespace, &settings) {
        Ok(Outcome::Injected(pod)) => pod,
        other => panic!("{other:?}"),
    });
    assert_eq!(restricted::violations(&by_node), Vec::<String>::new());
    let refused = restricted::violations(&by_itself);
    assert!(
        refused
            .iter()
            .any(|why| why.contains("weir-init") && why.contains("NET_ADMIN")),
        "{refused:?}"
    );
}

/// Between the injector and the plugin there is nothing but this text.
#[test]
fn the_plugin_is_told_what_the_init_container_would_have_been_told() {
    let pod = json!({
        "metadata": { "annotations": {
            "config.weir.dev/skip-inbound-ports": "9000",
            "config.weir.dev/skip-outbound-ports": "25, 3306 - 3310",
            "config.weir.dev/skip-outbound-cidrs": "10.0.0.0/8",
        } },
        "spec": { "containers": [{ "name": "a" }] },
    });
    let status = |settings: &InjectorSettings| -> Value {
        let Ok(Outcome::Injected(pod)) =
            inject(&pod, &NamespaceContext::enabled("boutique"), settings)
        else {
            panic!("a plain pod is injected");
        };
        let status = pod["metadata"]["annotations"]["weir.dev/inject-status"].as_str();
        serde_json::from_str(status.expect("a status")).expect("JSON")
    };
    let [by_itself, by_node] = modes().map(|settings| status(&settings));
    assert_eq!(
        by_itself.get("redirect"),
        None,
        "the plugin leaves it alone"
    );
    assert_eq!(
        by_node["redirect"],
        json!({
            "inboundPort": 14143, "outboundPort": 14140, "proxyUid": 14102,
            "skipInboundPorts": "9000", "skipOutboundPorts": "25,3306-3310", "skipOutboundCidrs": "10.0.0.0/8",
        })
    );
}
