//! What the objects must not have: rights that are not used, a container that may do more than it needs, names twice.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{documents, here, name, read, root, told};

fn objects() -> Vec<Value> {
    documents(&told(&["install", "--ha", "--cni"]))
}

fn object(named: &str) -> Value {
    let mut all = objects();
    let place = all.iter().position(|object| name(object) == named);
    all.swap_remove(place.unwrap_or_else(|| panic!("no {named}")))
}

/// Pod Security `restricted`, which the namespace enforces.
#[test]
fn the_control_plane_may_do_nothing_that_it_need_not() {
    let pod = &object("Deployment weir-control-plane")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for volume in pod["volumes"].as_array().expect("volumes") {
        assert!(
            volume
                .get("emptyDir")
                .is_some_and(|dir| dir.get("sizeLimit").is_some()),
            "{volume}"
        );
    }
    for container in pod["containers"].as_array().expect("containers") {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert!(container["resources"]["limits"].get("memory").is_some());
    }
    let namespace = object("Namespace weir-system");
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(*enforced, "restricted");
}

/// Whoever takes over the control plane must not get the cluster with it.
#[test]
fn it_writes_nothing_but_what_it_has_made_itself() {
    for role in ["ClusterRole weir-control-plane", "Role weir-control-plane"] {
        for rule in object(role)["rules"].as_array().expect("rules") {
            let words = |field: &str| -> Vec<String> {
                let words = rule[field].as_array().into_iter().flatten();
                words.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let (verbs, resources) = (words("verbs"), words("resources"));
            let reads = verbs
                .iter()
                .all(|verb| ["get", "list", "watch"].contains(&&**verb));
            let is_ours = words("apiGroups") == ["weir.dev"];
            let is_named = !words("resourceNames").is_empty();
            // To make a thing cannot be limited by name.
            let makes = verbs == ["create"]
                && ["configmaps", "secrets", "leases", "tokenreviews"].contains(&&*resources[0]);
            let is_status = resources
                .iter()
                .all(|resource| resource.ends_with("/status"));
            assert!(reads || is_named || makes || is_status, "{role}: {rule}");
            let is_secret = resources.contains(&"secrets".to_owned());
            assert!(
                !is_secret || role.starts_with("Role"),
                "secrets of other namespaces: {rule}"
            );
            let all = words("apiGroups")
                .iter()
                .chain(&verbs)
                .any(|word| word == "*");
            assert!(!all, "{role}: {rule}");
            assert!(
                is_ours || !resources.iter().any(|resource| resource.starts_with('*')),
                "{rule}"
            );
        }
    }
}

/// Whoever takes over a node has no more than the node's kubelet had.
#[test]
fn the_plugin_reads_pods_and_its_installer_writes_two_folders() {
    let all = documents(&told(&["install", "--cni"]));
    let object = |named: &str| {
        all.iter()
            .find(|object| name(object) == named)
            .unwrap_or_else(|| panic!("no {named}"))
    };
    assert_eq!(
        object("ClusterRole weir-cni")["rules"],
        json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }])
    );
    let repairing = documents(&told(&["install", "--cni", "--set", "cni.repair=true"]));
    let role = repairing
        .iter()
        .find(|object| name(object) == "ClusterRole weir-cni")
        .expect("a role");
    assert_eq!(role["rules"][1]["verbs"], json!(["list", "delete"]));

    let pod = &object("DaemonSet weir-cni")["spec"]["template"]["spec"];
    assert_eq!(
        pod["hostNetwork"], true,
        "it must run before there is a network"
    );
    assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none());
    let paths: Vec<_> = pod["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .map(|volume| volume["hostPath"]["path"].clone())
        .collect();
    assert_eq!(paths, ["/opt/cni/bin", "/etc/cni/net.d"]);
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert!(context.get("privileged").is_none());
    assert!(
        pod["containers"][0]["resources"]["limits"]
            .get("memory")
            .is_some()
    );
    let level = "pod-security.kubernetes.io/enforce";
    assert_eq!(
        object("Namespace weir-cni")["metadata"]["labels"][level],
        "privileged"
    );
    assert_eq!(
        object("Namespace weir-system")["metadata"]["labels"][level],
        "restricted",
        "the control plane's is as it was"
    );
}

/// GKE refused the control plane of the values for clusters that matter, and the plugin: outside of kube-system it takes
/// those classes only where a quota names them.
#[test]
fn with_a_priority_of_the_clusters_own_comes_a_quota_that_allows_it() {
    let classes_and_quotas = |arguments: &[&str]| {
        let all = documents(&told(&[&["install", "--without-crds"], arguments].concat()));
        let classes: Vec<_> = all
            .iter()
            .filter_map(|object| {
                let class = object.pointer("/spec/template/spec/priorityClassName")?;
                Some((object["metadata"]["namespace"].clone(), class.clone()))
            })
            .collect();
        let quotas: Vec<_> = all
            .iter()
            .filter(|object| object["kind"] == "ResourceQuota")
            .map(|quota| {
                assert_eq!(quota["spec"]["hard"], json!({ "pods": "1G" }));
                let named = &quota["spec"]["scopeSelector"]["matchExpressions"][0];
                assert_eq!(named["scopeName"], "PriorityClass");
                assert_eq!(named["operator"], "In");
                let namespace = quota["metadata"]["namespace"].clone();
                (namespace, named["values"][0].clone())
            })
            .collect();
        (classes, quotas)
    };
    let (classes, quotas) = classes_and_quotas(&["--ha", "--cni"]);
    assert_eq!(
        classes,
        [
            (json!("weir-system"), json!("system-cluster-critical")),
            (json!("weir-cni"), json!("system-node-critical")),
        ]
    );
    assert_eq!(quotas, classes);
    assert_eq!(classes_and_quotas(&[]), (vec![], vec![]));
    let none = ["--cni", "--set", "cni.priorityClassName="];
    assert_eq!(classes_and_quotas(&none), (vec![], vec![]));
    let (classes, quotas) = classes_and_quotas(&["--set", "priorityClassName=mine"]);
    assert_eq!(classes, [(json!("weir-system"), json!("mine"))]);
    assert_eq!(quotas, [], "it is allowed wherever it exists");
}

/// What is not understood there would be passed over in silence.
#[test]
fn the_control_plane_knows_every_variable_that_it_is_given() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_weir-control-plane"))
        .arg("--help")
        .output()
        .expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    let pod = &object("Deployment weir-control-plane")["spec"]["template"]["spec"];
    for variable in pod["containers"][0]["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        assert!(help.contains(&format!("[env: {name}=")), "{name}");
    }
    let port = pod["containers"][0]["ports"][1]["containerPort"].to_string();
    assert!(
        help.contains(&format!("[default: 0.0.0.0:{port}]")),
        "the webhook's port is {port}"
    );
}

/// Whoever waits for a control plane that is not there must not be what it needs to come back.
#[test]
fn no_webhook_looks_at_the_control_planes_own_namespace_or_kube_system() {
    let webhooks = object("MutatingWebhookConfiguration weir")["webhooks"].clone();
    let webhooks = webhooks.as_array().expect("webhooks");
    assert_eq!(webhooks.len(), 2);
    for webhook in webhooks {
        let spared = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "weir-system"] });
        let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array();
        assert!(
            expressions.expect("a selector").contains(&spared),
            "{webhook}"
        );
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["timeoutSeconds"], 5);
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["clientConfig"]["service"]["path"], "/inject");
        assert!(
            webhook["clientConfig"].get("caBundle").is_none(),
            "an upgrade would take it away"
        );
    }
    let pods = object("Deployment weir-control-plane")["spec"]["template"]["metadata"].clone();
    assert_eq!(pods["labels"]["weir.dev/inject"], "false");
}

/// Applied on the server's side, as Helm 4 does it, a name that is there twice is an error.
#[test]
fn no_list_has_a_name_twice() {
    for object in objects() {
        unique(&object, &name(&object));
    }
}

fn unique(value: &Value, at: &str) {
    match value {
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(field, inner)| unique(inner, &format!("{at}.{field}")));
        }
        Value::Array(items) => {
            let mut seen = HashSet::new();
            for item in items {
                unique(item, at);
                let key = item.get("name").or(item.get("containerPort"));
                assert!(
                    key.is_none_or(|key| seen.insert(key.to_string())),
                    "{at} has {key:?} twice"
                );
            }
        }
        _ => {}
    }
}

#[test]
fn ports_have_the_same_names_in_service_container_and_probe() {
    let service = object("Service weir-control-plane");
    let pod = &object("Deployment weir-control-plane")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let has = |port: &Value| {
        let ports = container["ports"].as_array().expect("ports");
        ports.iter().any(|there| there["name"] == *port)
    };
    for port in service["spec"]["ports"].as_array().expect("ports") {
        assert!(has(&port["targetPort"]), "{port}");
    }
    assert!(has(&container["readinessProbe"]["httpGet"]["port"]));
    for (label, value) in service["spec"]["selector"].as_object().expect("a selector") {
        assert_eq!(pod["metadata"]["labels"].get(label), Some(value));
    }
}

/// Values are read by people: each has a sentence above it, or is part of one that has.
#[test]
fn every_value_is_in_camel_case_and_has_a_comment() {
    for chart in ["weir", "boutique"] {
        let text = read(&root().join(format!("charts/{chart}/values.yaml")));
        let mut above = "";
        for line in text.lines() {
            let is_value = line.starts_with(|first: char| first.is_ascii_lowercase());
            if is_value {
                assert!(
                    above.starts_with('#'),
                    "charts/{chart}/values.yaml: {line} has no comment"
                );
                let name = line.split(':').next().unwrap_or_default();
                assert!(
                    name.chars().all(char::is_alphanumeric),
                    "{name} is not camelCase"
                );
            }
            above = line;
        }
    }
}

/// `demo-boutique/k8s` is what the lab runs, and what Helm installs.
#[test]
fn the_chart_of_the_shop_is_the_shops_own_yaml() {
    let mut shop = Vec::new();
    for folder in ["demo-boutique/k8s", "demo-boutique/k8s/policies"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("the shop's YAML") {
            let path = entry.expect("an entry").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                shop.extend(documents(&read(&path)));
            }
        }
    }
    let mut chart = documents(&read(&here("golden/boutique.yaml")));
    shop.sort_by_key(name);
    chart.sort_by_key(name);
    assert!(shop.len() > 40, "{}", shop.len());
    assert_eq!(shop, chart);
}
