//! The boutique, running in a lab.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use boutique_load::{Arrivals, Bounds, Journeys, Plan, Rate, Reach, Target, Work};
use tokio::time::Instant;

use crate::control::Status;
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::metrics::Metrics;
use crate::settings::Publish;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
pub const ADMIN_PORT: u16 = 14191;
/// What belongs to the shop.
const NAMESPACE: &str = "boutique";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    On,
    Off,
}

/// How the shop is to be set up.
#[derive(Clone, Debug)]
pub struct Opening {
    pub mesh: Mesh,
    /// Of the page on 127.0.0.1; 0: any that is free.
    pub port: u16,
    pub rootless: bool,
    /// In place of `demo-boutique/k8s`.
    pub manifests: Vec<PathBuf>,
    /// More policies, watched in place.
    pub policies: Vec<PathBuf>,
    /// Also made reachable, besides the page.
    pub publish: Vec<Publish>,
    /// Workload → variables.
    pub env: BTreeMap<String, BTreeMap<String, String>>,
}

impl Opening {
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            port: 0,
            rootless: false,
            manifests: Vec::new(),
            policies: Vec::new(),
            publish: Vec::new(),
            env: BTreeMap::new(),
        }
    }
}

pub struct Shop {
    lab: Lab,
    mesh: Mesh,
    address: SocketAddr,
    pods: Mutex<Vec<(String, IpAddr)>>,
}

/// Until every pod is ready and every Service has endpoints; what keeps one from it is the error.
fn ready(lab: &Lab) -> Result<Status> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        let status = lab.status()?;
        let Some(why) = not_yet(&status) else {
            return Ok(status);
        };
        if Instant::now() >= until {
            return Err(Error::Request(why));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Why the shop cannot be open.
fn not_yet(status: &Status) -> Option<String> {
    // Pods and Services appear one after the other: the storefront is the last to depend on.
    if !status.services.iter().any(|one| one.name == "storefront") {
        return Some("there is no storefront".into());
    }
    if let Some(pod) = status.pods.iter().find(|pod| !pod.ready) {
        return Some(format!("{} is not ready: {}", pod.name, pod.message));
    }
    let served = |ports: &[(SocketAddr, Vec<SocketAddr>)]| {
        ports.iter().all(|(_, endpoints)| !endpoints.is_empty())
    };
    let bare = status
        .services
        .iter()
        .find(|service| !served(&service.ports));
    bare.map(|service| format!("{} has no endpoints", service.name))
}

fn pods_of(status: Status) -> Vec<(String, IpAddr)> {
    let pods = status.pods.into_iter();
    pods.filter(|pod| pod.namespace == NAMESPACE)
        .map(|pod| (pod.workload, pod.address))
        .collect()
}

impl Shop {
    pub async fn open(root: &Path, opening: Opening) -> Result<Self> {
        let mesh = opening.mesh;
        eprintln!(
            "  starting the shop {} …",
            match mesh {
                Mesh::On => "in the mesh",
                Mesh::Off => "without the mesh",
            }
        );
        let own = std::env::current_exe()
            .map_err(|error| Error::Lab(format!("this program has no path: {error}")))?;
        let mut builder = Lab::builder()
            .program(own.with_file_name("weir-lab"))
            .mesh(mesh == Mesh::On)
            .publish(Publish {
                service: "storefront".into(),
                port: 8080,
                host_port: opening.port,
            });
        if opening.manifests.is_empty() {
            builder = builder.manifests(root.join("demo-boutique/k8s"));
        }
        for manifests in opening.manifests {
            builder = builder.manifests(manifests);
        }
        for policies in opening.policies {
            builder = builder.policies(policies);
        }
        for publish in opening.publish {
            builder = builder.publish(publish);
        }
        for (workload, variables) in &opening.env {
            for (name, value) in variables {
                builder = builder.env(workload, name, value);
            }
        }
        for image in crate::image::boutique(&root.join("demo-boutique")) {
            builder = builder.image(image);
        }
        if opening.rootless {
            builder = builder.rootless(true);
        }
        let opened = tokio::task::spawn_blocking(move || -> Result<_> {
            let lab = builder.start()?;
            let pods = pods_of(ready(&lab)?);
            Ok((lab, pods))
        });
        let (lab, pods) = opened.await.expect("opening the shop does not panic")?;
        let address = lab
            .published("storefront")
            .ok_or_else(|| Error::Lab("the storefront is not published".into()))?;
        Ok(Self {
            lab,
            mesh,
            address,
            pods: Mutex::new(pods),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// How to ask the control plane from another terminal.
    pub fn command_line(&self) -> Option<String> {
        let socket = self.lab.operator_socket();
        (self.mesh == Mesh::On).then(|| {
            format!(
                "target/debug/weir --control-plane unix:{} events --follow",
                socket.display()
            )
        })
    }

    pub fn visitors(&self, rate: f64, span: Duration) -> Result<Plan, boutique_load::Refused> {
        Ok(Plan {
            target: Target::parse(&format!("http://{}", self.address), &Reach::loopback())?,
            work: Work::Http(Journeys::shop()),
            rate: Rate::constant(rate)?,
            arrivals: Arrivals::Poisson,
            bounds: Bounds::new(span)?.timeout(REQUEST_TIMEOUT)?,
            seed: 1,
            headers: Vec::new(),
        })
    }

    /// Looks again who is there, and says what is not as it should be.
    pub fn look(&self) -> Result<Option<String>> {
        let status = self.lab.status()?;
        let wrong = not_yet(&status);
        *self.pods.lock().unwrap_or_else(PoisonError::into_inner) = pods_of(status);
        Ok(wrong)
    }

    /// Workload, pod address: of every pod of the shop.
    pub fn pods(&self) -> Vec<(String, IpAddr)> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.clone()
    }

    /// What the sidecar of each pod says of itself; nothing without the mesh.
    pub async fn metrics(&self) -> Vec<(String, Metrics)> {
        self.metrics_where(|_| true).await
    }

    /// The same, of the pods of these workloads.
    pub async fn metrics_where(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Metrics)> {
        if self.mesh == Mesh::Off {
            return Vec::new();
        }
        let mut all = Vec::new();
        let pods = self.pods().into_iter();
        for (workload, ip) in pods.filter(|(workload, _)| wanted(workload)) {
            let address = SocketAddr::new(ip, ADMIN_PORT).to_string();
            let client = self.lab.client().clone();
            // A frozen pod says nothing; the others still do.
            let scraped = tokio::task::spawn_blocking(move || Metrics::scrape(&client, &address));
            let scraped = scraped.await.expect("reading metrics does not panic");
            all.push((workload, scraped.unwrap_or_default()));
        }
        all
    }

    pub fn close(self) -> Result<()> {
        self.lab.down()
    }
}
