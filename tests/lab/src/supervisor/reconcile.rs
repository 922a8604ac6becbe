//! Keeps virtual addresses, faults and the cluster directory in step with the pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{SYSTEM_NAMESPACE, Supervisor, locked, name};
use crate::cluster::{self, Directory, Family, PodView};
use crate::error::Result;
use crate::network;
use crate::pod::Pod;
use crate::ruleset::{self, Fault};
use crate::target::Target;

/// A fault as it was asked for; the addresses behind the names change as pods come and go.
#[derive(Clone, Debug)]
pub enum FaultBetween {
    Drop(Target, Target),
    Loss(u8, Target),
}

/// What the kernel and the directory were told last.
#[derive(Debug)]
pub(super) struct Applied {
    services: String,
    faults: String,
    directory: Directory,
    ready: BTreeMap<String, bool>,
}

impl Applied {
    pub(super) fn nothing(directory: Directory) -> Self {
        Self {
            services: String::new(),
            faults: String::new(),
            directory,
            ready: BTreeMap::new(),
        }
    }
}

impl Supervisor {
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
}

async fn load(rules: String) -> Result<()> {
    let load = tokio::task::spawn_blocking(move || network::load(&rules));
    load.await.expect("loading rules does not panic")
}
