//! The cluster as the control plane sees it: Pods, Services and EndpointSlices as YAML files in a
//! directory, each replaced in one step. What an API server would hold, for those who only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Doing, Result};
use crate::manifest::{Service, strings};
use crate::ruleset::Virtual;
use crate::spec::{PodSpec, PortRef, ServicePort};

/// A pod as others see it, at one moment.
#[derive(Clone, Debug)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    pub spec: PodSpec,
    pub object: Value,
    pub phase: &'static str,
    pub ready: bool,
    pub terminating: bool,
    pub message: String,
}

impl PodView {
    fn belongs_to(&self, service: &Service) -> bool {
        let selector = &service.spec.selector;
        // Running pods only: one that ended by itself keeps its labels but serves nobody.
        let alive = matches!(self.phase, "Pending" | "Running");
        alive
            && !selector.is_empty()
            && self.namespace == service.namespace
            && selector
                .iter()
                .all(|(key, value)| self.labels.get(key) == Some(value))
    }

    fn port(&self, port: &ServicePort) -> Option<u16> {
        match &port.target_port {
            None => Some(port.port),
            Some(PortRef::Number(number)) => Some(*number),
            Some(PortRef::Name(name)) => {
                let mut all = self
                    .spec
                    .init_containers
                    .iter()
                    .chain(&self.spec.containers);
                all.find_map(|container| container.port_named(name))
            }
        }
    }

    /// The Pod object with its status.
    pub fn object(&self) -> Value {
        let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
        let mut object = self.object.clone();
        object["status"]["phase"] = self.phase.into();
        object["status"]["conditions"] = json!([
            condition("Ready", self.ready),
            condition("ContainersReady", self.ready)
        ]);
        if !self.message.is_empty() && !self.ready {
            object["status"]["message"] = self.message.as_str().into();
        }
        if self.terminating {
            // The moment does not matter to anybody who reads this; that there is one does.
            object["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        }
        object
    }
}

/// A Service with the virtual addresses it was given; none for a headless one.
pub fn service_object(service: &Service, addresses: &[IpAddr]) -> Value {
    let mut object = service.object.clone();
    object["metadata"]["namespace"] = service.namespace.as_str().into();
    if let Some(first) = addresses.first() {
        object["spec"]["clusterIP"] = first.to_string().into();
        object["spec"]["clusterIPs"] = addresses.iter().map(IpAddr::to_string).collect();
    }
    object
}

/// One slice per address family the Service has.
pub fn endpoint_slices(
    service: &Service,
    pods: &[PodView],
    families: &[Family],
) -> Vec<(String, Value)> {
    let slices = families.iter().map(|family| {
        let name = match family {
            Family::V4 => service.name.clone(),
            Family::V6 => format!("{}-ipv6", service.name),
        };
        let slice = endpoint_slice(service, pods, *family, &name);
        (name, slice)
    });
    slices.collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, address: &IpAddr) -> bool {
        (self == Self::V4) == address.is_ipv4()
    }
}

fn endpoint_slice(service: &Service, pods: &[PodView], family: Family, name: &str) -> Value {
    let members: Vec<&PodView> = pods.iter().filter(|pod| pod.belongs_to(service)).collect();
    let endpoints: Vec<Value> = members
        .iter()
        .filter_map(|pod| {
            let address = pod.addresses.iter().find(|address| family.has(address))?;
            Some(json!({
                "addresses": [address.to_string()],
                "conditions": {
                    "ready": pod.ready && !pod.terminating,
                    "serving": pod.ready,
                    "terminating": pod.terminating,
                },
                "nodeName": crate::node::NAME,
                "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
            }))
        })
        .collect();
    let ports: Vec<Value> = service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            // Pods of one Service agree on a port's number in every lab so far; a cluster would
            // make one slice per number.
            let number = match members.first() {
                Some(pod) => pod.port(port)?,
                None => port.port,
            };
            let mut entry = json!({
                "name": port.name.clone().unwrap_or_default(),
                "port": number,
                "protocol": port.transport(),
            });
            if let Some(protocol) = &port.app_protocol {
                entry["appProtocol"] = protocol.as_str().into();
            }
            Some(entry)
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": service.namespace,
            "labels": {"kubernetes.io/service-name": service.name},
        },
        "addressType": if family == Family::V4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// The virtual addresses of a Service with the endpoints that take new connections. When all of
/// them are on their way out, those that still serve have to do, as with kube-proxy.
pub fn virtuals(service: &Service, addresses: &[IpAddr], pods: &[PodView]) -> Vec<Virtual> {
    let members: Vec<&PodView> = pods.iter().filter(|pod| pod.belongs_to(service)).collect();
    let staying = || members.iter().filter(|pod| pod.ready && !pod.terminating);
    let serving: Vec<&&PodView> = match staying().next() {
        Some(_) => staying().collect(),
        None => members.iter().filter(|pod| pod.ready).collect(),
    };
    let mut all = Vec::new();
    for port in &service.spec.ports {
        for address in addresses {
            let endpoints = serving.iter().filter_map(|pod| {
                let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
                let own = pod.addresses.iter().find(same_family)?;
                Some(SocketAddr::new(*own, pod.port(port)?))
            });
            all.push(Virtual {
                address: SocketAddr::new(*address, port.port),
                transport: if port.transport() == "UDP" {
                    "udp"
                } else {
                    "tcp"
                },
                endpoints: endpoints.collect(),
            });
        }
    }
    all
}

/// A directory of objects. Knows what it wrote, so that nothing is written twice.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    written: BTreeMap<PathBuf, String>,
}

impl Directory {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            written: BTreeMap::new(),
        }
    }

    /// Makes the directory hold exactly these objects: (kind, namespace, name, object).
    pub fn hold(&mut self, objects: &[(&str, String, String, Value)]) -> Result<()> {
        let mut kept = BTreeSet::new();
        for (kind, namespace, name, object) in objects {
            let path = self
                .root
                .join(kind)
                .join(format!("{namespace}.{name}.yaml"));
            self.write(&path, object)?;
            kept.insert(path);
        }
        let gone: Vec<PathBuf> = self
            .written
            .keys()
            .filter(|path| !kept.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
            self.written.remove(&path);
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, object: &Value) -> Result<()> {
        let yaml = serde_saphyr::to_string(object).expect("JSON is a subset of YAML");
        if self.written.get(path) == Some(&yaml) {
            return Ok(());
        }
        let folder = path.parent().expect("a file below the root");
        fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
        // Readers see the old file or the new one, never half of one.
        let fresh = path.with_extension("new");
        fs::write(&fresh, &yaml).doing(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, path).doing(|| format!("replace {}", path.display()))?;
        self.written.insert(path.to_path_buf(), yaml);
        Ok(())
    }
}

/// Labels of a pod object.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    strings(object.pointer("/metadata/labels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: &str, ready: bool, terminating: bool) -> PodView {
        PodView {
            namespace: "shop".into(),
            name: name.into(),
            labels: [("app".to_owned(), "catalog".to_owned())].into(),
            addresses: vec![address.parse().unwrap()],
            spec: serde_json::from_value(json!({"containers": [
                {"name": "catalog", "ports": [{"name": "grpc", "containerPort": 3550}]}
            ]}))
            .unwrap(),
            object: json!({"kind": "Pod", "metadata": {"name": name}}),
            phase: "Running",
            ready,
            terminating,
            message: String::new(),
        }
    }

    fn service() -> Service {
        let object = json!({"kind": "Service", "metadata": {"name": "catalog"}, "spec": {
            "selector": {"app": "catalog"},
            "ports": [{"name": "grpc-api", "port": 80, "targetPort": "grpc", "appProtocol": "grpc"}],
        }});
        Service {
            namespace: "shop".into(),
            name: "catalog".into(),
            spec: serde_json::from_value(object["spec"].clone()).unwrap(),
            object,
        }
    }

    fn endpoints(pods: &[PodView]) -> Vec<String> {
        let address = "10.96.0.10".parse().unwrap();
        let mut virtuals = virtuals(&service(), &[address], pods);
        let only = virtuals.remove(0).endpoints;
        only.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn new_connections_go_to_ready_pods_at_the_port_their_container_names() {
        let pods = [
            pod("a", "10.244.0.2", true, false),
            pod("b", "10.244.0.3", false, false),
            pod("c", "10.244.0.4", true, true),
        ];
        assert_eq!(endpoints(&pods), ["10.244.0.2:3550"]);
    }

    #[test]
    fn when_every_pod_is_ending_those_that_still_serve_have_to_do() {
        let pods = [
            pod("a", "10.244.0.2", true, true),
            pod("b", "10.244.0.3", false, true),
        ];
        assert_eq!(endpoints(&pods), ["10.244.0.2:3550"]);
    }

    #[test]
    fn a_pod_of_another_namespace_is_no_endpoint() {
        let mut stranger = pod("a", "10.244.0.2", true, false);
        stranger.namespace = "other".into();
        assert!(endpoints(&[stranger]).is_empty());
    }

    #[test]
    fn a_slice_tells_ready_serving_and_terminating_apart() {
        let pods = [pod("c", "10.244.0.4", true, true)];
        let (name, slice) = endpoint_slices(&service(), &pods, &[Family::V4]).remove(0);
        assert_eq!(name, "catalog");
        assert_eq!(
            slice["metadata"]["labels"]["kubernetes.io/service-name"],
            "catalog"
        );
        assert_eq!(
            slice["endpoints"][0]["conditions"],
            json!({"ready": false, "serving": true, "terminating": true})
        );
        assert_eq!(
            slice["ports"][0],
            json!({"name": "grpc-api", "port": 3550, "protocol": "TCP", "appProtocol": "grpc"})
        );
    }

    #[test]
    fn the_directory_holds_what_it_was_told_last_and_rewrites_only_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path());
        let object = |name: &str, value: u32| {
            (
                "pods",
                "shop".to_owned(),
                name.to_owned(),
                json!({ "value": value }),
            )
        };
        directory.hold(&[object("a", 1), object("b", 1)]).unwrap();
        let a = folder.path().join("pods/shop.a.yaml");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let before = inode(&a);
        directory.hold(&[object("a", 1)]).unwrap();
        assert_eq!(inode(&a), before, "unchanged, so not replaced");
        assert!(!folder.path().join("pods/shop.b.yaml").exists());
        directory.hold(&[object("a", 2)]).unwrap();
        assert!(fs::read_to_string(&a).unwrap().contains("value: 2"));
    }
}
