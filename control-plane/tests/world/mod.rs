//! A control plane on loopback and sidecars made of nothing but a TLS client: what the tests act on.

#![allow(dead_code, unreachable_pub, unused_imports)] // each test binary uses its part of it

mod identity;
mod objects;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use weir_control_plane::control_plane::{Cluster, ControlPlane, Settings};
use weir_control_plane::journal::Event;

pub use identity::{Credentials, certify, channel, trust_bundle};
pub use objects::{pod, policy, service, slice};
pub use stream::{Stream, hello};

/// Far above what anything here takes, on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub folder: tempfile::TempDir,
    pub plane: ControlPlane,
}

pub fn settings(folder: &Path) -> Settings {
    Settings {
        cluster: Cluster::Files {
            sources: vec![folder.join("source")],
            bootstrap_tokens: folder.join("tokens"),
        },
        listen: "127.0.0.1:0".parse().expect("an address"),
        state: folder.join("state"),
        operator_socket: Some(folder.join("operator.sock")),
        trust_bundle_out: Some(folder.join("ca.crt")),
        trust_domain: "weir.local".to_owned(),
        leaf_lifetime: Duration::from_secs(3600),
        anchor_settle: Duration::from_secs(600),
        rotate_anchor: false,
        journal_facts_max: 10_000,
        stalled_after: Duration::from_secs(2),
    }
}

/// The directories of a control plane, with the boutique's smallest corner in them.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("source")).expect("a folder");
    write(
        folder.path(),
        "services.yaml",
        &(service("catalog", "10.96.0.1") + &service("currency", "10.96.0.2")),
    );
    write(folder.path(), "policy.yaml", &policy("catalog", "2s"));
    let pods = ["frontend-0", "catalog-0", "catalog-1", "cart-0"];
    for (number, name) in pods.iter().enumerate() {
        let number = number + 1;
        write(
            folder.path(),
            &format!("pod-{name}.yaml"),
            &pod(name, &format!("10.1.0.{number}")),
        );
        give_token(folder.path(), name, &token(name));
    }
    write(
        folder.path(),
        "slice-catalog.yaml",
        &slice(
            "catalog",
            &[("10.1.0.2", "catalog-0"), ("10.1.0.3", "catalog-1")],
        ),
    );
    folder
}

/// Of a pod of namespace boutique.
pub fn token(pod: &str) -> String {
    format!(
        "{:0<64}",
        pod.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

pub fn give_token(folder: &Path, pod: &str, token: &str) {
    let tokens = folder.join("tokens/boutique");
    std::fs::create_dir_all(&tokens).expect("a folder");
    std::fs::write(tokens.join(pod), token).expect("a token");
}

/// Whole, then renamed.
pub fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join("source").join(name);
    let temporary = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&temporary, text).expect("written");
    std::fs::rename(&temporary, &path).expect("renamed");
}

impl World {
    pub async fn new() -> Self {
        Self::with(folder(), |_| {}).await
    }

    pub async fn with(folder: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(folder.path());
        change(&mut settings);
        let plane = ControlPlane::start(settings).await.expect("it starts");
        Self { folder, plane }
    }

    /// Stops it and starts it again on the same directories.
    pub async fn restarted(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { folder, plane } = self;
        plane.stop().await;
        // The journal's lock goes with the last of its threads.
        let mut settings = settings(folder.path());
        change(&mut settings);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let plane = loop {
            match ControlPlane::start(settings.clone()).await {
                Ok(plane) => break plane,
                Err(error) if tokio::time::Instant::now() > deadline => {
                    panic!("it starts again: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Self { folder, plane }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    pub fn trust_bundle(&self) -> Vec<CertificateDer<'static>> {
        trust_bundle(self.folder.path())
    }

    /// A certificate for a pod of namespace boutique, by its own token.
    pub async fn certify(&self, pod: &str) -> Credentials {
        certify(self.plane.address, &self.trust_bundle(), pod)
            .await
            .expect("a certificate")
    }

    pub async fn connect(&self, pod: &str) -> Stream {
        let credentials = self.certify(pod).await;
        let mut stream = self.connect_as(&credentials, pod).await;
        let push = stream.push().await;
        assert!(
            !push.workload_json.is_empty() && !push.trust_bundle.is_empty(),
            "its own workload comes first"
        );
        stream.ack(&push).await;
        stream
    }

    pub async fn connect_as(&self, credentials: &Credentials, pod: &str) -> Stream {
        let channel = channel(self.plane.address, &self.trust_bundle(), Some(credentials))
            .await
            .expect("TLS");
        Stream::open(channel, hello("boutique", pod))
            .await
            .expect("a stream")
    }

    pub fn facts(&self, kind: &str) -> Vec<Event> {
        let events = self
            .plane
            .journal
            .read(0, 10_000)
            .expect("the journal is readable");
        events
            .into_iter()
            .filter(|event| event.kind == kind)
            .collect()
    }

    /// Waits for a fact of this kind.
    pub async fn fact(&self, kind: &str) -> Event {
        let mut synced = self.plane.journal.watch();
        let found = async {
            loop {
                synced.borrow_and_update();
                if let Some(event) = self.facts(kind).pop() {
                    return event;
                }
                synced.changed().await.expect("the journal lives");
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {kind} was recorded"))
    }
}
