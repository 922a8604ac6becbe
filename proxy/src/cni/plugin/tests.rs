//! The plugin as a runtime sees it: variables and stdin in, an answer out. What it does in a namespace is in
//! `redirect/tests.rs` and, with a whole lab around it, in `tests/mesh/cni.rs`.

use super::*;

/// A redirection for a pod whose namespace nobody can enter: whoever wants it fails.
const OURS: &str = r#"{"containers":["weir-validate","weir-proxy"],"redirect":{"inboundPort":14143,"outboundPort":14140,"proxyUid":14102}}"#;
const NOT_OURS: &str = r#"{"containers":["weir-init","weir-proxy"]}"#;
const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=7";

fn ask_with(command: &str, arguments: &str, config: &Value) -> Result<Option<Value>, Failure> {
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_ARGS" => arguments,
            "CNI_CONTAINERID" => "c1",
            "CNI_NETNS" => "/nonexistent/netns",
            "CNI_IFNAME" => "eth0",
            _ => return None,
        };
        Some(value.to_owned())
    };
    answer(&variable, config.to_string().as_bytes()).outcome
}

fn ask(command: &str, config: &Value) -> Result<Option<Value>, Failure> {
    ask_with(command, POD, config)
}

fn config(annotations: Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "weir-cni",
        "prevResult": previous(),
        "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations },
        "cni.dev/attachments": [],
    })
}

fn previous() -> Value {
    json!({ "zeta": 1, "cniVersion": "1.1.0", "ips": [{ "address": "10.1.0.5/24", "interface": 0 }], "alpha": { "b": 1, "a": [2.5] } })
}

fn code(outcome: Result<Option<Value>, Failure>) -> Code {
    outcome.expect_err("it fails").code
}

#[test]
fn a_pod_that_is_none_of_ours_passes_as_it_came() {
    for annotations in [
        Value::Null,
        json!({}),
        json!({ "weir.dev/inject": "enabled" }),
        json!({ "weir.dev/inject-status": NOT_OURS }),
    ] {
        let answer = ask("ADD", &config(annotations.clone()))
            .expect("it passes")
            .expect("a result");
        assert_eq!(answer.to_string(), previous().to_string(), "{annotations}");
        assert!(
            ask("CHECK", &config(annotations))
                .expect("it passes")
                .is_none()
        );
    }
}

#[test]
fn a_pod_of_ours_is_not_passed_unless_its_rules_are_written() {
    for command in ["ADD", "CHECK"] {
        let failure = ask(command, &config(json!({ "weir.dev/inject-status": OURS })))
            .expect_err("no such namespace");
        assert_eq!(failure.code, Code::Io);
        assert!(
            failure.message.contains("/nonexistent/netns"),
            "{}",
            failure.message
        );
    }
}

#[test]
fn an_annotation_that_is_not_understood_keeps_the_pod_from_starting() {
    for status in [
        "no JSON".to_owned(),
        OURS.replace("14143", "0"),
        OURS.replace("14143", "14140"),
        OURS.replace("14102", "0"),
        OURS.replace("proxyUid", "proxyUser"),
        OURS.replace("\"proxyUid\"", "\"newKnob\":1,\"proxyUid\""),
        OURS.replace("\"proxyUid\"", "\"skipInboundPorts\":\"http\",\"proxyUid\""),
    ] {
        let outcome = ask("ADD", &config(json!({ "weir.dev/inject-status": status })));
        assert_eq!(code(outcome), Code::Redirection, "{status}");
    }
}

#[test]
fn a_pod_of_which_nobody_can_say_whose_it_is_does_not_start() {
    let mut unasked = config(json!({}));
    unasked["runtimeConfig"] = json!({ "portMappings": [] });
    assert_eq!(
        code(ask("ADD", &unasked)),
        Code::BadConfiguration,
        "there is nobody to ask"
    );
    unasked["kubeconfig"] = "/nonexistent/kubeconfig".into();
    let failure = ask("ADD", &unasked).expect_err("it cannot be read");
    assert_eq!(failure.code, Code::TryAgain);
    assert!(
        failure.message.contains("shop/cart-0") && failure.details.contains("DaemonSet"),
        "{failure:?}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kubeconfig");
    let credentials = crate::cni::api::Credentials {
        server: "https://127.0.0.1:1".into(),
        authority: String::new(),
        token: "t".into(),
    };
    let text = credentials.kubeconfig().replace(
        "\"certificate-authority-data\": \"\"",
        "\"certificate-authority-data\": \"Cg==\"",
    );
    std::fs::write(&path, text).expect("a file");
    unasked["kubeconfig"] = path.display().to_string().into();
    let failure = ask("ADD", &unasked).expect_err("nobody listens there");
    assert_eq!(failure.code, Code::TryAgain);
    assert!(
        failure.message.contains("https://127.0.0.1:1"),
        "{failure:?}"
    );

    unasked["excludeNamespaces"] = json!(["kube-system", "shop"]);
    assert!(
        ask("ADD", &unasked).is_ok(),
        "its namespace is never in the mesh"
    );
    unasked["excludeNamespaces"] = json!([]);
    assert!(
        ask_with("ADD", "", &unasked).is_ok(),
        "no Kubernetes, no mesh"
    );
}

#[test]
fn names_that_would_lead_elsewhere_at_the_api_server_are_refused() {
    for arguments in [
        "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=../../secrets",
        "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=",
        "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a?b",
        "K8S_POD_NAMESPACE=Shop;K8S_POD_NAME=a",
        "K8S_POD_NAMESPACE=..;K8S_POD_NAME=a",
        "K8S_POD_NAMESPACE=shop",
        "K8S_POD_NAME=a",
    ] {
        assert_eq!(
            code(ask_with("ADD", arguments, &config(json!({})))),
            Code::BadEnvironment,
            "{arguments}"
        );
    }
}

#[test]
fn what_is_asked_in_another_way_than_the_specification_has_it_gets_the_specifications_errors() {
    let fine = config(json!({}));
    let with = |field: &str, value: Value| {
        let mut config = fine.clone();
        config[field] = value;
        config
    };
    assert_eq!(
        code(ask("ADD", &with("cniVersion", "0.2.0".into()))),
        Code::IncompatibleVersion
    );
    assert_eq!(
        code(ask("ADD", &with("cniVersion", "2.0.0".into()))),
        Code::IncompatibleVersion
    );
    assert_eq!(
        code(ask("ADD", &with("excludedNamespaces", json!([])))),
        Code::UnsupportedField
    );
    assert_eq!(
        code(ask("ADD", &with("kubeconfig", 7.into()))),
        Code::BadConfiguration
    );
    assert_eq!(code(ask("PAINT", &fine)), Code::BadEnvironment);
    assert_eq!(code(ask("ADD", &json!([]))), Code::BadConfiguration);
    let mut first = fine.clone();
    first
        .as_object_mut()
        .expect("an object")
        .remove("prevResult");
    assert_eq!(
        code(ask("ADD", &first)),
        Code::BadConfiguration,
        "it makes no network"
    );
    for (command, since, before) in [
        ("CHECK", "0.4.0", "0.3.1"),
        ("GC", "1.1.0", "1.0.0"),
        ("STATUS", "1.1.0", "1.0.0"),
    ] {
        assert!(
            ask(command, &with("cniVersion", since.into())).is_ok(),
            "{command}"
        );
        assert_eq!(
            code(ask(command, &with("cniVersion", before.into()))),
            Code::IncompatibleVersion,
            "{command}"
        );
    }
    assert_eq!(
        code(ask("STATUS", &with("kubeconfig", "/nonexistent".into()))),
        Code::NotAvailable
    );
    let nothing = answer(&|_| None, &b"{}"[..]);
    assert_eq!(code(nothing.outcome), Code::BadEnvironment);
    let endless = answer(&|_| Some("ADD".to_owned()), std::io::repeat(b' '));
    assert_eq!(code(endless.outcome), Code::Unreadable);
    let no_netns = |name: &str| (name == "CNI_COMMAND").then(|| "ADD".to_owned());
    assert_eq!(
        code(answer(&no_netns, fine.to_string().as_bytes()).outcome),
        Code::BadEnvironment
    );
}

#[test]
fn an_end_is_always_fine_and_versions_are_told() {
    let bare = json!({ "cniVersion": "0.3.1", "name": "net", "type": "weir-cni" });
    assert!(ask("DEL", &bare).expect("always").is_none());
    let told = ask("VERSION", &json!({ "cniVersion": "0.3.1" }))
        .expect("told")
        .expect("a result");
    assert_eq!(
        told["supportedVersions"],
        json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
    let failure = Failure::new(Code::TryAgain, "no")
        .with("later")
        .json("1.0.0");
    assert_eq!(
        failure,
        json!({ "cniVersion": "1.0.0", "code": 11, "msg": "weir-cni: no", "details": "later" })
    );
}
