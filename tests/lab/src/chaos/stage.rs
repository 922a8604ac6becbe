//! The shop as a scenario needs it: with its variables, its policies and its pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scenario::{Needs, Scenario, faults, folder};
use crate::error::{Doing, Error, Result};
use crate::manifest::Manifests;
use crate::settings::Publish;
use crate::shop::{Mesh, Opening, Shop};

/// Stands for the folder of this program in `chaos/pods`.
const PROGRAMS: &str = "${PROGRAMS}";

/// Clones are the same stage.
#[derive(Clone)]
pub struct Stage(Arc<Inner>);

struct Inner {
    root: PathBuf,
    shop: Shop,
    /// The shop's YAML, copied, so that policies may be edited.
    copy: tempfile::TempDir,
    chaos_ports: BTreeMap<String, u16>,
}

/// What decides whether two scenarios may have the same stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub mesh: bool,
    needs: Needs,
    publish: Vec<Publish>,
}

impl Setting {
    pub fn of(scenario: &Scenario, mesh: Mesh) -> Self {
        let mut needs = scenario.shop.clone();
        if mesh == Mesh::Off {
            // Whoever has no sidecar has no policy either.
            needs.policies.clear();
            if let Some(env) = needs.env_without.clone() {
                needs.env = env;
            }
        }
        needs.env_without = None;
        let publish = scenario.load.get.iter().filter_map(|get| {
            let (service, port) = get.service.rsplit_once(':')?;
            Some(Publish {
                service: service.to_owned(),
                port: port.parse().ok()?,
                host_port: 0,
            })
        });
        Self {
            mesh: mesh == Mesh::On,
            needs,
            publish: publish.collect(),
        }
    }
}

impl Stage {
    pub async fn open(root: &Path, setting: &Setting, rootless: bool) -> Result<Self> {
        let copy = tempfile::tempdir().doing(|| "make a directory".to_owned())?;
        copy_yaml(&root.join("demo-boutique/k8s"), copy.path())?;
        let policies = copy.path().join("policies");
        copy_yaml(&root.join("demo-boutique/k8s/policies"), &policies)?;
        for name in &setting.needs.policies {
            copy_file(
                &folder(root).join("policies").join(name),
                &policies.join(name),
            )?;
        }
        for name in &setting.needs.pods {
            add_pods(
                &folder(root).join("pods").join(name),
                &copy.path().join(name),
            )?;
        }
        let mesh = if setting.mesh { Mesh::On } else { Mesh::Off };
        let manifests = copy.path().to_path_buf();
        let chaos_ports = chaos_ports(&Manifests::read(std::slice::from_ref(&manifests))?);
        let opening = Opening {
            rootless,
            manifests: vec![manifests],
            publish: setting.publish.clone(),
            env: setting.needs.env.clone(),
            ..Opening::new(mesh)
        };
        Ok(Self(Arc::new(Inner {
            root: root.to_path_buf(),
            shop: Shop::open(root, opening).await?,
            copy,
            chaos_ports,
        })))
    }

    pub fn shop(&self) -> &Shop {
        &self.0.shop
    }

    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where a service's knobs are.
    pub fn chaos_port(&self, service: &str) -> Result<u16> {
        let port = self.0.chaos_ports.get(service).copied();
        port.ok_or_else(|| Error::Request(format!("{service} has no knobs")))
    }

    /// The pods of a workload, as the lab calls them.
    pub fn pods_named(&self, workload: &str) -> Result<Vec<String>> {
        let pods = self.shop().lab().status()?.pods.into_iter();
        let pods: Vec<String> = pods
            .filter(|pod| pod.workload == workload && !pod.terminating)
            .map(|pod| format!("{workload}/{}", pod.ordinal))
            .collect();
        match pods.is_empty() {
            true => Err(Error::Request(format!("no pod of {workload} runs"))),
            false => Ok(pods),
        }
    }

    /// Says what was there before.
    pub fn edit_policy(&self, file: &str, becomes: &str) -> Result<String> {
        let read =
            |path: &Path| fs::read_to_string(path).doing(|| format!("read {}", path.display()));
        let was = read(&self.0.copy.path().join("policies").join(file))?;
        let fresh = read(&folder(self.root()).join("policies").join(becomes))?;
        self.write_policy(file, &fresh)?;
        Ok(was)
    }

    /// As an editor or a sync job does it: the new file takes the old one's place.
    pub fn write_policy(&self, file: &str, text: &str) -> Result<()> {
        let policies = self.0.copy.path().join("policies");
        let (fresh, place) = (policies.join(format!(".{file}.new")), policies.join(file));
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &place));
        written.doing(|| format!("write {}", place.display()))
    }

    /// A copy that is written now: what it says of its duration counts from here.
    pub fn apply_fault(&self, file: &str) -> Result<()> {
        let path = faults(self.root()).join(file);
        let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        self.write_policy(file, &text)
    }

    pub fn delete_policy(&self, file: &str) -> Result<()> {
        let path = self.0.copy.path().join("policies").join(file);
        fs::remove_file(&path).doing(|| format!("delete {}", path.display()))
    }

    /// Ends the shop. Whoever else still has the stage keeps it.
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.0) {
            Some(inner) => inner.shop.close(),
            None => Ok(()),
        }
    }
}

fn copy_yaml(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).doing(|| format!("create {}", to.display()))?;
    let entries = fs::read_dir(from).doing(|| format!("list {}", from.display()))?;
    for entry in entries.flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|ending| ending == "yaml")
        {
            copy_file(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .doing(|| format!("copy {}", from.display()))
}

fn add_pods(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).doing(|| format!("read {}", from.display()))?;
    let own = std::env::current_exe().doing(|| "find this program".to_owned())?;
    let programs = own.parent().unwrap_or(Path::new(".")).display().to_string();
    fs::write(to, text.replace(PROGRAMS, &programs)).doing(|| format!("write {}", to.display()))
}

fn chaos_ports(manifests: &Manifests) -> BTreeMap<String, u16> {
    let port = |template: &serde_json::Value| {
        let containers = template["spec"]["containers"].as_array()?;
        let variables = containers.iter().filter_map(|one| one["env"].as_array());
        let mut variables = variables.flatten();
        let port = variables.find(|variable| variable["name"] == "CHAOS_PORT")?;
        port["value"].as_str()?.parse().ok()
    };
    let workloads = manifests.workloads.iter();
    workloads
        .filter_map(|one| Some((one.name.clone(), port(&one.template)?)))
        .collect()
}
