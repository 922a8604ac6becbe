//! The shop, running in a lab.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use boutique_load::{Arrivals, Bounds, Journeys, Plan, Rate, Reach, Target, Work};
use tokio::time::Instant;
use weir_lab::Lab;
use weir_lab::client::Client;
use weir_lab::control::Status;
use weir_lab::settings::Publish;

use crate::AnyError;
use weir_lab::metrics::Metrics;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const ADMIN_PORT: u16 = 14191;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mesh {
    On,
    Off,
}

/// Until every pod is ready and every Service has endpoints; what keeps one from it is the error.
fn ready(lab: &Lab) -> Result<Status, weir_lab::Error> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        let status = lab.status()?;
        // Pods and Services appear one after the other: the storefront is the last to depend on.
        let open = status
            .services
            .iter()
            .any(|service| service.name == "storefront");
        let served = |ports: &[(SocketAddr, Vec<SocketAddr>)]| {
            ports.iter().all(|(_, endpoints)| !endpoints.is_empty())
        };
        let waiting = status.pods.iter().find(|pod| !pod.ready);
        if open && waiting.is_none() && status.services.iter().all(|service| served(&service.ports))
        {
            return Ok(status);
        }
        if Instant::now() >= until {
            let why = waiting.map_or("a Service has no endpoints".into(), |pod| {
                format!("{} is not ready: {}", pod.name, pod.message)
            });
            return Err(weir_lab::Error::Request(why));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

pub(crate) struct Shop {
    lab: Lab,
    mesh: Mesh,
    address: SocketAddr,
    /// Workload, pod address: of every pod of the shop.
    pub(crate) pods: Vec<(String, IpAddr)>,
}

impl Shop {
    pub(crate) async fn open(
        root: &Path,
        mesh: Mesh,
        port: u16,
        rootless: bool,
    ) -> Result<Self, AnyError> {
        eprintln!(
            "  starting the shop {} …",
            if mesh == Mesh::On {
                "in the mesh"
            } else {
                "without the mesh"
            }
        );
        let publish = Publish {
            service: "storefront".into(),
            port: 8080,
            host_port: port,
        };
        let own = std::env::current_exe()?;
        let mut builder = Lab::builder()
            .manifests(root.join("demo-boutique/k8s"))
            .program(own.with_file_name("weir-lab"))
            .mesh(mesh == Mesh::On)
            .publish(publish);
        for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
            builder = builder.image(image);
        }
        if rootless {
            builder = builder.rootless(true);
        }
        let (lab, pods) = tokio::task::spawn_blocking(move || -> Result<_, weir_lab::Error> {
            let lab = builder.start()?;
            let pods = ready(&lab)?
                .pods
                .into_iter()
                .filter(|pod| pod.namespace == "boutique");
            let pods = pods.map(|pod| (pod.workload, pod.address)).collect();
            Ok((lab, pods))
        })
        .await??;
        let address = lab
            .published("storefront")
            .ok_or("the storefront is not published")?;
        Ok(Self {
            lab,
            mesh,
            address,
            pods,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// How to ask the control plane from another terminal.
    pub(crate) fn command_line(&self) -> Option<String> {
        let socket = self.lab.operator_socket();
        (self.mesh == Mesh::On).then(|| {
            format!(
                "target/debug/weir --control-plane unix:{} events --follow",
                socket.display()
            )
        })
    }

    pub(crate) fn visitors(&self, rate: f64, span: Duration) -> Result<Plan, AnyError> {
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

    /// How many endpoints of a service take new connections.
    pub(crate) fn endpoints(&self, service: &str) -> Result<usize, AnyError> {
        let services = self.lab.status()?.services;
        let found = services
            .iter()
            .find(|known| known.name == service)
            .ok_or("no such service")?;
        Ok(found
            .ports
            .iter()
            .map(|(_, endpoints)| endpoints.len())
            .max()
            .unwrap_or_default())
    }

    /// What the sidecar of each pod says of itself; nothing without the mesh.
    pub(crate) async fn metrics(&self) -> Result<Vec<(String, Metrics)>, AnyError> {
        if self.mesh == Mesh::Off {
            return Ok(Vec::new());
        }
        let mut all = Vec::with_capacity(self.pods.len());
        for (workload, ip) in &self.pods {
            let address = SocketAddr::new(*ip, ADMIN_PORT).to_string();
            let client = Client::new(self.lab.folder());
            // A frozen pod says nothing; the others still do.
            let scraped =
                tokio::task::spawn_blocking(move || Metrics::scrape(&client, &address)).await?;
            all.push((workload.clone(), scraped.unwrap_or_default()));
        }
        Ok(all)
    }

    /// What the sidecar of a workload's first pod says of itself.
    pub(crate) async fn metrics_of(&self, workload: &str) -> Result<Metrics, AnyError> {
        let pod = self.pods.iter().find(|(name, _)| name == workload);
        let (_, ip) = pod.ok_or_else(|| format!("no pod of {workload} runs"))?;
        let address = SocketAddr::new(*ip, ADMIN_PORT).to_string();
        let client = Client::new(self.lab.folder());
        Ok(tokio::task::spawn_blocking(move || Metrics::scrape(&client, &address)).await??)
    }

    pub(crate) fn close(self) -> Result<(), AnyError> {
        Ok(self.lab.down()?)
    }
}
