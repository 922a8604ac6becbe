//! `weir check`, beside a kubectl that answers from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use weir_config::crd;

/// A cluster as kubectl tells of it.
struct Cluster {
    folder: tempfile::TempDir,
}

const KUBECTL: &str = r#"#!/bin/sh
folder=$(dirname "$0")
case "$1" in
version) cat "$folder/version.json" ;;
auth) if grep -qx "$4" "$folder/refused"; then echo no; exit 1; fi; echo yes ;;
get) if [ -e "$folder/$2.json" ]; then cat "$folder/$2.json"; fi ;;
esac
"#;

impl Cluster {
    fn new(minor: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("kubectl");
        fs::write(&program, KUBECTL).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it runs");
        let cluster = Self { folder };
        let version =
            json!({ "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.0") });
        cluster.tell("version", &json!({ "serverVersion": version }));
        fs::write(cluster.folder.path().join("refused"), "").expect("a file");
        cluster
    }

    /// Just installed, and running.
    fn installed() -> Self {
        let cluster = Self::new("34");
        cluster.list("crd", &crd::all());
        let mut installed = documents(&weir(&["install", "--without-crds"]));
        for object in &mut installed {
            let kind = object["kind"].as_str().expect("a kind").to_lowercase();
            if kind == "deployment" {
                object["status"] = json!({ "readyReplicas": 1 });
            }
            for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                webhook["clientConfig"]["caBundle"] = certificate(90).into();
            }
            if [
                "deployment",
                "mutatingwebhookconfiguration",
                "validatingwebhookconfiguration",
            ]
            .contains(&&*kind)
            {
                cluster.tell(&kind, object);
            }
        }
        cluster.list(
            "namespace",
            &[namespace(
                "boutique",
                json!({ "weir.dev/inject": "enabled" }),
            )],
        );
        cluster.list("pod", &[injected("cart-0", &[])]);
        cluster
    }

    fn tell(&self, name: &str, content: &Value) {
        let path = self.folder.path().join(format!("{name}.json"));
        fs::write(path, content.to_string()).expect("a file");
    }

    fn list(&self, name: &str, items: &[Value]) {
        self.tell(name, &json!({ "kind": "List", "items": items }));
    }

    /// CNI mode.
    fn nodes_write_the_rules(&self) {
        let mut deployment = self.told("deployment");
        let env = deployment.pointer_mut("/spec/template/spec/containers/0/env");
        let env = env.and_then(Value::as_array_mut).expect("variables");
        env.push(json!({ "name": "WEIR_CNI", "value": "true" }));
        self.tell("deployment", &deployment);
    }

    fn told(&self, name: &str) -> Value {
        let path = self.folder.path().join(format!("{name}.json"));
        serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
    }

    /// Exit code and answer.
    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let program = self.folder.path().join("kubectl");
        let output = run(&[
            &["check", "--kubectl", &program.display().to_string()],
            more,
        ]
        .concat());
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), text)
    }
}

#[test]
fn a_cluster_that_can_have_weir_is_told_so() {
    let (code, text) = Cluster::new("34").check(&["--pre"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("ok      the API server answers: Kubernetes v1.34.0"),
        "{text}"
    );
    assert!(
        text.contains("ok      you may create customresourcedefinitions"),
        "{text}"
    );
    assert!(
        text.contains("ok      there are no definitions of weir.dev yet"),
        "{text}"
    );
}

#[test]
fn what_is_in_the_way_of_an_installation_is_told_with_what_to_do() {
    let cluster = Cluster::new("28+");
    let refused = "clusterroles.rbac.authorization.k8s.io\n";
    fs::write(cluster.folder.path().join("refused"), refused).expect("a file");
    let labels =
        json!({ "weir.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "baseline" });
    cluster.list("namespace", &[namespace("shop", labels)]);
    let (code, text) = cluster.check(&["--pre"]);
    assert_eq!(code, Some(1), "{text}");
    for said in [
        "wrong   the API server answers: Kubernetes v1.28+.0",
        "Weir needs 1.29 or newer",
        "wrong   you may not create clusterroles",
        "ok      you may create clusterrolebindings",
        "warning namespace shop is to be in the mesh, and its Pod Security level refuses NET_ADMIN",
        "2 things are wrong",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn a_kubectl_that_is_not_there_is_no_finding_but_an_error() {
    let output = run(&["check", "--kubectl", "/nowhere/kubectl"]);
    assert_eq!(output.status.code(), Some(3));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("/nowhere/kubectl") && errors.contains("--kubectl"),
        "{errors}"
    );
}

#[test]
fn what_has_just_been_installed_is_in_order() {
    let (code, text) = Cluster::installed().check(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        !text.contains("warning") && !text.contains("wrong"),
        "{text}"
    );
    for said in [
        "resiliencepolicies.weir.dev is as this weir has it",
        "1 of 1 control planes are ready",
        "webhook namespaces.inject.weir.dev trusts a certificate for another 90 days",
        "webhook policies.weir.dev trusts",
        "1 pods are in the mesh",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn nothing_installed_is_told_piece_by_piece() {
    let (code, text) = Cluster::new("34").check(&[]);
    assert_eq!(code, Some(1));
    for said in [
        "there is no definition meshconfigs.weir.dev",
        "there is no control plane in namespace weir-system",
        "there is no MutatingWebhookConfiguration weir",
        "weir install | kubectl apply",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn old_definitions_a_control_plane_that_does_not_run_and_bad_certificates_are_found() {
    let cluster = Cluster::installed();
    let mut crds = crd::all();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    crds[0]
        .pointer_mut(spec)
        .and_then(Value::as_object_mut)
        .expect("fields")
        .remove("mode");
    cluster.list("crd", &crds);
    let mut deployment = cluster.told("deployment");
    deployment["status"] = json!({});
    deployment["metadata"]["labels"]["app.kubernetes.io/version"] = "0.0.9".into();
    cluster.tell("deployment", &deployment);
    let mut webhooks = cluster.told("mutatingwebhookconfiguration");
    webhooks["webhooks"][0]["clientConfig"]["caBundle"] = certificate(-1).into();
    webhooks["webhooks"][1]["clientConfig"]["caBundle"] = certificate(2).into();
    cluster.tell("mutatingwebhookconfiguration", &webhooks);
    let mut webhooks = cluster.told("validatingwebhookconfiguration");
    webhooks["webhooks"][0]["clientConfig"]
        .as_object_mut()
        .expect("a map")
        .remove("caBundle");
    cluster.tell("validatingwebhookconfiguration", &webhooks);
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(1));
    for said in [
        "wrong   resiliencepolicies.weir.dev is of another version",
        "wrong   0 of 1 control planes are ready",
        "warning the control plane is of version 0.0.9",
        "wrong   the certificate that webhook namespaces.inject.weir.dev trusts has expired",
        "warning the certificate that webhook pods.inject.weir.dev trusts expires in 49 h",
        "wrong   webhook policies.weir.dev has no certificate yet",
        "4 things are wrong",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

/// Its pods start outside of the mesh, and nobody is ever asked about them.
#[test]
fn a_namespace_whose_label_says_neither_yes_nor_no_is_named() {
    let cluster = Cluster::installed();
    let labels = |label: &str| json!({ "weir.dev/inject": label });
    let namespaces = [("shop", "Enabled"), ("bank", "true"), ("lab", "disabled")]
        .map(|(name, label)| namespace(name, labels(label)));
    cluster.list("namespace", &namespaces);
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(1), "{text}");
    for said in [
        "wrong   namespace shop has the label weir.dev/inject=Enabled, which says neither yes nor no",
        "kubectl label namespace shop --overwrite weir.dev/inject=enabled",
        "1 thing is wrong",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn pods_that_must_start_anew_are_named() {
    let cluster = Cluster::installed();
    let other_image = injected("old-0", &["--proxy-image", "weir-proxy:0.0.9"]);
    let mut other_injector = injected("old-1", &[]);
    other_injector["metadata"]["annotations"]["weir.dev/inject-status"] = "{}".into();
    let mut finished = injected("done", &["--proxy-image", "weir-proxy:0.0.9"]);
    finished["status"] = json!({ "phase": "Succeeded" });
    let outside = plain("late");
    let mut opted_out = plain("never");
    opted_out["metadata"]["labels"] = json!({ "weir.dev/inject": "false" });
    cluster.list(
        "pod",
        &[
            injected("new", &[]),
            other_image,
            other_injector,
            finished,
            outside,
            opted_out,
        ],
    );
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(0), "{text}");
    for said in [
        "3 pods are in the mesh",
        "warning 2 of them would be made otherwise now: boutique/old-0, boutique/old-1",
        "warning 1 pods should be in the mesh and are not: boutique/late",
        "kubectl rollout restart",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

/// Nobody said that calls which had gone to one pod would go to all.
#[test]
fn services_whose_affinity_callers_in_the_mesh_do_not_keep_to_are_named() {
    let cluster = Cluster::installed();
    let service = |name: &str, namespace: &str, ip: &str, affinity: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": ip, "sessionAffinity": affinity, "ports": [{ "port": 80 }] },
        })
    };
    let fine = [
        service("cart", "boutique", "10.96.0.1", "None"),
        service("pods", "boutique", "None", "ClientIP"),
        service("others", "elsewhere", "10.96.0.2", "ClientIP"),
    ];
    cluster.list("service", &fine);
    let (_, text) = cluster.check(&[]);
    assert!(!text.contains("warning"), "{text}");
    let sticky = service("cart", "boutique", "10.96.0.1", "ClientIP");
    cluster.list("service", &[&fine[1..], &[sticky]].concat());
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(0), "{text}");
    for said in [
        "warning 1 Services ask for sessionAffinity: ClientIP",
        "do not keep to: boutique/cart\n",
        "consistentHash: {attribute: SourceIdentity}",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

/// They were said to be older than the label, for ever: no restart brings them a sidecar.
#[test]
fn pods_that_ask_for_a_sidecar_where_their_namespace_says_no_are_named() {
    let cluster = Cluster::installed();
    let mut keen = plain("keen");
    keen["metadata"]["labels"] = json!({ "weir.dev/inject": "enabled" });
    cluster.list("pod", &[keen, plain("quiet")]);
    let told = |label: &str| {
        let labels = json!({ "weir.dev/inject": label });
        cluster.list("namespace", &[namespace("boutique", labels)]);
        let (_, text) = cluster.check(&[]);
        text
    };
    let text = told("disabled");
    let unheard = "warning 1 pods ask for a sidecar where their namespace's word counts, which is no: boutique/keen";
    assert!(text.contains(unheard), "{text}");
    assert!(!text.contains("should be in the mesh"), "{text}");
    let text = told("Enabled");
    assert!(!text.contains("should be in the mesh"), "{text}");
    assert!(text.contains("says neither yes nor no"), "{text}");
    let text = told("enabled");
    let outside = "warning 2 pods should be in the mesh and are not: boutique/keen, boutique/quiet";
    assert!(text.contains(outside), "{text}");
}

/// Their pods were said to be older than the label, and no restart brings them a sidecar. In CNI mode they need no
/// NET_ADMIN, and were named before an upgrade all the same.
#[test]
fn namespaces_where_weir_init_is_refused_are_named_as_long_as_pods_need_it() {
    let refused = "warning namespace boutique is to be in the mesh, and its Pod Security level refuses NET_ADMIN";
    let cluster = Cluster::installed();
    let labels =
        json!({ "weir.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted" });
    cluster.list("namespace", &[namespace("boutique", labels)]);
    cluster.list("pod", &[plain("cart-0")]);
    for more in [&[][..], &["--pre"]] {
        let (code, text) = cluster.check(more);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(refused), "{more:?}\n{text}");
    }
    cluster.nodes_write_the_rules();
    for more in [&[][..], &["--pre"]] {
        let (_, text) = cluster.check(more);
        assert!(!text.contains("NET_ADMIN"), "{more:?}\n{text}");
    }
}

/// All policies of callers were off, and nobody said so.
#[test]
fn a_cilium_that_hides_services_from_sidecars_is_wrong() {
    let wrong = "wrong   Cilium replaces the addresses of Services inside of pods";
    for (data, is_wrong) in [
        (json!({ "kube-proxy-replacement": "true" }), true),
        (json!({ "kube-proxy-replacement": "strict" }), true),
        (
            json!({ "kube-proxy-replacement": "false", "bpf-lb-sock": "true" }),
            true,
        ),
        (
            json!({ "bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "false" }),
            true,
        ),
        (
            json!({ "kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true" }),
            false,
        ),
        (json!({ "kube-proxy-replacement": "false" }), false),
        (json!({}), false),
    ] {
        let cluster = Cluster::installed();
        cluster.tell("configmap", &json!({ "kind": "ConfigMap", "data": data }));
        for more in [&[][..], &["--pre"]] {
            let (code, text) = cluster.check(more);
            assert_eq!(code, Some(i32::from(is_wrong)), "{data} {text}");
            assert_eq!(text.contains(wrong), is_wrong, "{data} {text}");
            let help = "socketLB.hostNamespaceOnly=true";
            assert_eq!(text.contains(help), is_wrong, "{data} {text}");
        }
    }
}

#[test]
fn whoever_may_not_read_how_cilium_is_set_is_told_nothing_of_it() {
    let cluster = Cluster::installed();
    let program = cluster.folder.path().join("kubectl");
    let refuses = KUBECTL.replace(
        "get)",
        "get) if [ \"$2\" = configmap ]; then echo forbidden >&2; exit 1; fi;",
    );
    assert_ne!(refuses, KUBECTL);
    fs::write(&program, refuses).expect("a program");
    for more in [&[][..], &["--pre"]] {
        let (code, text) = cluster.check(more);
        assert_eq!(code, Some(0), "{text}");
        assert!(!text.contains("forbidden"), "{text}");
    }
}

#[test]
fn in_cni_mode_nodes_without_the_plugin_and_pods_that_started_there_are_named() {
    let cluster = Cluster::installed();
    let (_, text) = cluster.check(&[]);
    assert!(!text.contains("CNI"), "nobody asked for it\n{text}");
    cluster.nodes_write_the_rules();
    let pod = |name: &str, state: Value, last: Value| {
        let mut pod = injected(name, &["--cni"]);
        pod["status"] = json!({ "phase": "Pending", "initContainerStatuses": [
            { "name": "weir-validate", "state": state, "lastState": last },
        ] });
        pod
    };
    let ended = |code: u64| json!({ "terminated": { "exitCode": code } });
    cluster.list(
        "pod",
        &[pod("fine", ended(0), ended(95)), injected("by-itself", &[])],
    );
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("wrong   there is no DaemonSet weir-cni"),
        "{text}"
    );
    assert!(
        text.contains("1 of them would be made otherwise now: boutique/by-itself"),
        "{text}"
    );
    assert!(!text.contains("not redirected"), "{text}");

    let nodes =
        |ready: u64| json!({ "status": { "numberReady": ready, "desiredNumberScheduled": 3 } });
    cluster.list("daemonset", &[nodes(2)]);
    let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    cluster.list(
        "pod",
        &[
            pod("late", waits, ended(95)),
            pod("later", ended(95), json!({})),
            pod("fine", ended(0), json!({})),
        ],
    );
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(1));
    for said in [
        "wrong   2 of 3 nodes have the CNI plugin in place",
        "wrong   2 pods are not redirected, and wait in weir-validate: boutique/late, boutique/later",
        "delete these pods",
        "2 things are wrong",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    cluster.list("daemonset", &[nodes(3)]);
    cluster.list("pod", &[pod("fine", ended(0), json!({}))]);
    let (code, text) = cluster.check(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("ok      3 of 3 nodes have the CNI plugin in place"),
        "{text}"
    );
}

/// What the namespace says is copied to the pod, and would look like the pod's own.
#[test]
fn what_a_namespace_says_now_is_what_its_pods_are_held_against() {
    let cluster = Cluster::installed();
    let annotated = |level: &str| {
        let mut namespace = namespace("boutique", json!({ "weir.dev/inject": "enabled" }));
        namespace["metadata"]["annotations"] = json!({ "config.weir.dev/log-level": level });
        namespace
    };
    let file = cluster.folder.path().join("pod.yaml");
    let both = format!("{}\n---\n{}", annotated("debug"), plain("cart-0"));
    cluster.list("pod", &[inject(&file, &both, &[])]);
    cluster.list("namespace", &[annotated("debug")]);
    let (_, text) = cluster.check(&[]);
    assert!(
        text.contains("1 pods are in the mesh") && !text.contains("otherwise"),
        "{text}"
    );
    cluster.list("namespace", &[annotated("warn")]);
    let (_, text) = cluster.check(&[]);
    assert!(
        text.contains("1 of them would be made otherwise now: boutique/cart-0"),
        "{text}"
    );
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn plain(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "boutique" },
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
    })
}

fn injected(name: &str, more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    inject(
        &folder.path().join("pod.yaml"),
        &plain(name).to_string(),
        more,
    )
}

/// The pod at the end of the file.
fn inject(file: &Path, text: &str, more: &[&str]) -> Value {
    fs::write(file, text).expect("a file");
    let shown = file.display().to_string();
    let all = weir(&[&["inject", "-f", &shown], more].concat());
    documents(&all).pop().expect("a pod")
}

/// Of a CA that has so many days left, as an API server keeps it.
fn certificate(days: i64) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(vec!["weir".to_owned()]).expect("a name");
    // Half an hour more, so that it is the same hour however long the test takes.
    let span = Duration::from_secs(days.unsigned_abs() * 86_400 + 5400);
    let now = SystemTime::now();
    parameters.not_after = if days < 0 { now - span } else { now + span }.into();
    base64(
        parameters
            .self_signed(&key)
            .expect("a certificate")
            .pem()
            .as_bytes(),
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * at)) & 63]);
            text.push(if at <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn run(arguments: &[&str]) -> Output {
    let weir = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .output();
    weir.expect("weir runs")
}

/// What it prints, when all is well.
fn weir(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn documents(text: &str) -> Vec<Value> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    documents.retain(|document| !document.is_null());
    documents
}
