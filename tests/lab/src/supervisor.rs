//! The controllers of a cluster in one place: keeps as many pods as asked for, gives them
//! identities, and keeps virtual addresses, endpoints and the cluster directory in step with them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weir_control_plane::injector::{
    InjectorSettings, NamespaceContext, Outcome, PROXY_CONTAINER, inject,
};

use crate::address::Addresses;
use crate::cluster::{self, Directory, Family, PodView};
use crate::cni;
use crate::control::{ContainerStatus, PodStatus, ServiceStatus, Status};
use crate::error::{Doing, Error, Result};
use crate::manifest::{Manifests, Service, Workload};
use crate::network::{self, PodNetwork};
use crate::node::Node;
use crate::pod::{Plan, Pod};
use crate::ruleset::{self, Fault};
use crate::target::{Name, Target};
use crate::volume::Identity;

pub const SYSTEM_NAMESPACE: &str = "weir-system";

/// How often the published certificates are looked at; a cluster takes up to a minute.
const TRUST_PERIOD: Duration = Duration::from_secs(1);

/// A fault as it was asked for; the addresses behind the names change as pods come and go.
#[derive(Clone, Debug)]
pub enum FaultBetween {
    Drop(Target, Target),
    Loss(u8, Target),
}

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
    /// What the kernel and the directory were told last.
    applied: tokio::sync::Mutex<Applied>,
}

#[derive(Debug)]
struct Applied {
    services: String,
    faults: String,
    directory: Directory,
    ready: BTreeMap<String, bool>,
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
            applied: tokio::sync::Mutex::new(Applied {
                services: String::new(),
                faults: String::new(),
                directory,
                ready: BTreeMap::new(),
            }),
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

    /// The pod a template makes, after the injector.
    fn patched(&self, workload: &Workload, name: &str, uid: &str) -> Result<Value> {
        let mut pod = workload.template.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = workload.namespace.as_str().into();
        pod["metadata"]["uid"] = uid.into();
        pod["spec"]["nodeName"] = crate::node::NAME.into();
        if pod["spec"]["serviceAccountName"].is_null() {
            pod["spec"]["serviceAccountName"] = "default".into();
        }
        if !self.node.settings.mesh || workload.namespace == SYSTEM_NAMESPACE {
            return Ok(pod);
        }
        let namespace = self.node.manifests.namespaces.get(&workload.namespace);
        let namespace = namespace.cloned().unwrap_or_default();
        let context = NamespaceContext {
            name: workload.namespace.clone(),
            labels: namespace.labels,
            annotations: namespace.annotations,
        };
        let cni = self.node.settings.cni;
        let injector = InjectorSettings {
            cni,
            ..InjectorSettings::default()
        };
        match inject(&pod, &context, &injector) {
            Ok(Outcome::Injected(mut patched)) => {
                if cni && self.node.settings.rootless {
                    cni::mark(&mut patched);
                }
                Ok(patched)
            }
            Ok(Outcome::Skipped(why)) => {
                self.node.say(format!("{name}: not in the mesh: {why}"));
                Ok(pod)
            }
            Err(refusal) => Err(Error::Request(format!(
                "the injector refuses {name}: {refusal}"
            ))),
        }
    }

    /// A fresh token, left where the control plane looks for it.
    fn identity(&self, namespace: &str, pod: &str) -> Result<Identity> {
        if !self.node.settings.mesh || namespace == SYSTEM_NAMESPACE {
            return Ok(Identity::default());
        }
        let token = hex(&random::<32>()?);
        let folder = self.node.tokens().join(namespace);
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        let path = folder.join(pod);
        fs::write(&path, &token).doing(|| format!("write {}", path.display()))?;
        let bundle = self.node.trust_bundle();
        Ok(Identity {
            token,
            trust_bundle: fs::read_to_string(&bundle)
                .doing(|| format!("read {}", bundle.display()))?,
        })
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

    /// Keeps everything in step with the pods, for as long as the lab lives.
    pub async fn keep_in_step(self: Arc<Self>) {
        loop {
            self.node.changed.notified().await;
            if let Err(error) = self.reconcile().await {
                self.node.say(format!("error: {error}"));
            }
            // Changes come in bursts: several are served by one transaction.
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells kernel and directory what changed since the last time.
    pub async fn reconcile(&self) -> Result<()> {
        let mut applied = self.applied.lock().await;
        // Their links go when they are dropped, and that is after the rules stopped naming them.
        let _ended: Vec<Arc<Pod>> = {
            let mut pods = locked(&self.pods);
            pods.extract_if(.., |pod| pod.has_ended()).collect()
        };
        let views = self.views();
        let rules = ruleset::services(&self.virtuals(&views));
        if applied.services != rules {
            load(rules.clone()).await?;
            applied.services = rules;
        }
        let faults = ruleset::faults(&self.faults_now());
        if applied.faults != faults {
            load(faults.clone()).await?;
            applied.faults = faults;
        }
        self.announce(&mut applied.ready, &views);
        if self.node.settings.mesh {
            applied.directory.hold(&self.objects(&views))?;
        }
        Ok(())
    }

    fn announce(&self, known: &mut BTreeMap<String, bool>, views: &[PodView]) {
        for view in views {
            let before = known.insert(view.name.clone(), view.ready);
            if view.ready && before != Some(true) {
                self.node.say(format!("{} is ready", view.name));
            } else if !view.ready && before == Some(true) && !view.terminating {
                self.node
                    .say(format!("{} is not ready: {}", view.name, view.message));
            }
        }
        known.retain(|name, _| views.iter().any(|view| view.name == *name));
    }

    fn views(&self) -> Vec<PodView> {
        self.pods().iter().map(|pod| view(pod)).collect()
    }

    fn virtuals(&self, views: &[PodView]) -> Vec<ruleset::Virtual> {
        let services = self.services.iter();
        services
            .flat_map(|(service, addresses)| cluster::virtuals(service, addresses, views))
            .collect()
    }

    fn objects(&self, views: &[PodView]) -> Vec<(&'static str, String, String, Value)> {
        let mut all = Vec::new();
        for view in views
            .iter()
            .filter(|view| view.namespace != SYSTEM_NAMESPACE)
        {
            all.push((
                "pods",
                view.namespace.clone(),
                view.name.clone(),
                view.object(),
            ));
        }
        for (number, policy) in self.node.manifests.policies.iter().enumerate() {
            let namespace = policy["metadata"]["namespace"].as_str();
            let name = format!("{number}");
            let namespace = namespace.unwrap_or("default").to_owned();
            all.push(("policies", namespace, name, policy.clone()));
        }
        for (service, addresses) in &self.services {
            let namespace = &service.namespace;
            let object = cluster::service_object(service, addresses);
            all.push(("services", namespace.clone(), service.name.clone(), object));
            let mut families = vec![Family::V4];
            if addresses.iter().any(IpAddr::is_ipv6) {
                families.push(Family::V6);
            }
            for (name, slice) in cluster::endpoint_slices(service, views, &families) {
                all.push(("endpointslices", namespace.clone(), name, slice));
            }
        }
        all
    }

    fn faults_now(&self) -> Vec<Fault> {
        let addresses = |target: &Target| -> Vec<IpAddr> {
            let pods = self.pods();
            let hit = pods.iter().filter(|pod| target.matches(name(pod)));
            hit.flat_map(|pod| pod.addresses()).collect()
        };
        let faults = locked(&self.faults).clone();
        let faults = faults.iter().map(|fault| match fault {
            FaultBetween::Drop(left, right) => Fault::Drop(addresses(left), addresses(right)),
            FaultBetween::Loss(percent, target) => Fault::Loss(*percent, addresses(target)),
        });
        faults.collect()
    }

    pub async fn set_faults(&self, change: impl FnOnce(&mut Vec<FaultBetween>)) -> Result<()> {
        change(&mut locked(&self.faults));
        self.reconcile().await
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

    pub fn status(&self) -> Status {
        let settings = &self.node.settings;
        let views = self.views();
        let services = self
            .services
            .iter()
            .map(|(service, addresses)| ServiceStatus {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                ports: cluster::virtuals(service, addresses, &views)
                    .into_iter()
                    .map(|one| (one.address, one.endpoints))
                    .collect(),
            });
        Status {
            id: settings.id.clone(),
            mesh: settings.mesh,
            folder: settings.folder.clone(),
            pods: self.pods().iter().map(|pod| status(pod)).collect(),
            services: services.collect(),
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

fn view(pod: &Pod) -> PodView {
    PodView {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        labels: cluster::labels(&pod.object),
        addresses: pod.addresses(),
        spec: pod.spec.clone(),
        object: pod.object.clone(),
        phase: pod.phase(),
        ready: pod.is_ready(),
        terminating: pod.ending().is_some(),
        message: pod.why_not_ready(),
    }
}

fn status(pod: &Pod) -> PodStatus {
    let containers = pod.containers.iter().map(|container| ContainerStatus {
        name: container.spec.name.clone(),
        role: container.role,
        state: container.state(),
    });
    let containers: Vec<ContainerStatus> = containers.collect();
    PodStatus {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        workload: pod.workload.clone(),
        ordinal: pod.ordinal,
        uid: pod.uid.clone(),
        address: pod.address(),
        addresses: pod.addresses(),
        phase: pod.phase().to_owned(),
        ready: pod.is_ready(),
        terminating: pod.ending().is_some(),
        meshed: containers.iter().any(|one| one.name == PROXY_CONTAINER),
        message: pod.why_not_ready(),
        containers,
    }
}

async fn load(rules: String) -> Result<()> {
    let load = tokio::task::spawn_blocking(move || network::load(&rules));
    load.await.expect("loading rules does not panic")
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .doing(|| "read /dev/urandom".to_owned())?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid() -> Result<String> {
    let all = hex(&random::<16>()?);
    let parts = [
        &all[..8],
        &all[8..12],
        &all[12..16],
        &all[16..20],
        &all[20..],
    ];
    Ok(parts.join("-"))
}

/// The control plane as a workload like any other.
pub fn control_plane(node: &Node, manifests: &Manifests) -> (Workload, Service) {
    let mut args = Vec::new();
    let mut sources = vec![node.cluster()];
    sources.extend(node.settings.policies.iter().cloned());
    sources.extend(manifests.policy_sources());
    for source in sources {
        args.extend(["--source".to_owned(), source.display().to_string()]);
    }
    for (flag, value) in [
        ("--listen", "0.0.0.0:14180".to_owned()),
        ("--state", node.control_plane_state().display().to_string()),
        ("--bootstrap-tokens", node.tokens().display().to_string()),
        (
            "--operator-socket",
            node.operator_socket().display().to_string(),
        ),
        (
            "--trust-bundle-out",
            node.trust_bundle().display().to_string(),
        ),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    let labels = json!({"app": "weir-control-plane"});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": "weir-control-plane",
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "weir-control-plane",
                "image": "weir-control-plane",
                "args": args,
                "readinessProbe": {"tcpSocket": {"port": 14180}, "periodSeconds": 2},
                // It writes into the directory of the run, which only the user of the lab may enter.
                "securityContext": {"runAsUser": 0},
            }],
        },
    });
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "weir-control-plane", "namespace": SYSTEM_NAMESPACE},
        "spec": {"selector": labels, "ports": [{"name": "grpc", "port": 14180}]},
    });
    let workload = Workload {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: "weir-control-plane".to_owned(),
        replicas: 1,
        template,
        lone: false,
    };
    let service = Service {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: "weir-control-plane".to_owned(),
        spec: serde_json::from_value(object["spec"].clone()).expect("written above"),
        object,
    };
    (workload, service)
}
