//! How the pods are, for the cluster directory and for whoever asks.

use weir_control_plane::injector::PROXY_CONTAINER;

use super::Supervisor;
use crate::cluster::{self, PodView};
use crate::control::{ContainerStatus, PodStatus, ServiceStatus, Status};
use crate::pod::Pod;

impl Supervisor {
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

    pub(super) fn views(&self) -> Vec<PodView> {
        self.pods().iter().map(|pod| view(pod)).collect()
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
