//! What a run is made of: sent once, from the process that starts the lab to the one that is it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::Mapping;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Names the run: its directory, and its messages.
    pub id: String,
    /// Sockets, logs, state of this run. Only its user may enter.
    pub folder: PathBuf,
    pub manifests: Vec<PathBuf>,
    /// Files and directories of weir.dev resources; the control plane watches them in place.
    pub policies: Vec<PathBuf>,
    pub mesh: bool,
    /// The node writes the pods' rules, by a CNI plugin.
    pub cni: bool,
    /// Workloads whose networks are made as if the plugin were not there yet.
    pub without_plugin: Vec<String>,
    /// One user for everything, in a user namespace.
    pub rootless: bool,
    pub images: Vec<Mapping>,
    /// Where `weir-proxy` and `weir-control-plane` are.
    pub bin_dir: PathBuf,
    /// Workload → number of replicas, in place of what the manifest says.
    pub replicas: BTreeMap<String, u32>,
    /// Workload → variables added to its app containers.
    pub env: BTreeMap<String, Vec<(String, String)>>,
    /// In the order of the sockets that come with this message.
    pub publish: Vec<Publish>,
    /// Keep the directory of the run when it ends well.
    pub keep: bool,
}

/// A port of a Service made reachable on the machine's own loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub service: String,
    pub port: u16,
    /// On 127.0.0.1; 0 lets the kernel choose.
    pub host_port: u16,
}

impl FromStr for Publish {
    type Err = String;

    /// `storefront:8080`, or `storefront:8080=18080` for another port on the machine.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not SERVICE:PORT or SERVICE:PORT=HOSTPORT");
        let (inside, host_port) = match text.split_once('=') {
            Some((inside, host)) => (inside, host.parse().map_err(|_| wrong())?),
            None => (text, 0),
        };
        let (service, port) = inside.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Self {
            service: service.to_owned(),
            port: port.parse().map_err(|_| wrong())?,
            host_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_may_get_any_port_of_the_machine() {
        let publish: Publish = "shop/storefront:8080".parse().unwrap();
        assert_eq!(
            (publish.service.as_str(), publish.port, publish.host_port),
            ("shop/storefront", 8080, 0)
        );
        let publish: Publish = "storefront:80=8081".parse().unwrap();
        assert_eq!((publish.port, publish.host_port), (80, 8081));
        assert!("storefront".parse::<Publish>().is_err());
    }
}
