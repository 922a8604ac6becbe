//! `weir install` beside what Helm made of the same templates.

use crate::{documents, here, name, read, root, told, weir};

/// What is rendered: the golden file, and how weir is asked for the same.
pub(crate) const RENDERS: [(&str, &[&str]); 4] = [
    ("default", &[]),
    ("ha", &["../charts/weir/values-ha.yaml"]),
    ("minimal", &["tests/charts/minimal.yaml"]),
    ("cni", &["tests/charts/cni.yaml"]),
];

#[test]
fn weir_install_makes_what_helm_makes() {
    for (golden, values) in RENDERS {
        let mut asked = vec![
            "install",
            "--without-crds",
            "--set",
            "createNamespace=false",
        ];
        for file in values {
            asked.extend(["--values", file]);
        }
        let ours = documents(&told(&asked));
        let helms = read(&here(&format!("golden/{golden}.yaml")));
        // Who says that he made it is the one difference there is meant to be.
        let mut helms = documents(&helms.replace("managed-by: Helm", "managed-by: weir"));
        assert!(helms.len() >= 9, "{golden}: {}", helms.len());
        for object in &ours {
            let place = helms.iter().position(|other| name(other) == name(object));
            let place = place.unwrap_or_else(|| panic!("{golden}: Helm has no {}", name(object)));
            assert_eq!(*object, helms.remove(place), "{golden}");
        }
        assert!(
            helms.is_empty(),
            "{golden}: weir has no {}",
            name(&helms[0])
        );
    }
}

#[test]
fn high_availability_is_the_charts_own() {
    let file = told(&["install", "--values", "../charts/weir/values-ha.yaml"]);
    assert_eq!(told(&["install", "--ha"]), file);
    let kinds = |text: &str| documents(text).iter().map(name).collect::<Vec<_>>();
    let budget = "PodDisruptionBudget weir-control-plane".to_owned();
    assert!(kinds(&file).contains(&budget));
    assert!(
        !kinds(&told(&["install"])).contains(&budget),
        "of one replica none can be spared"
    );
}

#[test]
fn cni_mode_is_a_value_of_the_chart() {
    assert_eq!(
        told(&["install", "--cni"]),
        told(&["install", "--set", "cni.enabled=true"])
    );
    let without = told(&["install"]);
    assert!(
        !without.contains("weir-cni") && !without.contains("WEIR_CNI"),
        "off unless asked for"
    );
    assert!(
        !told(&["install", "--cni"]).contains("verbs: [list, delete]"),
        "nobody deletes pods unless asked to"
    );
}

#[test]
fn the_crds_come_first_and_are_the_charts() {
    let all = documents(&told(&["install"]));
    let crds = documents(&told(&["crds"]));
    assert!(crds.len() >= 2);
    assert_eq!(all[..crds.len()], crds[..]);
    for crd in &crds {
        let plural = crd["spec"]["names"]["plural"].as_str().expect("a name");
        let file = root().join(format!("charts/weir-crds/templates/{plural}.yaml"));
        assert_eq!(documents(&read(&file)), std::slice::from_ref(crd));
    }
    assert_eq!(name(&all[crds.len()]), "Namespace weir-system");
}

#[test]
fn what_is_uninstalled_is_what_was_installed_and_policies_only_when_asked() {
    let names = |arguments: &[&str]| {
        let mut names: Vec<_> = documents(&told(arguments)).iter().map(name).collect();
        names.sort();
        names
    };
    let installed = names(&["install", "--ha", "--cni"]);
    assert_eq!(
        names(&["uninstall", "--ha", "--cni", "--with-crds"]),
        installed
    );
    assert_eq!(
        names(&["uninstall", "--ha", "--set", "cni.enabled=false"]),
        names(&["install", "--ha", "--without-crds"])
    );
    let first = documents(&told(&["uninstall"]));
    assert!(
        name(&first[0]).ends_with("WebhookConfiguration weir"),
        "or no pod could start"
    );
}

/// Whoever did not say the flags again kept the plugin on every node, and all that belonged to it.
#[test]
fn what_is_uninstalled_is_all_that_any_installation_may_have_made() {
    let identities = |arguments: &[&str]| -> std::collections::BTreeSet<_> {
        let all = documents(&told(arguments));
        let namespace = |object: &serde_json::Value| object["metadata"]["namespace"].to_string();
        all.iter()
            .map(|object| (name(object), namespace(object)))
            .collect()
    };
    let uninstalled = identities(&["uninstall"]);
    for flags in [
        &[][..],
        &["--ha"],
        &["--cni"],
        &["--ha", "--cni", "--set", "cni.repair=true"],
        &["--set", "replicas=3"],
    ] {
        let installed = identities(&[&["install", "--without-crds"], flags].concat());
        let left: Vec<_> = installed.difference(&uninstalled).collect();
        assert!(left.is_empty(), "{flags:?} leaves {left:?}");
    }
    let mine = ["--set", "cni.namespace=mine"];
    assert_eq!(
        identities(&[&["uninstall"], &mine[..]].concat()),
        identities(&[&["install", "--without-crds", "--ha", "--cni"], &mine[..]].concat()),
        "what somebody says counts"
    );
}

/// Sidecars went on, and nobody said that it was not for long.
#[test]
fn that_the_ca_goes_with_the_namespace_is_said_beside_what_is_deleted() {
    let output = weir(&["uninstall", "--namespace", "mesh"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    for said in [
        "CA goes with namespace mesh",
        "kubectl -n mesh get secret weir-ca",
    ] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
    assert!(!String::from_utf8_lossy(&output.stdout).contains("weir-ca -o"));
}

#[test]
fn values_that_are_none_are_refused_with_what_there_is() {
    for (set, says) in [
        (
            "replica=2",
            "there is no value replica; there are global, createNamespace, image",
        ),
        (
            "webhook.failurePolicy=Maybe",
            "value webhook.failurePolicy: expected Fail or Ignore, found \"Maybe\"",
        ),
        (
            "replicas=none",
            "value replicas: expected an integer, found \"none\"",
        ),
        ("replicas=9", "value replicas: expected 1 to 5, found 9"),
        ("trustDomain=A B", "value trustDomain: expected what fits"),
        (
            "image.repository=",
            "value image.repository: expected a text that says something",
        ),
        (
            "imagePullSecrets[0].nam=mine",
            "value imagePullSecrets[0]: expected a name",
        ),
        ("image.tag=7", "value image.tag: expected a string, found 7"),
        (
            "tolerations={a",
            "--set tolerations={a: a list that begins with { ends with }",
        ),
        (
            "replicas",
            "--set replicas: expected PATH=VALUE, such as replicas=2",
        ),
    ] {
        let output = weir(&["install", "--set", set]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{set}: {errors}");
        assert!(errors.contains(says), "{set}: {errors}");
        assert!(
            output.stdout.is_empty(),
            "{set}: half a manifest could be applied"
        );
    }
}

/// The control plane never started with what the chart had taken for its trust domain or the life of its certificates.
#[test]
fn the_schema_takes_no_value_that_the_control_plane_refuses() {
    let takes = |value: &str, said: &str| {
        let set = format!("{value}={said}");
        weir(&["install", "--set-string", &set]).status.success()
    };
    let long = "a".repeat(253);
    let longer = "a".repeat(254);
    for domain in [
        "weir.local",
        "a",
        "0",
        "prod-1.example",
        &long,
        "",
        "a_b",
        "a.",
        ".a",
        "a-",
        "-a",
        "a.-b",
        "a..b",
        "A",
        "a/b",
        "ä",
        &longer,
    ] {
        let is_taken = weir_control_plane::spiffe::is_name(domain);
        assert_eq!(takes("trustDomain", domain), is_taken, "{domain:?}");
    }
    for (lifetime, is_taken) in [
        ("24h", true),
        ("1h30m", true),
        ("0h1m", true),
        ("90s", true),
        ("9999h99999m99999s", true),
        ("0s", false),
        ("0h0m0s", false),
        ("", false),
        ("24", false),
        ("99999h1m", false),
        ("1m1h", false),
    ] {
        let read = lifetime.parse::<weir_config::units::Duration>();
        assert_eq!(read.is_ok(), is_taken, "{lifetime:?}");
        assert_eq!(takes("leafLifetime", lifetime), is_taken, "{lifetime:?}");
    }
}

#[test]
fn values_reach_what_they_are_for() {
    let text = told(&[
        "install",
        "--namespace",
        "mesh",
        "--set",
        "trustDomain=prod.example",
        "--set-string",
        "image.tag=7",
        "--set",
        "webhook.failurePolicy=Ignore,proxy.image.tag=1.10",
        "--set",
        "nodeSelector.kubernetes\\.io/os=linux,imagePullSecrets[0].name=mine",
    ]);
    for said in [
        "name: mesh",
        "value: \"prod.example\"",
        "weir-control-plane:7",
        "weir-proxy:1.10\"",
        "kubernetes.io/os: linux",
        "- name: mine",
        "failurePolicy: Ignore",
        "[kube-system, mesh]",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    assert!(!text.contains("weir-system"));
}

/// Nobody found out how the control plane is asked on Kubernetes: its socket is in its own pod.
#[test]
fn how_the_control_plane_is_asked_is_said_where_somebody_looks() {
    let ask = "kubectl -n weir-system exec deploy/weir-control-plane -- weir breakers";
    for (golden, _) in RENDERS {
        let notes = read(&here(&format!("golden/{golden}.yaml")));
        assert!(notes.contains(ask), "{golden}");
    }
    assert!(told(&["--help"]).contains(ask));
    let deployment = told(&["install"]);
    for there in [
        "name: weir-control-plane",
        "WEIR_OPERATOR_SOCKET, value: /run/weir/operator.sock",
    ] {
        assert!(deployment.contains(there), "{there}");
    }
}
