//! What all pods of a run share: the settings, the manifests, the names, and who is told of changes.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::sync::{Notify, mpsc};

use crate::address::NODE;
use crate::error::{Doing, Result};
use crate::manifest::Manifests;
use crate::settings::Settings;

/// The one node's name, in `spec.nodeName`.
pub const NAME: &str = "lab";

#[derive(Debug)]
pub struct Node {
    pub settings: Settings,
    pub manifests: Manifests,
    /// Lines of every pod's hosts file: the names of all Services.
    pub hosts: String,
    /// Told when a pod's state changed in a way others may see.
    pub changed: Notify,
    pub news: mpsc::UnboundedSender<String>,
}

impl Node {
    /// Makes the directories of the run.
    pub fn lay_out(&self) -> Result<()> {
        for folder in [
            self.logs(),
            self.cluster(),
            self.tokens(),
            self.pods(),
            self.scratch(),
            self.control_plane_state(),
        ] {
            fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        }
        // Nothing listens there, so a name that is not in the hosts file fails at once.
        self.write(
            &self.resolv_conf(),
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )?;
        self.write(
            &self.nsswitch_conf(),
            "passwd: files\ngroup: files\nhosts: files dns\n",
        )
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).doing(|| format!("write {}", path.display()))
    }

    /// A line for whoever started the lab.
    pub fn say(&self, text: String) {
        // Nobody listens any more: the lab is ending.
        let _ = self.news.send(text);
    }

    pub fn logs(&self) -> PathBuf {
        self.settings.folder.join("logs")
    }

    /// The YAML the control plane sees the cluster through.
    pub fn cluster(&self) -> PathBuf {
        self.settings.folder.join("cluster")
    }

    pub fn tokens(&self) -> PathBuf {
        self.settings.folder.join("tokens")
    }

    pub fn pods(&self) -> PathBuf {
        self.settings.folder.join("pods")
    }

    pub fn scratch(&self) -> PathBuf {
        self.settings.folder.join("scratch")
    }

    pub fn control_plane_state(&self) -> PathBuf {
        self.settings.folder.join("control-plane")
    }

    pub fn trust_bundle(&self) -> PathBuf {
        self.settings.folder.join("trust-bundle.pem")
    }

    pub fn operator_socket(&self) -> PathBuf {
        self.settings.folder.join("operator.sock")
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.settings.folder.join("resolv.conf")
    }

    pub fn nsswitch_conf(&self) -> PathBuf {
        self.settings.folder.join("nsswitch.conf")
    }

    /// A hosts file: loopback, the Services, and the one who asks.
    pub fn hosts_file(&self, own: &str) -> String {
        format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n{NODE} {NAME}\n{own}\n{}",
            self.hosts
        )
    }
}

/// The names under which pods find a Service.
pub fn host_names(service: &str, namespace: &str) -> String {
    format!(
        "{service}.{namespace}.svc.cluster.local {service}.{namespace}.svc {service}.{namespace} {service}"
    )
}
