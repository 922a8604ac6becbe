//! The node's folders: the runtime's plugins, and the networks' configurations.
//!
//! ```text
//!   /opt/cni/bin/weir-cni                    the plugin: this very program
//!   /etc/cni/net.d/10-net.conflist           our entry last in its chain
//!                  10-net.conf.weir-cni      what was a single plugin before, kept to be put back
//!                  weir-cni.kubeconfig       0600
//!                  weir-cni.owner            which installer was here last
//! ```
//!
//! Every file is replaced in one step: a runtime reads the old one or the new one.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::NAME;
use super::api::Credentials;
use super::conflist::{self, Entry};

/// A network's configuration has some hundred bytes.
const NETWORK_BYTES_MAX: u64 = 1024 * 1024;
/// Behind the name of a single plugin's file, so that no runtime reads it.
const KEPT: &str = "weir-cni";

#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error("{path}: {why}")]
    Network { path: String, why: String },
    #[error("there is no network's configuration in {0} yet: the cluster's network comes first")]
    NoNetwork(String),
}

/// As whoever calls sees them.
pub(super) struct Node {
    pub(super) programs: PathBuf,
    pub(super) networks: PathBuf,
}

impl Node {
    pub(super) fn program(&self) -> PathBuf {
        self.programs.join(NAME)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.networks.join(kubeconfig_name())
    }

    fn owner(&self) -> PathBuf {
        self.networks.join(format!("{NAME}.owner"))
    }

    /// Puts the program where the runtime looks for it. Whether it had to.
    pub(super) fn place_program(&self, program: &Path) -> Result<bool, NodeError> {
        let fresh = fs::read(program).map_err(at(program))?;
        place(&self.program(), &fresh, 0o755)
    }

    pub(super) fn place_credentials(&self, credentials: &Credentials) -> Result<bool, NodeError> {
        place(
            &self.kubeconfig(),
            credentials.kubeconfig().as_bytes(),
            0o600,
        )
    }

    pub(super) fn own(&self, installer: &str) -> Result<bool, NodeError> {
        place(&self.owner(), installer.as_bytes(), 0o600)
    }

    /// Whether no other installer has come since.
    pub(super) fn is_owned_by(&self, installer: &str) -> bool {
        fs::read_to_string(self.owner()).is_ok_and(|owner| owner == installer)
    }

    pub(super) fn is_left(&self) -> bool {
        !self.owner().exists()
    }

    /// Our entry is last in the cluster's network, and in no other. The file that had to be written for that.
    pub(super) fn join_chain(&self, entry: &Entry) -> Result<Option<String>, NodeError> {
        let names = self.names()?;
        let primary = self.primary(&names)?;
        let path = self.networks.join(primary);
        let text = read(&path)?;
        let chained = conflist::chain(&text, entry).map_err(|why| network(&path, why))?;
        // A name that is only in the order is no network of this cluster.
        for other in names
            .iter()
            .filter(|name| *name != primary && is_network(name))
        {
            // Nor is it ours to mend.
            let _ = self.leave_one(other);
        }
        if chained == text {
            return Ok(None);
        }
        let list = path.with_extension("conflist");
        let is_single = conflist::is_single(&text) && list != path;
        let written = if is_single { &list } else { &path };
        replace(written, chained.as_bytes(), mode(&path)?)?;
        if is_single {
            // By its name it would come first.
            fs::rename(&path, path.with_added_extension(KEPT)).map_err(at(&path))?;
        }
        Ok(Some(written.display().to_string()))
    }

    /// The cluster's network among these.
    fn primary<'a>(&self, names: &'a [String]) -> Result<&'a str, NodeError> {
        let primary = conflist::primary(names.iter().map(String::as_str));
        primary.ok_or_else(|| NodeError::NoNetwork(self.networks.display().to_string()))
    }

    /// The cluster's network, if our entry is in it as it should be and the program is there.
    pub(super) fn joined(&self, entry: &Entry) -> Result<String, NodeError> {
        let names = self.names()?;
        let path = self.networks.join(self.primary(&names)?);
        let text = read(&path)?;
        let is_in = conflist::chain(&text, entry).map_err(|why| network(&path, why))? == text;
        if !is_in {
            return Err(network(
                &path,
                "weir-cni is not in it as it should be".to_owned(),
            ));
        }
        fs::metadata(self.program()).map_err(at(&self.program()))?;
        fs::metadata(self.kubeconfig()).map_err(at(&self.kubeconfig()))?;
        Ok(path.display().to_string())
    }

    /// Takes our entry out of every chain, and the credentials away. The program stays: a runtime may still call it for
    /// pods that began with it, and without an entry it does nothing.
    pub(super) fn leave(&self) -> Result<(), NodeError> {
        for name in self.names()?.iter().filter(|name| is_network(name)) {
            self.leave_one(name)?;
        }
        for path in [self.kubeconfig(), self.owner()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn leave_one(&self, name: &str) -> Result<(), NodeError> {
        let path = self.networks.join(name);
        let text = read(&path)?;
        let Some(without) = conflist::unchain(&text).map_err(|why| network(&path, why))? else {
            return Ok(());
        };
        let single = path.with_extension("conf");
        let kept = single.with_added_extension(KEPT);
        if name.ends_with(".conflist") && kept.exists() && !single.exists() {
            // First the one that comes first by its name, so that there is a network at every moment.
            fs::rename(&kept, &single).map_err(at(&kept))?;
            return fs::remove_file(&path).map_err(at(&path));
        }
        replace(&path, without.as_bytes(), mode(&path)?)
    }

    fn names(&self) -> Result<Vec<String>, NodeError> {
        let entries = fs::read_dir(&self.networks).map_err(at(&self.networks))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<io::Result<_>>().map_err(at(&self.networks))
    }
}

pub(super) fn kubeconfig_name() -> String {
    format!("{NAME}.kubeconfig")
}

fn is_network(name: &str) -> bool {
    conflist::primary([name]).is_some()
}

fn at(path: &Path) -> impl Fn(io::Error) -> NodeError + use<> {
    let path = path.display().to_string();
    move |error| NodeError::File {
        path: path.clone(),
        error,
    }
}

fn network(path: &Path, why: String) -> NodeError {
    NodeError::Network {
        path: path.display().to_string(),
        why,
    }
}

fn read(path: &Path) -> Result<String, NodeError> {
    let bytes = fs::metadata(path).map_err(at(path))?.len();
    if bytes > NETWORK_BYTES_MAX {
        return Err(network(
            path,
            format!("{bytes} bytes are no network's configuration"),
        ));
    }
    fs::read_to_string(path).map_err(at(path))
}

fn mode(path: &Path) -> Result<u32, NodeError> {
    Ok(fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o777)
}

/// Replaces a file that is not as it should be. Whether it was not.
fn place(path: &Path, content: &[u8], wanted: u32) -> Result<bool, NodeError> {
    let is_there = fs::read(path).is_ok_and(|there| there == content) && mode(path)? == wanted;
    if !is_there {
        replace(path, content, wanted)?;
    }
    Ok(!is_there)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), NodeError> {
    let fresh = path.with_added_extension("weir-new");
    let write = || {
        let _ = fs::remove_file(&fresh);
        let mut file = File::create_new(&fresh)?;
        // Before there is anything in it that nobody else may read.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&fresh);
        at(path)(error)
    })
}

#[cfg(test)]
mod tests;
