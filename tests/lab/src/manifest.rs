//! Kubernetes YAML, read from files and directories: what the lab runs, and what it passes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Doing, Error, Result};
use crate::spec::ServiceSpec;

/// A namespace's labels and annotations decide whether its pods are injected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// Something that makes pods: a Deployment, a StatefulSet, or a lone Pod.
#[derive(Clone, Debug)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    /// A pod without name and namespace: `metadata` and `spec`.
    pub template: Value,
    /// A lone Pod keeps its own name; a replica is called `<workload>-<ordinal>`.
    pub lone: bool,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub spec: ServiceSpec,
    /// As the user wrote it, for the control plane.
    pub object: Value,
}

/// Namespace and name.
pub type Key = (String, String);
type Data = BTreeMap<String, String>;

#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub namespaces: BTreeMap<String, Namespace>,
    pub services: Vec<Service>,
    pub workloads: Vec<Workload>,
    pub config_maps: BTreeMap<Key, Data>,
    pub secrets: BTreeMap<Key, Data>,
    /// Files that hold weir.dev resources and nothing else. They stay where they are, so that
    /// editing them in place takes effect.
    pub policy_files: Vec<PathBuf>,
    /// weir.dev resources out of files that hold other things too: taken as they are now.
    pub policies: Vec<Value>,
    /// Kinds the lab has no use for, told once at the start.
    pub ignored: Vec<String>,
}

impl Manifests {
    /// Reads files, and every `*.yaml` and `*.yml` below directories, in the order of their names.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut manifests = Self::default();
        for path in paths {
            for file in yaml_files(path)? {
                let text =
                    fs::read_to_string(&file).doing(|| format!("read {}", file.display()))?;
                manifests.add_text(&file, &text)?;
            }
        }
        manifests.check()?;
        Ok(manifests)
    }

    fn add_text(&mut self, file: &Path, text: &str) -> Result<()> {
        let wrong = |message: String| Error::Manifest {
            file: file.to_path_buf(),
            message,
        };
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| wrong(error.to_string()))?;
        let documents = documents.into_iter().filter(|document| !document.is_null());
        let (policies, others): (Vec<_>, Vec<_>) = documents.partition(is_policy);
        if others.is_empty() && !policies.is_empty() {
            self.policy_files.push(file.to_path_buf());
        } else {
            self.policies.extend(policies);
        }
        for document in others {
            self.add(document).map_err(wrong)?;
        }
        Ok(())
    }

    fn add(&mut self, object: Value) -> Result<(), String> {
        let kind = text(&object, "/kind").ok_or("a document without `kind`")?;
        if kind == "List" {
            let items = object.pointer("/items").and_then(Value::as_array);
            for item in items.into_iter().flatten() {
                self.add(item.clone())?;
            }
            return Ok(());
        }
        let name = text(&object, "/metadata/name")
            .ok_or_else(|| format!("{kind} without `metadata.name`"))?;
        let namespace =
            text(&object, "/metadata/namespace").unwrap_or_else(|| "default".to_owned());
        let key = (namespace.clone(), name.clone());
        match kind.as_str() {
            "Namespace" => {
                let known = self.namespaces.entry(name).or_default();
                known.labels = strings(object.pointer("/metadata/labels"));
                known.annotations = strings(object.pointer("/metadata/annotations"));
            }
            "Service" => self.services.push(Service {
                spec: serde_json::from_value(object["spec"].clone())
                    .map_err(|error| format!("Service {name}: {error}"))?,
                namespace,
                name,
                object,
            }),
            "Deployment" | "StatefulSet" => self.workloads.push(Workload {
                template: object
                    .pointer("/spec/template")
                    .cloned()
                    .ok_or_else(|| format!("{kind} {name}: without `spec.template`"))?,
                replicas: replicas(&object).map_err(|why| format!("{kind} {name}: {why}"))?,
                namespace,
                name,
                lone: false,
            }),
            "Pod" => self.workloads.push(Workload {
                template: json!({"metadata": object["metadata"], "spec": object["spec"]}),
                replicas: 1,
                namespace,
                name,
                lone: true,
            }),
            "ConfigMap" => {
                self.config_maps
                    .insert(key, strings(object.pointer("/data")));
            }
            "Secret" => {
                self.secrets
                    .insert(key, strings(object.pointer("/stringData")));
            }
            "ServiceAccount" => {}
            _ => self.ignored.push(format!("{kind}/{name}")),
        }
        Ok(())
    }

    /// The policy files, a directory in their place where it holds nothing else: then a new file in
    /// it counts too.
    pub fn policy_sources(&self) -> Vec<PathBuf> {
        let mut sources = Vec::new();
        for file in &self.policy_files {
            let folder = file.parent().filter(|folder| {
                let all = yaml_files(folder).unwrap_or_default();
                !all.is_empty() && all.iter().all(|one| self.policy_files.contains(one))
            });
            let source = folder.unwrap_or(file).to_path_buf();
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }

    /// What would otherwise show up as a riddle at run time.
    fn check(&self) -> Result<()> {
        for (index, workload) in self.workloads.iter().enumerate() {
            let twin = self.workloads[..index]
                .iter()
                .any(|other| other.name == workload.name && other.namespace == workload.namespace);
            if twin {
                return Err(Error::Request(format!(
                    "two workloads are called {}/{}",
                    workload.namespace, workload.name
                )));
            }
        }
        Ok(())
    }
}

fn is_policy(object: &Value) -> bool {
    text(object, "/apiVersion").is_some_and(|api| api.starts_with("weir.dev/"))
}

/// The number of replicas a Deployment asks for; Kubernetes' default is one.
fn replicas(object: &Value) -> Result<u32, String> {
    let Some(value) = object.pointer("/spec/replicas") else {
        return Ok(1);
    };
    value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .ok_or_else(|| format!("`spec.replicas` is {value}, a whole number was expected"))
}

pub(crate) fn yaml_files(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = fs::metadata(path).doing(|| format!("read {}", path.display()))?;
    if kind.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .doing(|| format!("list {}", path.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let yaml = matches!(
            entry.extension().and_then(|e| e.to_str()),
            Some("yaml" | "yml")
        );
        if entry.is_dir() {
            files.extend(yaml_files(&entry)?);
        } else if yaml {
            files.push(entry);
        }
    }
    Ok(files)
}

fn text(object: &Value, pointer: &str) -> Option<String> {
    object.pointer(pointer)?.as_str().map(str::to_owned)
}

/// A map of strings; Kubernetes allows nothing else in labels, annotations and data.
pub(crate) fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let empty = Map::new();
    let map = value.and_then(Value::as_object).unwrap_or(&empty);
    map.iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifests> {
        let mut manifests = Manifests::default();
        manifests.add_text(Path::new("shop.yaml"), text)?;
        manifests.check()?;
        Ok(manifests)
    }

    const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.dev/inject: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: catalog, namespace: shop}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: catalog}}
    spec:
      containers: [{name: catalog, image: 'weir-boutique/catalog:dev'}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  selector: {app: catalog}
  ports: [{name: grpc-api, port: 3550, targetPort: grpc}]
---
# nothing but a comment
---
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: catalog, namespace: shop}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: catalog}
";

    #[test]
    fn a_file_with_several_documents_yields_what_the_lab_runs_and_what_it_passes_on() {
        let shop = read(SHOP).unwrap();
        assert_eq!(shop.namespaces["shop"].labels["weir.dev/inject"], "enabled");
        let catalog = &shop.workloads[0];
        assert_eq!((catalog.name.as_str(), catalog.replicas), ("catalog", 3));
        assert_eq!(catalog.template["metadata"]["labels"]["app"], "catalog");
        let service = &shop.services[0];
        assert_eq!(service.spec.ports[0].port, 3550);
        assert_eq!(
            service.spec.ports[0].target_port,
            Some(crate::spec::PortRef::Name("grpc".into()))
        );
        assert!(shop.policy_files.is_empty());
        assert_eq!(shop.policies[0]["kind"], "ResiliencePolicy");
        assert_eq!(shop.ignored, ["HorizontalPodAutoscaler/catalog"]);
    }

    #[test]
    fn a_directory_of_nothing_but_policies_is_watched_whole() {
        let folder = tempfile::tempdir().unwrap();
        let policy = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: a}\n";
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n";
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("a.yaml"), policy).unwrap();
        fs::write(policies.join("b.yaml"), policy).unwrap();
        fs::write(folder.path().join("pod.yaml"), pod).unwrap();
        fs::write(folder.path().join("lone.yaml"), policy).unwrap();
        let manifests = Manifests::read(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(
            manifests.policy_sources(),
            [folder.path().join("lone.yaml"), policies]
        );
    }

    #[test]
    fn a_mistake_names_its_file_and_object() {
        let error =
            read("kind: Deployment\nmetadata: {name: a}\nspec: {replicas: many, template: {}}")
                .unwrap_err()
                .to_string();
        assert!(
            error.contains("shop.yaml: Deployment a: `spec.replicas`"),
            "{error}"
        );
    }

    #[test]
    fn two_workloads_of_one_name_are_refused() {
        let pod = "kind: Pod\nmetadata: {name: a}\nspec: {}\n";
        let error = read(&format!("{pod}---\n{pod}")).unwrap_err().to_string();
        assert_eq!(error, "two workloads are called default/a");
    }
}
