//! A real kube-apiserver with etcd, for as long as a test runs. `KUBE_APISERVER` and `ETCD` say where they are;
//! [the README](../kubernetes/README.md) tells how to get them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::KeyPair;
use secrecy::SecretString;

use crate::world::PATIENCE;

/// An API server that starts on a busy machine, with everything it makes for itself.
const START_PATIENCE: Duration = Duration::from_secs(120);
const TOKEN: &str = "a-token-of-this-test-only";

pub struct Real {
    url: String,
    folder: tempfile::TempDir,
    /// Last first.
    processes: Vec<Child>,
}

impl Real {
    pub async fn start() -> Self {
        let program = |name: &str| {
            let path = std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
            PathBuf::from(path)
        };
        let folder = tempfile::tempdir().expect("a folder");
        let (client, peer, secure) = (free_port(), free_port(), free_port());
        let mut real = Self {
            url: format!("https://127.0.0.1:{secure}"),
            folder,
            processes: Vec::new(),
        };
        let etcd = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let data = real.path("etcd");
        real.spawn(
            &program("ETCD"),
            &[
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--unsafe-no-fsync=true".to_owned(),
            ],
        );
        let pair = KeyPair::generate().expect("a key");
        let (key, public) = (real.path("key.pem"), real.path("public.pem"));
        std::fs::write(&key, pair.serialize_pem()).expect("a file");
        std::fs::write(&public, pair.public_key_pem()).expect("a file");
        let tokens = real.path("tokens.csv");
        let admin = format!("{TOKEN},admin,admin,system:masters\n");
        std::fs::write(&tokens, admin).expect("a file");
        let certificates = real.path("certificates");
        real.spawn(
            &program("KUBE_APISERVER"),
            &[
                format!("--etcd-servers={etcd}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={secure}"),
                format!("--cert-dir={}", certificates.display()),
                format!("--token-auth-file={}", tokens.display()),
                "--authorization-mode=RBAC".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", public.display()),
                format!("--service-account-signing-key-file={}", key.display()),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--allow-privileged=true".to_owned(),
            ],
        );
        real.wait_until_ready().await;
        real
    }

    pub fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.url.parse().expect("a URL"));
        config.auth_info.token = Some(SecretString::from(TOKEN.to_owned()));
        config.root_cert_file = Some(self.path("certificates/apiserver.crt"));
        config
    }

    async fn wait_until_ready(&mut self) {
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        let certificate = self.path("certificates/apiserver.crt");
        loop {
            if certificate.exists() && self.answers().await {
                return;
            }
            for process in &mut self.processes {
                if let Ok(Some(status)) = process.try_wait() {
                    panic!("it ended with {status}:\n{}", self.log());
                }
            }
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "it is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(client) = kube::Client::try_from(self.config()) else {
            return false;
        };
        let request = http::Request::get("/readyz").body(Vec::new());
        let answer = client.request_text(request.expect("a request"));
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.is_ok_and(|answer| answer.is_ok())
    }

    fn spawn(&mut self, program: &Path, arguments: &[String]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a file");
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        self.processes.insert(0, process);
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Free a moment ago: good enough for a test that fails with a clear word when somebody else was faster.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
