//! The pods of `control-plane/tests/injection`, run: what comes out of the injector is not only as written there, it
//! works. The lab takes each through the webhook, as an API server would.
//!
//! Of a pod only this is changed: a namespace of its own, a name where a ReplicaSet would have made one, and what its
//! images would run (`fixture.py`, on the ports that it declares).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_lab::control::PodStatus;
use weir_lab::metrics::Metrics;
use weir_lab::{Lab, build, toolbox};

use crate::world::{ADMIN_PORT, PATIENCE, PROXY, alone, binary};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a story comes to, when that is not a pod that becomes ready.
const OTHERS: [(&str, End); 2] = [
    ("job", End::Over),
    // Its startup probe asks a port that no container has: Kubernetes never starts it, and neither do we.
    ("named-port-probes", End::NotStarted),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ready,
    /// The job is done, and its sidecar has gone with it.
    Over,
    NotStarted,
}

struct Story {
    name: String,
    pod: String,
    account: String,
    end: End,
    objects: Vec<Value>,
}

/// Those that the injector puts a sidecar into.
fn stories() -> Vec<Story> {
    let folder = build::root().join("control-plane/tests/injection");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.to_string_lossy().ends_with(".expected.yaml"))
        .collect();
    files.sort();
    files.iter().filter_map(|file| story(file)).collect()
}

fn story(file: &Path) -> Option<Story> {
    let expected = fs::read_to_string(file.with_extension("expected.yaml")).expect("a golden file");
    if !expected.contains("weir.dev/inject-status") || expected.starts_with("skipped") {
        return None;
    }
    let name = file
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let text = fs::read_to_string(file).expect("a fixture");
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("a fixture is YAML");
    let mut pod = objects.pop().expect("a fixture has a pod");
    let mut namespace = objects.pop().unwrap_or_else(|| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {"weir.dev/inject": "enabled"}}})
    });
    namespace["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(name);
    if pod["metadata"]["name"].is_null() {
        let prefix = pod["metadata"]["generateName"].as_str().unwrap_or("app-");
        pod["metadata"]["name"] = json!(format!("{prefix}x7k2p"));
    }
    let is_job = pod["spec"]["restartPolicy"] == "Never";
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            if container["command"].is_null() {
                container["command"] = match kind == "initContainers" || is_job {
                    true => json!(["true"]),
                    false => command(container),
                };
            }
        }
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let end = OTHERS.iter().find(|(of, _)| *of == name);
    Some(Story {
        pod: text(&pod["metadata"]["name"]).expect("it has a name"),
        account: text(&pod["spec"]["serviceAccountName"]).unwrap_or_else(|| "default".into()),
        end: end.map_or(End::Ready, |(_, end)| *end),
        name,
        objects: vec![namespace, pod],
    })
}

/// What listens on the container's ports, in the protocol that its probes ask for.
fn command(container: &Value) -> Value {
    let root = build::root();
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| &container[probe]);
    let ports = container["ports"].as_array().into_iter().flatten();
    let mut protocols: BTreeMap<u64, &str> = ports
        .filter_map(|port| Some((port["containerPort"].as_u64()?, "http")))
        .collect();
    for port in probes
        .iter()
        .filter_map(|probe| probe["grpc"]["port"].as_u64())
    {
        protocols.insert(port, "grpc");
    }
    for http in probes.iter().map(|probe| &probe["httpGet"]) {
        if let (Some(port), "HTTPS") = (
            http["port"].as_u64(),
            http["scheme"].as_str().unwrap_or_default(),
        ) {
            protocols.insert(port, "https");
        }
    }
    if protocols.is_empty() {
        protocols.insert(8080, "http");
    }
    let python = root.join("demo-boutique/chassis/python/.venv/bin/python");
    let app = root.join("tests/mesh/fixture.py");
    let path = |path: &Path| {
        std::path::absolute(path)
            .expect("it has a path")
            .display()
            .to_string()
    };
    let mut command = vec![path(&python), path(&app)];
    command.extend(protocols.iter().map(|(port, protocol)| match *protocol {
        "https" => format!("https:{port}:{}", path(&key_and_certificate())),
        other => format!("{other}:{port}"),
    }));
    json!(command)
}

/// In one file, as an app has them that nobody gave any.
fn key_and_certificate() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixture.pem");
    let made = rcgen::generate_simple_self_signed(["fixture".to_owned()]).expect("a certificate");
    let text = made.signing_key.serialize_pem() + &made.cert.pem();
    fs::write(&path, text).expect("a file");
    path
}

/// What init containers of the stories ask for, in the namespaces of those.
fn services() -> String {
    let service = |namespace: &str, name: &str, port: u16| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: {port}, targetPort: 8080}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-0, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  containers:
  - name: app
    image: lab/app
    command: ['{}']
    ports: [{{containerPort: 8080}}]
---
",
            binary("lab-app").display()
        )
    };
    [
        service("real-shop", "catalog", 3550),
        service("volumes-and-inits", "models", 80),
    ]
    .concat()
}

fn open(stories: &[Story]) -> Lab {
    toolbox::provide(&[toolbox::FIXTURES]).expect("the tools are there");
    build::everything(&build::root()).expect("the shop's Python is there");
    let objects = stories.iter().flat_map(|story| &story.objects);
    let yaml = objects.map(|object| format!("{object}\n---\n"));
    Lab::builder()
        .mesh(true)
        .program(binary("weir-lab"))
        .yaml(yaml.collect::<String>() + &services())
        .start()
        .expect("the lab starts")
}

/// The pod, once it has come to that end.
fn until_ended(lab: &Lab, story: &Story) -> PodStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        let pods = lab.status().expect("the lab answers").pods;
        let pod = pods
            .into_iter()
            .find(|pod| pod.namespace == story.name && pod.name == story.pod);
        let Some(pod) = pod else {
            // The first comes after the control plane.
            assert!(Instant::now() < until, "{} has no pod", story.name);
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        let sidecar = pod
            .containers
            .iter()
            .find(|container| container.name == PROXY);
        let runs = sidecar.is_some_and(|sidecar| sidecar.state.pid.is_some());
        let has_ended = match story.end {
            End::Ready => pod.ready && runs,
            End::Over => pod.phase == "Succeeded" && !runs,
            End::NotStarted => !pod.ready && runs && pod.message.contains("nowhere"),
        };
        if has_ended {
            return pod;
        }
        assert!(
            Instant::now() < until,
            "{}, {:?}: {pod:#?}",
            story.name,
            story.end
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn every_pod_that_is_injected_runs() {
    let _alone = alone();
    let stories = stories();
    assert!(stories.len() >= 12, "the fixtures are gone");
    let lab = open(&stories);
    for story in &stories {
        let pod = until_ended(&lab, story);
        assert!(pod.meshed, "{}", story.name);
        let said = lab.log(&story.pod, "weir-init");
        assert!(said.contains("IPv4 verified"), "{}: {said}", story.name);
        println!("{}: {:?}, {}", story.name, story.end, pod.phase);
        if story.end != End::Ready {
            continue;
        }
        // Not the name of a file or a field: who it can prove to be.
        let state = lab.exec(
            Some(&story.pod),
            &["curl", "-s", "http://127.0.0.1:14191/state"],
        );
        let state: Value =
            serde_json::from_str(&state.expect("the lab answers").stdout).expect("JSON");
        let identity = format!("spiffe://weir.local/ns/{}/sa/{}", story.name, story.account);
        assert_eq!(state["identity"], json!(identity));
    }

    // An init container comes after the sidecar, so what it fetched came through the mesh.
    let models = lab.pod("models-0").expect("it runs").address;
    let models = SocketAddr::new(models, ADMIN_PORT).to_string();
    let metrics = Metrics::scrape(lab.client(), &models).expect("a sidecar shows its metrics");
    let fetched = [("direction", "inbound"), ("tls", "mtls")];
    assert_eq!(metrics.sum("weir_requests_total", &fetched), 1.0);
    lab.down().expect("it ends");
}
