//! A mesh with one caller, and a service with a port for each protocol (`lab-app`).

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use weir_lab::metrics::Metrics;
use weir_lab::settings::Publish;
use weir_lab::{Builder, Lab, build, toolbox};

/// Long enough for a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
pub(crate) const ADMIN_PORT: u16 = 14191;
pub(crate) const PROXY: &str = "weir-proxy";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static BUILT: Once = Once::new();

/// Of a service port, as metrics call it.
pub(crate) const WEB: &str = "tests/server:80";

pub(crate) struct World {
    pub(crate) lab: Lab,
    /// Watched by the control plane.
    policies: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    let alone = ONE_AT_A_TIME.lock();
    let alone = alone.unwrap_or_else(PoisonError::into_inner);
    BUILT.call_once(|| {
        toolbox::provide(&[toolbox::LAB, toolbox::TESTS]).expect("the tools are there");
        build::mesh(&build::root()).expect("the mesh can be built");
    });
    alone
}

/// Where cargo puts binaries, for the profile of this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test has a path");
    let folder = own.parent().and_then(Path::parent);
    folder.expect("it lies in target/PROFILE/deps").join(name)
}

/// The whole shop, built and open; `env`: workload, variable, value.
pub(crate) fn shop(mesh: bool, env: &[(&str, &str, &str)]) -> (Lab, SocketAddr) {
    opened(mesh, &[String::new()], env, None)
}

/// So much of it as a story needs: it is open sooner. With what the mesh is told of all.
pub(crate) fn part_of_shop(
    mesh: bool,
    services: &[&str],
    env: &[(&str, &str, &str)],
) -> (Lab, SocketAddr) {
    opened(mesh, &parts_of(services), env, None)
}

/// In the mesh, which looks for more policies in this folder.
pub(crate) fn part_of_shop_watching(services: &[&str], policies: &Path) -> (Lab, SocketAddr) {
    opened(true, &parts_of(services), &[], Some(policies))
}

fn parts_of(services: &[&str]) -> Vec<String> {
    let mut parts = vec!["namespace.yaml".to_owned(), "policies".to_owned()];
    parts.extend(services.iter().map(|service| format!("{service}.yaml")));
    parts
}

/// `parts`: files and folders of `demo-boutique/k8s`; `policies`: more of those.
fn opened(
    mesh: bool,
    parts: &[String],
    env: &[(&str, &str, &str)],
    policies: Option<&Path>,
) -> (Lab, SocketAddr) {
    let root = build::root();
    toolbox::provide(&[toolbox::SHOP]).expect("the shop's tools are there");
    build::everything(&root).expect("the shop can be built");
    let mut builder = Lab::builder()
        .program(binary("weir-lab"))
        .mesh(mesh)
        .publish(Publish {
            service: "storefront".into(),
            port: 8080,
            host_port: 0,
        });
    for part in parts {
        builder = builder.manifests(root.join("demo-boutique/k8s").join(part));
    }
    if let Some(policies) = policies {
        builder = builder.policies(policies);
    }
    for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
        builder = builder.image(image);
    }
    for (workload, name, value) in env {
        builder = builder.env(workload, name, value);
    }
    let lab = builder.start().expect("the lab starts");
    lab.wait_ready(PATIENCE).expect("the shop opens");
    let page = lab.published("storefront").expect("it is published");
    (lab, page)
}

/// A form sent to the page: the status and what follows the head, if there was an answer.
pub(crate) fn post(
    page: SocketAddr,
    session: &str,
    path: &str,
    form: &str,
) -> Option<(u16, String)> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {page}\r\ncookie: session={session}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut stream = std::net::TcpStream::connect(page).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.get(9..12)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// So many pods of `lab-app`.
fn deployment(name: &str, replicas: u32) -> String {
    labelled(name, &format!("app: {name}"), replicas)
}

/// The same with these labels, as YAML.
pub(crate) fn labelled(name: &str, labels: &str, replicas: u32) -> String {
    let app = binary("lab-app").display().to_string();
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: tests}}
spec:
  replicas: {replicas}
  template:
    metadata: {{labels: {{{labels}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: lab/app
        command: ['{app}']
        securityContext: {{runAsUser: 1000}}
        ports: [{{containerPort: 8080}}, {{containerPort: 8081}}, {{containerPort: 9090}}, {{containerPort: 2525}}, {{containerPort: 7000}}, {{containerPort: 7001}}]
        readinessProbe: {{httpGet: {{path: /health, port: 8080}}, periodSeconds: 1}}
---
"
    )
}

/// One more pod with that app, and its Service: HTTP on port 80.
pub(crate) fn hop(name: &str) -> String {
    format!(
        "{}
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: tests}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http-web, port: 80, targetPort: 8080}}]
---
",
        deployment(name, 1)
    )
}

/// Pods `caller-0`, `server-0`, …; `mesh` is more YAML, a MeshConfig say.
fn manifests(servers: u32, mesh: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: tests, labels: {{weir.dev/inject: enabled}}}}
---{}{}
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: tests}}
spec:
  selector: {{app: server}}
  ports:
  - {{name: http-web, port: 80, targetPort: 8080}}
  - {{name: http-hints, port: 8081}}
  - {{name: grpc-echo, port: 9090}}
  - {{name: smtp, port: 25, targetPort: 2525}}
  - {{name: mail, port: 2525}}
  - {{name: tcp-echo, port: 7000}}
  - {{name: tcp-hold, port: 7001}}
  - {{name: any, port: 7070, targetPort: 7000}}
---
{mesh}
",
        deployment("caller", 1),
        deployment("server", servers)
    )
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(1, "", "")
    }

    /// `policy` is the text of `policy.yaml`, for [`World::write_policy`] to change later.
    pub(crate) fn with(servers: u32, policy: &str, more: &str) -> Self {
        Self::built(servers, policy, more, |lab| lab)
    }

    /// In a lab that is another than usual.
    pub(crate) fn built(
        servers: u32,
        policy: &str,
        more: &str,
        how: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let alone = alone();
        let policies = tempfile::tempdir().expect("a directory can be made");
        std::fs::write(policies.path().join("policy.yaml"), policy).expect("it can be written to");
        let root = build::root();
        let mut builder = Lab::builder()
            .mesh(true)
            .program(binary("weir-lab"))
            .policies(policies.path())
            .yaml(manifests(servers, more));
        for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
            builder = builder.image(image);
        }
        let lab = how(builder).start().expect("the lab starts");
        lab.wait_ready(PATIENCE).expect("its pods become ready");
        let world = Self {
            lab,
            policies,
            _alone: alone,
        };
        world.until_known(servers);
        world
    }

    /// The control plane sees endpoints a moment after the lab does, and the caller's sidecar after that. Asked by an
    /// HTTP/1.0 request on a connection of its own, over std: no runtime, no keep-alive, and the sidecar's own word.
    fn until_known(&self, servers: u32) {
        let until = Instant::now() + PATIENCE;
        loop {
            let state = self.sidecar_state("caller");
            let endpoints = state["services"][WEB]["endpoints"].as_array();
            if endpoints.is_some_and(|endpoints| endpoints.len() == servers as usize) {
                return;
            }
            assert!(
                Instant::now() < until,
                "the caller does not get to know: {state}"
            );
            // The first use subscribes.
            let _ = self.lab.dial(Some("caller"), "server:80").map(|stream| {
                let _ = (&stream).write_all(b"GET /health HTTP/1.0\r\nhost: server\r\n\r\n");
                let _ = stream.set_read_timeout(Some(LOOK_EVERY));
                let _ = (&stream).read(&mut [0; 256]);
            });
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What a sidecar knows, as it tells in its own pod.
    pub(crate) fn sidecar_state(&self, pod: &str) -> serde_json::Value {
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/state");
        let output =
            tokio::task::block_in_place(|| self.lab.exec(Some(pod), &["curl", "-s", &url]));
        let output = output.expect("the lab answers");
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// As an editor or a sync job does it: the new file takes the old one's place.
    pub(crate) fn write_policy(&self, text: &str) {
        let (fresh, path) = (
            self.policies.path().join(".policy.yaml.new"),
            self.policies.path().join("policy.yaml"),
        );
        std::fs::write(&fresh, text).expect("it can be written");
        std::fs::rename(&fresh, &path).expect("it can take the other's place");
    }

    /// From the caller's pod, as its app would: through its sidecar.
    pub(crate) fn dial(&self, to: &str) -> TcpStream {
        self.dial_from(Some("caller"), to)
    }

    /// `None`: reset at once.
    pub(crate) fn try_dial(&self, to: &str) -> Option<TcpStream> {
        match tokio::task::block_in_place(|| self.lab.dial(Some("caller"), to)) {
            Ok(stream) => Some(of_the_runtime(stream)),
            Err(error) if error.to_string().contains("reset by peer") => None,
            Err(error) => panic!("{to}: {error}"),
        }
    }

    pub(crate) fn dial_from(&self, from: Option<&str>, to: &str) -> TcpStream {
        let dialed = tokio::task::block_in_place(|| self.lab.dial(from, to));
        of_the_runtime(dialed.unwrap_or_else(|error| panic!("{to}: {error}")))
    }

    pub(crate) async fn http1(&self, to: &str) -> http1::SendRequest<Full<Bytes>> {
        http1_over(self.dial(to)).await
    }

    pub(crate) async fn http2<B>(&self, to: &str) -> http2::SendRequest<B>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        http2_over(self.dial(to)).await
    }

    /// One GET on a connection of its own: status, headers and body.
    pub(crate) async fn get(&self, to: &str, path: &str) -> Response<String> {
        let mut sender = self.http1(to).await;
        let request = Request::get(path).header("host", "server");
        let request = request.body(Full::default()).expect("a request");
        whole(sender.send_request(request).await.expect("an answer")).await
    }

    /// What the app has written down under this name.
    pub(crate) async fn ledger(&self, name: &str) -> Option<u64> {
        let stream = self.dial_from(Some("server"), "127.0.0.1:8080");
        let mut sender = http1_over(stream).await;
        let request = Request::get("/ledger").header("host", "app");
        let request = request.body(Full::default()).expect("a request");
        let ledger = whole(sender.send_request(request).await.expect("an answer")).await;
        let line = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        ledger.body().lines().find_map(line)
    }

    pub(crate) fn metrics(&self, pod: &str) -> Metrics {
        let address = self.lab.pod(pod).expect("there is such a pod").address;
        let admin = SocketAddr::new(address, ADMIN_PORT).to_string();
        tokio::task::block_in_place(|| Metrics::scrape(self.lab.client(), &admin))
            .expect("a sidecar shows its metrics")
    }

    /// Resident memory of a pod's sidecar, in KiB.
    pub(crate) fn sidecar_rss_kib(&self, pod: &str) -> u64 {
        let pod = self.lab.pod(pod).expect("there is such a pod");
        let mut containers = pod.containers.iter();
        let sidecar = containers.find(|container| container.name == PROXY);
        let pid = sidecar.and_then(|sidecar| sidecar.state.pid);
        let status = format!("/proc/{}/status", pid.expect("the sidecar runs"));
        let output =
            tokio::task::block_in_place(|| self.lab.exec(None, &["grep", "VmRSS", &status]))
                .expect("the lab answers");
        let rss = output.stdout.split_whitespace().nth(1);
        rss.and_then(|rss| rss.parse().ok())
            .unwrap_or_else(|| panic!("no VmRSS in {output:?}"))
    }

    /// The journal, as `weir events` shows it.
    pub(crate) fn events(&self, kind: &str) -> String {
        let socket = format!("unix:{}", self.lab.operator_socket().display());
        let output = std::process::Command::new(binary("weir"))
            .args(["--control-plane", &socket, "events", "--kind", kind])
            .args(["--output", "json"])
            .output()
            .expect("weir runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) async fn http1_over(stream: TcpStream) -> http1::SendRequest<Full<Bytes>> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/1.1 needs no handshake");
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) async fn http2_over<B>(stream: TcpStream) -> http2::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("the preface can be sent");
    tokio::spawn(connection);
    sender
}

/// The answer with its whole body, as text.
pub(crate) async fn whole(response: Response<Incoming>) -> Response<String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the whole body").to_bytes();
    Response::from_parts(head, String::from_utf8_lossy(&body).into_owned())
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(PATIENCE, what, &mut holds).await;
}

/// How long it took until something held.
pub(crate) async fn within(
    patience: Duration,
    what: &str,
    mut holds: impl FnMut() -> bool,
) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    begun.elapsed()
}

pub(crate) fn of_the_runtime(stream: std::net::TcpStream) -> TcpStream {
    stream
        .set_nonblocking(true)
        .expect("a socket can be told so");
    let stream = TcpStream::from_std(stream).expect("the runtime takes a socket");
    stream.set_nodelay(true).expect("a socket can be told so");
    stream
}
