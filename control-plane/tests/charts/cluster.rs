//! A real API server, where one is at hand: what is printed is taken, and what is refused is refused by it, too.
//!
//! ```sh
//! KUBE_APISERVER=/path/kube-apiserver ETCD=/path/etcd cargo test -p weir-control-plane --test charts -- --ignored cluster
//! ```
//!
//! It runs on loopback with etcd in a folder of its own, and is asked by kubectl. Nothing runs pods there.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{root, told};

struct Cluster {
    folder: tempfile::TempDir,
    processes: Vec<Child>,
}

#[test]
#[ignore = "needs KUBE_APISERVER and ETCD, the paths of both programs, and kubectl"]
fn an_api_server_of_its_own_takes_it_all_and_refuses_what_is_broken() {
    let cluster = Cluster::start();
    let pre = cluster.weir_check(&["--pre"]);
    assert!(pre.status.success(), "{}", all(&pre));

    let installed = cluster.apply(&told(&["install", "--ha"]), &["--server-side"]);
    assert!(installed.status.success(), "{}", all(&installed));
    assert!(
        all(&installed).contains("resiliencepolicies.weir.dev"),
        "{}",
        all(&installed)
    );
    // There is nobody to run it; what was installed is what this weir has.
    let check = all(&cluster.weir_check(&[]));
    assert!(
        check.contains("ok      resiliencepolicies.weir.dev is as this weir has it"),
        "{check}"
    );
    assert!(
        check.contains("wrong   0 of 2 control planes are ready"),
        "{check}"
    );

    // Once more, and nothing is written.
    let kinds = "crd,clusterroles,deployments,services,mutatingwebhookconfigurations,validatingwebhookconfigurations,roles,poddisruptionbudgets";
    let versions = || {
        let columns = "-o=custom-columns=:kind,:metadata.name,:metadata.resourceVersion";
        let ours = "-l=app.kubernetes.io/part-of=weir";
        all(&cluster.kubectl(&["get", kinds, "-A", ours, columns]))
    };
    let before = versions();
    assert!(before.lines().count() >= 10, "{before}");
    let again = cluster.apply(&told(&["install", "--ha"]), &["--server-side"]);
    assert!(again.status.success(), "{}", all(&again));
    assert_eq!(versions(), before);

    cluster.fine(&["create", "namespace", "boutique"]);
    let policies = root().join("demo-boutique/k8s/policies");
    cluster.fine(&["apply", "-f", &policies.display().to_string()]);
    let shown = all(&cluster.kubectl(&["get", "weir", "-n", "boutique"]));
    assert!(
        shown.contains("TARGET") && shown.contains("ACCEPTED"),
        "{shown}"
    );
    assert!(shown.contains("payment"), "{shown}");
    cluster.refuses(
        "rules-routes",
        "spec.routes[3].match.http.path: Invalid value",
    );
    cluster.refuses(
        "rules-outbound",
        "a try may take 2s, but the whole call ends after 1s; make perTryTimeout shorter",
    );
    cluster.refuses(
        "misspelt-fields",
        "unknown field \"spec.outbound.deadlines\"",
    );

    // Nobody answers for the webhook: what is to be in the mesh waits, everything else starts.
    cluster.fine(&["create", "namespace", "outside"]);
    cluster.fine(&["label", "namespace", "boutique", "weir.dev/inject=enabled"]);
    let starts = |namespace: &str, label: Option<&str>| {
        let labels = label.map(|label| json!({ "weir.dev/inject": label }));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "namespace": namespace, "labels": labels },
            "spec": { "containers": [{ "name": "p", "image": "p:1" }] },
        });
        let output = cluster.apply(&pod.to_string(), &["--dry-run=server"]);
        eprintln!("{namespace} {label:?}: {}", all(&output));
        output.status.success()
    };
    assert!(starts("outside", None));
    assert!(!starts("boutique", None));
    assert!(starts("boutique", Some("false")));
    assert!(!starts("outside", Some("true")));
    assert!(!starts("outside", Some("Enabled")), "it is to be told why");
    assert!(starts("outside", Some("disabled")));

    let may = |what: &[&str]| {
        let account = "--as=system:serviceaccount:weir-system:weir-control-plane";
        let asked = [&["auth", "can-i"], what, &[account]].concat();
        cluster.kubectl(&asked).status.success()
    };
    assert!(may(&["list", "pods", "-A"]));
    assert!(may(&[
        "patch",
        "resiliencepolicies.weir.dev",
        "--subresource=status",
        "-n",
        "boutique"
    ]));
    assert!(may(&["update", "mutatingwebhookconfigurations/weir"]));
    assert!(!may(&["update", "mutatingwebhookconfigurations/other"]));
    assert!(!may(&[
        "update",
        "resiliencepolicies.weir.dev",
        "-n",
        "boutique"
    ]));
    assert!(!may(&["get", "secrets", "-n", "boutique"]));

    // A namespace goes only where somebody empties it.
    let gone = cluster.kubectl_with(
        &told(&["uninstall", "--ha", "--with-crds"]),
        &["delete", "--wait=false", "--ignore-not-found", "-f", "-"],
    );
    assert!(gone.status.success(), "{}", all(&gone));
}

impl Cluster {
    fn start() -> Self {
        let program =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} says where it is"));
        let (server, etcd) = (program("KUBE_APISERVER"), program("ETCD"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let [client, peer, port] = free_ports();
        let made = Command::new("openssl")
            .args(["genrsa", "-out", &path("key"), "2048"])
            .output();
        assert!(made.expect("openssl").status.success());
        std::fs::write(
            path("tokens"),
            "operator,operator,operator,\"system:masters\"",
        )
        .expect("a file");
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             users: [{{name: u, user: {{token: operator}}}}], clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', \
             insecure-skip-tls-verify: true}}}}]}}"
        );
        std::fs::write(path("config"), config).expect("a file");
        let (client, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let mut cluster = Self {
            processes: Vec::new(),
            folder,
        };
        let initial = format!("default={peer}");
        cluster.run(
            &etcd,
            &[
                ("--data-dir", &path_of(&cluster, "etcd")),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &initial),
            ],
        );
        cluster.run(
            &server,
            &[
                ("--etcd-servers", &client),
                ("--cert-dir", &path_of(&cluster, "certificates")),
                ("--bind-address", "127.0.0.1"),
                ("--secure-port", &port.to_string()),
                ("--service-account-key-file", &path_of(&cluster, "key")),
                (
                    "--service-account-signing-key-file",
                    &path_of(&cluster, "key"),
                ),
                ("--service-account-issuer", "https://kubernetes.default.svc"),
                ("--authorization-mode", "RBAC"),
                ("--token-auth-file", &path_of(&cluster, "tokens")),
                ("--service-cluster-ip-range", "10.0.0.0/24"),
                ("--disable-admission-plugins", "ServiceAccount"),
            ],
        );
        let until = Instant::now() + Duration::from_secs(90);
        while !cluster
            .kubectl(&["get", "--raw", "/readyz"])
            .status
            .success()
        {
            assert!(
                Instant::now() < until,
                "the API server does not become ready: {:?}",
                cluster.folder
            );
        }
        cluster
    }

    fn run(&mut self, program: &str, flags: &[(&str, &str)]) {
        let name = Path::new(program).file_name().expect("a program");
        let log =
            File::create(self.folder.path().join(name).with_extension("log")).expect("a file");
        let child = Command::new(program)
            .args(flags.iter().map(|(flag, value)| format!("{flag}={value}")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        self.processes
            .push(child.unwrap_or_else(|error| panic!("{program}: {error}")));
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with("", arguments)
    }

    fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Output {
        let file = self.folder.path().join("input");
        std::fs::write(&file, input).expect("a file");
        Command::new("kubectl")
            .args(arguments)
            .arg("--request-timeout=20s")
            .env("KUBECONFIG", self.folder.path().join("config"))
            .stdin(File::open(&file).expect("a file"))
            .output()
            .expect("kubectl runs")
    }

    fn apply(&self, text: &str, more: &[&str]) -> Output {
        self.kubectl_with(text, &[&["apply", "-f", "-"], more].concat())
    }

    fn fine(&self, arguments: &[&str]) {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", all(&output));
    }

    fn refuses(&self, broken: &str, says: &str) {
        let file = root().join(format!("config/tests/broken/{broken}.yaml"));
        let output = self.kubectl(&[
            "create",
            "--dry-run=server",
            "-f",
            &file.display().to_string(),
        ]);
        assert!(!output.status.success(), "{broken}");
        assert!(all(&output).contains(says), "{broken}: {}", all(&output));
    }

    fn weir_check(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("check")
            .args(more)
            .env("KUBECONFIG", self.folder.path().join("config"))
            .output()
            .expect("weir runs")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn path_of(cluster: &Cluster, name: &str) -> String {
    cluster.folder.path().join(name).display().to_string()
}

fn free_ports() -> [u16; 3] {
    let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    taken.map(|listener| listener.local_addr().expect("an address").port())
}

fn all(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
