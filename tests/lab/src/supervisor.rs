//! The controllers of a cluster in one place: keeps as many pods as asked for, gives them
//! identities, and keeps virtual addresses, endpoints and the cluster directory in step with them.

mod birth;
mod control_plane;
mod reconcile;
mod status;

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::address::Addresses;
use crate::cluster::Directory;
use crate::cni;
use crate::error::{Error, Result};
use crate::manifest::{Service, Workload};
use crate::network::PodNetwork;
use crate::node::Node;
use crate::pod::{Plan, Pod};
use crate::target::{Name, Target};

pub use control_plane::control_plane;
pub use reconcile::FaultBetween;

use birth::uuid;
use reconcile::Applied;

pub const SYSTEM_NAMESPACE: &str = "weir-system";

/// How often the published certificates are looked at; a cluster takes up to a minute.
const TRUST_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Supervisor {
    pub node: Arc<Node>,
    /// Services with their virtual addresses.
    services: Vec<(Service, Vec<IpAddr>)>,
    addresses: Mutex<Addresses>,
    pods: Mutex<Vec<Arc<Pod>>>,
    faults: Mutex<Vec<FaultBetween>>,
    /// In CNI mode, from before the first pod.
    runtime: OnceLock<Arc<cni::Runtime>>,
    /// Every pod of the manifests was made.
    raised: AtomicBool,
    applied: tokio::sync::Mutex<Applied>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    pub fn new(
        node: Arc<Node>,
        services: Vec<(Service, Vec<IpAddr>)>,
        addresses: Addresses,
    ) -> Self {
        let directory = Directory::new(&node.cluster());
        Self {
            node,
            services,
            addresses: Mutex::new(addresses),
            pods: Mutex::default(),
            faults: Mutex::default(),
            runtime: OnceLock::new(),
            raised: AtomicBool::new(false),
            applied: tokio::sync::Mutex::new(Applied::nothing(directory)),
        }
    }

    /// Starts the control plane, waits for it, and starts everything else.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        let (system, shop): (Vec<_>, Vec<_>) = self
            .node
            .manifests
            .workloads
            .iter()
            .partition(|workload| workload.namespace == SYSTEM_NAMESPACE);
        self.reconcile().await?;
        if self.node.settings.cni {
            let _ = self
                .runtime
                .set(Arc::new(cni::Runtime::start(&self.node).await?));
        }
        for workload in system {
            self.raise(workload).await?;
        }
        if self.node.settings.mesh {
            self.until_control_plane().await;
        }
        for workload in shop {
            self.raise(workload).await?;
        }
        self.raised.store(true, Ordering::Release);
        Ok(())
    }

    async fn until_control_plane(&self) {
        let ready = || {
            let pods = self.pods();
            let mut system = pods.iter().filter(|pod| pod.namespace == SYSTEM_NAMESPACE);
            system.all(|pod| pod.is_ready()) && self.node.trust_bundle().exists()
        };
        while !ready() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn raise(self: &Arc<Self>, workload: &Workload) -> Result<()> {
        let wanted = self.node.settings.replicas.get(&workload.name);
        for ordinal in 0..*wanted.unwrap_or(&workload.replicas) {
            self.create(workload, ordinal).await?;
        }
        Ok(())
    }

    /// Makes one pod and sets it going.
    async fn create(self: &Arc<Self>, workload: &Workload, ordinal: u32) -> Result<Arc<Pod>> {
        let number = locked(&self.addresses).pod();
        let number =
            number.ok_or_else(|| Error::Lab("the pod addresses are used up".to_owned()))?;
        let name = if workload.lone {
            workload.name.clone()
        } else {
            format!("{}-{ordinal}", workload.name)
        };
        let uid = uuid()?;
        let object = self.patched(workload, &name, &uid)?;
        let network = tokio::task::spawn_blocking(move || PodNetwork::new(number));
        let plan = Plan {
            namespace: workload.namespace.clone(),
            workload: workload.name.clone(),
            identity: self.identity(&workload.namespace, &name)?,
            network: network.await.expect("making a network does not panic")?,
            name,
            ordinal,
            uid,
            object,
        };
        let pod = Pod::new(self.node.clone(), plan)?;
        locked(&self.pods).push(pod.clone());
        // The control plane knows the pod before the pod asks for its identity.
        self.reconcile().await?;
        let without = &self.node.settings.without_plugin;
        let runtime = self
            .runtime
            .get()
            .filter(|_| !without.contains(&workload.name));
        tokio::spawn(live(pod.clone(), runtime.cloned()));
        Ok(pod)
    }

    /// Passes the mesh's certificates on to the pods whenever the control plane publishes others.
    pub async fn pass_on_trust(self: Arc<Self>) {
        let mut passed_on = None;
        loop {
            sleep(TRUST_PERIOD).await;
            let published = fs::read_to_string(self.node.trust_bundle()).ok();
            if published.is_none() || published == passed_on {
                continue;
            }
            for pod in self.pods() {
                // Pods in which this fails have ended meanwhile.
                let _ = pod.renew_trust(published.as_deref().unwrap_or_default());
            }
            passed_on = published;
        }
    }

    /// Those that have not ended yet.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let mut pods = locked(&self.pods).clone();
        pods.retain(|pod| !pod.has_ended());
        pods
    }

    /// The pods a name stands for; an error when there is none.
    pub fn named(&self, text: &str) -> Result<Vec<Arc<Pod>>> {
        let target = Target::parse(text).map_err(Error::Request)?;
        let mut pods = self.pods();
        pods.retain(|pod| target.matches(name(pod)));
        if pods.is_empty() {
            return Err(Error::Request(format!("no pod is called {text}")));
        }
        Ok(pods)
    }

    pub fn service_named(&self, text: &str) -> Result<&(Service, Vec<IpAddr>)> {
        let target = Target::parse(text).map_err(Error::Request)?;
        let found = self.services.iter();
        let mut found = found.filter(|(one, _)| target.matches_workload(&one.namespace, &one.name));
        found
            .next()
            .ok_or_else(|| Error::Request(format!("no Service is called {text}")))
    }

    fn workload_of(&self, pod: &Pod) -> &Workload {
        let mut all = self.node.manifests.workloads.iter();
        all.find(|one| one.name == pod.workload && one.namespace == pod.namespace)
            .expect("every pod was made from a workload")
    }

    /// Ends a pod and puts a new one in its place.
    pub async fn replace(self: &Arc<Self>, pod: &Arc<Pod>, grace: Duration) -> Result<Arc<Pod>> {
        pod.end(grace);
        pod.ended().await;
        self.create(self.workload_of(pod), pod.ordinal).await
    }

    /// Brings a workload to this many replicas, ending those with the highest numbers.
    pub async fn scale(self: &Arc<Self>, text: &str, replicas: u32) -> Result<()> {
        let target = Target::parse(text).map_err(Error::Request)?;
        let mut workloads = self.node.manifests.workloads.iter();
        let workload = workloads
            .find(|one| target.matches_workload(&one.namespace, &one.name) && !one.lone)
            .ok_or_else(|| Error::Request(format!("no Deployment is called {text}")))?;
        let mut pods = self.pods();
        pods.retain(|pod| pod.workload == workload.name && pod.namespace == workload.namespace);
        let surplus: Vec<_> = pods.iter().filter(|pod| pod.ordinal >= replicas).collect();
        for pod in &surplus {
            pod.end(Duration::from_secs(pod.spec.grace_seconds()));
        }
        for ordinal in 0..replicas {
            if !pods
                .iter()
                .any(|pod| pod.ordinal == ordinal && pod.ending().is_none())
            {
                self.create(workload, ordinal).await?;
            }
        }
        for pod in surplus {
            pod.ended().await;
        }
        // Who scaled to zero may count on a refusal now.
        self.reconcile().await
    }

    /// Waits until every pod is ready, or says which are not.
    pub async fn until_ready(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            // First this, then the look at the pods: afterwards there could be one more.
            let complete = self.raised.load(Ordering::Acquire);
            let mut waiting = self.pods();
            waiting.retain(|pod| !pod.is_ready() && pod.phase() != "Succeeded");
            if waiting.is_empty() && complete {
                return self.reconcile().await;
            }
            if Instant::now() >= deadline {
                let reasons = waiting
                    .iter()
                    .map(|pod| format!("{} ({})", pod.name, pod.why_not_ready()));
                let reasons: Vec<String> = reasons.collect();
                return Err(Error::Lab(format!(
                    "not ready after {patience:?}: {}",
                    reasons.join(", ")
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends every pod gracefully, the control plane last.
    pub async fn shut_down(&self) {
        let (system, shop): (Vec<_>, Vec<_>) = self
            .pods()
            .into_iter()
            .partition(|pod| pod.namespace == SYSTEM_NAMESPACE);
        for group in [shop, system] {
            for pod in &group {
                pod.end(Duration::from_secs(pod.spec.grace_seconds()));
            }
            for pod in group {
                pod.ended().await;
            }
        }
    }
}

/// As the kubelet has it: the network is whole before anything runs in the pod.
async fn live(pod: Arc<Pod>, runtime: Option<Arc<cni::Runtime>>) {
    let Some(runtime) = runtime else {
        return pod.live().await;
    };
    runtime.add(&pod).await;
    pod.clone().live().await;
    runtime.delete(&pod).await;
}

fn name(pod: &Pod) -> Name<'_> {
    Name {
        namespace: &pod.namespace,
        workload: &pod.workload,
        ordinal: pod.ordinal,
        pod: &pod.name,
    }
}
