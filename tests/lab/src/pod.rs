//! One pod, played as the kubelet would: network, init containers in order, sidecars before apps,
//! probes, and an end in the right order.

mod process;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::container::{Container, Role};
use crate::environment::References;
use crate::error::{Doing, Error, Result};
use crate::log::Log;
use crate::network::{self, Door, PodNetwork};
use crate::node::Node;
use crate::spec::PodSpec;
use crate::volume::{Identity, VolumeMaker, shows_trust_bundle};

pub use process::PROXY_MARK;

#[derive(Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub workload: String,
    pub ordinal: u32,
    pub uid: String,
    pub spec: PodSpec,
    /// The patched pod, with `status.podIP`.
    pub object: Value,
    pub containers: Vec<Arc<Container>>,
    node: Arc<Node>,
    network: PodNetwork,
    /// Volume name → directory.
    volumes: Vec<(String, PathBuf)>,
    logs: Vec<(String, Log)>,
    token: String,
    /// How long the pod has left, once it is to end.
    ending: watch::Sender<Option<Duration>>,
    ended: watch::Sender<bool>,
    /// Why the pod as a whole does not get on.
    trouble: Mutex<String>,
}

/// Who a pod is, before it exists.
pub struct Plan {
    pub namespace: String,
    pub name: String,
    pub workload: String,
    pub ordinal: u32,
    pub uid: String,
    /// After the injector.
    pub object: Value,
    pub network: PodNetwork,
    pub identity: Identity,
}

impl Pod {
    pub fn new(node: Arc<Node>, plan: Plan) -> Result<Arc<Self>> {
        let mut object = plan.object;
        let number = plan.network.number;
        let mut ips = vec![json!({"ip": number.v4().to_string()})];
        if network::has_ipv6() {
            ips.push(json!({"ip": number.v6().to_string()}));
        }
        object["status"] = json!({
            "phase": "Pending",
            "hostIP": crate::address::NODE.to_string(),
            "podIP": number.v4().to_string(),
            "podIPs": ips,
        });
        let spec: PodSpec = serde_json::from_value(object["spec"].clone())
            .map_err(|error| Error::Request(format!("pod {}: {error}", plan.name)))?;
        let folder = node.pods().join(&plan.uid);
        let volumes_folder = folder.join("volumes");
        fs::create_dir_all(&volumes_folder).doing(|| format!("create {}", folder.display()))?;
        let own_line = format!("{} {}", number.v4(), plan.name);
        let hosts = folder.join("hosts");
        fs::write(&hosts, node.hosts_file(&own_line))
            .doing(|| format!("write {}", hosts.display()))?;
        let maker = VolumeMaker {
            references: References {
                pod: &object,
                namespace: &plan.namespace,
                manifests: &node.manifests,
            },
            identity: &plan.identity,
            folder: &volumes_folder,
        };
        let volumes = spec.volumes.iter();
        let volumes = volumes
            .map(|volume| Ok((volume.name.clone(), maker.make(volume)?)))
            .collect::<Result<Vec<_>>>()?;
        let containers = containers(&spec);
        let logs = containers
            .iter()
            .map(|container| {
                let name = &container.spec.name;
                let path = node.logs().join(format!("{}-{name}.log", plan.name));
                let log = Log::open(path.clone()).doing(|| format!("open {}", path.display()))?;
                Ok((name.clone(), log))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            namespace: plan.namespace,
            name: plan.name,
            workload: plan.workload,
            ordinal: plan.ordinal,
            uid: plan.uid,
            spec,
            object,
            containers,
            node,
            network: plan.network,
            volumes,
            logs,
            token: plan.identity.token,
            ending: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            trouble: Mutex::default(),
        }))
    }

    /// From the first init container to the end of the last container.
    pub async fn live(self: Arc<Self>) {
        let mut running = JoinSet::new();
        for container in &self.containers {
            match container.role {
                Role::Init => {
                    container.run(&self).await;
                    if self.ending().is_none() && !container.state().succeeded {
                        *self.trouble() = format!("init container {} failed", container.spec.name);
                        self.changed();
                        self.ends().await;
                    }
                }
                Role::Sidecar => {
                    self.spawn(&mut running, container);
                    self.until_started(container).await;
                }
                Role::App => self.spawn(&mut running, container),
            }
            if self.ending().is_some() {
                break;
            }
        }
        self.skip_the_unborn();
        while running.join_next().await.is_some() {}
        // A pod whose apps all ended by themselves still exists, until someone ends it.
        self.changed();
        self.ends().await;
        self.ended.send_replace(true);
        // Logs stay; what was mounted goes.
        let _ = fs::remove_dir_all(self.node.pods().join(&self.uid));
        self.changed();
    }

    fn spawn(self: &Arc<Self>, running: &mut JoinSet<()>, container: &Arc<Container>) {
        let (pod, container) = (self.clone(), container.clone());
        running.spawn(async move { container.run(&pod).await });
    }

    async fn until_started(&self, sidecar: &Container) {
        loop {
            if sidecar.state().started || self.ending().is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Containers that never ran because the pod ended first: nobody shall wait for them.
    fn skip_the_unborn(self: &Arc<Self>) {
        if self.ending().is_none() {
            return;
        }
        for container in self.containers.iter().filter(|one| !one.ran()) {
            container.skip();
        }
    }

    /// The moment the pod is to end: how long it has.
    pub async fn ends(&self) -> Duration {
        let mut ending = self.ending.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        let grace = ending.wait_for(Option::is_some).await;
        grace.map_or(Duration::ZERO, |grace| grace.unwrap_or_default())
    }

    pub fn ending(&self) -> Option<Duration> {
        *self.ending.borrow()
    }

    /// Begins the end; zero means at once.
    pub fn end(&self, grace: Duration) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            if first {
                *ending = Some(grace);
            }
            first
        });
        self.changed();
    }

    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// A sidecar's turn to be stopped comes when everything that started after it is gone.
    pub async fn turn_of(&self, container: &Container) {
        if container.role != Role::Sidecar {
            return;
        }
        let later = self
            .containers
            .iter()
            .skip_while(|other| !std::ptr::eq(other.as_ref(), container))
            .skip(1)
            .filter(|other| other.role != Role::Init);
        for other in later {
            other.gone().await;
        }
    }

    pub fn address(&self) -> IpAddr {
        IpAddr::V4(self.network.number.v4())
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all = vec![self.address()];
        if network::has_ipv6() {
            all.push(IpAddr::V6(self.network.number.v6()));
        }
        all
    }

    pub fn door(&self) -> Arc<Door> {
        self.network.door()
    }

    /// Whether traffic should come here: all containers and sidecars are ready.
    pub fn is_ready(&self) -> bool {
        let mut lasting = self.containers.iter().filter(|one| one.role != Role::Init);
        lasting.all(|container| container.state().ready)
    }

    /// Shows the pod the mesh's certificates as they are now.
    pub fn renew_trust(&self, trust_bundle: &str) -> Result<()> {
        let folder = self.node.pods().join(&self.uid).join("volumes");
        let maker = VolumeMaker {
            references: References {
                pod: &self.object,
                namespace: &self.namespace,
                manifests: &self.node.manifests,
            },
            identity: &Identity {
                token: self.token.clone(),
                trust_bundle: trust_bundle.to_owned(),
            },
            folder: &folder,
        };
        for volume in self
            .spec
            .volumes
            .iter()
            .filter(|one| shows_trust_bundle(one))
        {
            maker.make(volume)?;
        }
        Ok(())
    }

    fn apps(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.iter().filter(|one| one.role == Role::App)
    }

    pub fn are_apps_done(&self) -> bool {
        self.apps().all(|app| app.state().done)
    }

    /// Resolves when no app will run any more.
    pub async fn apps_gone(&self) {
        for app in self.apps() {
            app.gone().await;
        }
    }

    pub fn phase(&self) -> &'static str {
        let mut lasting = self.containers.iter().filter(|one| one.role != Role::Init);
        if self.are_apps_done() && lasting.all(|container| container.state().pid.is_none()) {
            let well = self.apps().all(|app| app.state().succeeded);
            return if well { "Succeeded" } else { "Failed" };
        }
        if self.apps().all(|app| app.ran()) {
            return "Running";
        }
        "Pending"
    }

    /// In a few words, why the pod is not ready.
    pub fn why_not_ready(&self) -> String {
        let trouble = self.trouble().clone();
        if !trouble.is_empty() {
            return trouble;
        }
        let blocking = self.containers.iter().find(|container| {
            let state = container.state();
            match container.role {
                Role::Init => !state.succeeded,
                _ => !state.ready,
            }
        });
        blocking.map_or_else(String::new, |container| {
            let state = container.state();
            let message = if state.message.is_empty() {
                "starting"
            } else {
                &state.message
            };
            format!("{}: {message}", container.spec.name)
        })
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empty: there is none any more.
    pub fn set_trouble(&self, why: &str) {
        let mut trouble = self.trouble();
        if *trouble != why {
            why.clone_into(&mut trouble);
            drop(trouble);
            self.changed();
        }
    }

    pub fn changed(&self) {
        self.node.changed.notify_one();
    }

    pub fn say(&self, text: &str) {
        self.node.say(format!("{}: {text}", self.name));
    }

    pub fn log_of(&self, container: &Container, text: &str) {
        if let Some(log) = self.log(&container.spec.name) {
            log.note(text);
        }
    }

    fn log(&self, container: &str) -> Option<&Log> {
        let found = self.logs.iter().find(|(name, _)| name == container);
        found.map(|(_, log)| log)
    }
}

fn containers(spec: &PodSpec) -> Vec<Arc<Container>> {
    let inits = spec.init_containers.iter().map(|init| {
        let role = if init.is_native_sidecar() {
            Role::Sidecar
        } else {
            Role::Init
        };
        Container::new(init.clone(), role)
    });
    let apps = spec.containers.iter();
    inits
        .chain(apps.map(|app| Container::new(app.clone(), Role::App)))
        .collect()
}
