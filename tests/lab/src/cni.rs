//! A container runtime with a chain of CNI plugins: the lab's own network first, then whatever has been chained to it.
//!
//! ```text
//!   folder/cni/net.d/10-lab.conflist ◀── weir-cni install (a process of the lab, as the DaemonSet is on a node)
//!        │ lab: the pod's network (network.rs)
//!        └ weir-cni: CNI_COMMAND=ADD, the pod's namespace ──▶ api.rs: whose pod is it?
//! ```
//!
//! Everything in it is what a node has: the plugin is found by its name in the folder of plugins, is told of the pod by
//! `CNI_ARGS`, and of the network on stdin. A pod whose plugin fails waits, and is tried again.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::api::Api;
use crate::error::{Doing, Error, Result};
use crate::node::Node;
use crate::pod::{PROXY_MARK, Pod};

const CHAIN: &str = "10-lab.conflist";
const LOOK_EVERY: Duration = Duration::from_millis(20);
const INSTALL_MAX: Duration = Duration::from_secs(30);
/// A runtime gives up a plugin after some minutes; the plugin itself long before.
const PLUGIN_MAX: Duration = Duration::from_secs(60);
/// The kubelet takes longer, and doubles it.
const TRY_AGAIN: Duration = Duration::from_millis(250);
const INJECT_STATUS: &str = "/metadata/annotations/weir.dev~1inject-status";

#[derive(Debug)]
pub struct Runtime {
    programs: PathBuf,
    networks: PathBuf,
    api: Arc<Api>,
    /// Lives as long as the lab.
    _installer: Child,
}

impl Runtime {
    /// Installs the plugin, and waits for it.
    pub async fn start(node: &Node) -> Result<Self> {
        let folder = node.settings.folder.join("cni");
        let [programs, networks, account] =
            ["bin", "net.d", "account"].map(|name| folder.join(name));
        for folder in [&programs, &networks, &account] {
            fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
        }
        let api = Arc::new(Api::serve().await?);
        for (name, content) in [("token", api.token()), ("ca.crt", api.authority())] {
            let path = account.join(name);
            fs::write(&path, content).doing(|| format!("write {}", path.display()))?;
        }
        let network =
            json!({ "cniVersion": "1.1.0", "name": "lab", "plugins": [{ "type": "lab" }] });
        let chain = networks.join(CHAIN);
        fs::write(&chain, network.to_string()).doing(|| format!("write {}", chain.display()))?;
        let log = fs::File::create(node.logs().join("weir-cni.log"))
            .doing(|| "open the installer's log".to_owned())?;
        let installer = Command::new(node.settings.bin_dir.join("weir-proxy"))
            .args(["cni", "install", "--programs"])
            .arg(&programs)
            .arg("--networks")
            .arg(&networks)
            .arg("--networks-on-node")
            .arg(&networks)
            .arg("--service-account")
            .arg(&account)
            .args(["--api-server", &api.address()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .doing(|| "start weir-proxy cni install".to_owned())?;
        let runtime = Self {
            programs,
            networks,
            api,
            _installer: installer,
        };
        let until = Instant::now() + INSTALL_MAX;
        while runtime.chained()?.is_empty() {
            if Instant::now() > until {
                return Err(Error::Lab(
                    "weir-cni is not in the chain: see logs/weir-cni.log".to_owned(),
                ));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(runtime)
    }

    /// The plugins after the lab's own, each with what it is told on stdin.
    fn chained(&self) -> Result<Vec<(String, Value)>> {
        let path = self.networks.join(CHAIN);
        let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        let network: Value = serde_json::from_str(&text)
            .map_err(|error| Error::Lab(format!("{}: {error}", path.display())))?;
        let plugins = network["plugins"].as_array().into_iter().flatten().skip(1);
        let chained = plugins.map(|plugin| {
            let mut told = plugin.clone();
            told["cniVersion"] = network["cniVersion"].clone();
            told["name"] = network["name"].clone();
            (plugin["type"].as_str().unwrap_or_default().to_owned(), told)
        });
        Ok(chained.collect())
    }

    /// Makes the rest of a pod's network, for as long as it takes.
    pub async fn add(&self, pod: &Pod) {
        self.api.know(&pod.namespace, &pod.name, &pod.object);
        while pod.ending().is_none() {
            match self.call("ADD", pod).await {
                Ok(()) => return pod.set_trouble(""),
                Err(why) => pod.set_trouble(&why.to_string()),
            }
            tokio::select! {
                () = sleep(TRY_AGAIN) => {}
                _ = pod.ends() => {}
            }
        }
    }

    pub async fn delete(&self, pod: &Pod) {
        if let Err(why) = self.call("DEL", pod).await {
            pod.say(&why.to_string());
        }
        self.api.forget(&pod.namespace, &pod.name, &pod.uid);
    }

    async fn call(&self, command: &str, pod: &Pod) -> Result<()> {
        let addresses = pod.addresses();
        let ips = addresses.iter().map(|address| json!({ "address": format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }) }));
        let made = json!({ "cniVersion": "1.1.0", "interfaces": [{ "name": "eth0" }], "ips": ips.collect::<Vec<_>>() });
        for (name, mut told) in self.chained()? {
            told["prevResult"] = made.clone();
            let answer = self.run(&name, command, pod, &told).await?;
            let passed_on: Option<Value> = serde_json::from_str(&answer).ok();
            if command == "ADD" && passed_on.as_ref() != Some(&made) {
                return Err(Error::Lab(format!(
                    "{name} passed on another result: {answer}"
                )));
            }
        }
        Ok(())
    }

    async fn run(&self, name: &str, command: &str, pod: &Pod, told: &Value) -> Result<String> {
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}",
            pod.namespace,
            pod.name,
            uid = pod.uid,
        );
        let door = pod.door();
        let mut plugin = Command::new(self.programs.join(name))
            .env_clear()
            .envs([
                ("CNI_COMMAND", command.to_owned()),
                ("CNI_CONTAINERID", pod.uid.clone()),
                ("CNI_NETNS", door.path().display().to_string()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_ARGS", arguments),
                ("CNI_PATH", self.programs.display().to_string()),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .doing(|| format!("start {name}"))?;
        let mut stdin = plugin.stdin.take().expect("stdin was piped above");
        let text = told.to_string();
        let whole = async {
            // A plugin that ends early says why on stdout.
            let _ = stdin.write_all(text.as_bytes()).await;
            drop(stdin);
            plugin.wait_with_output().await
        };
        let output = timeout(PLUGIN_MAX, whole).await;
        let output = output.map_err(|_| Error::Lab(format!("{name} {command} does not end")))?;
        let output = output.doing(|| format!("run {name}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(Error::Command {
                command: format!("{name} {command}"),
                output: said,
            }),
        }
    }
}

/// Where all are one user, the sidecar's traffic is told from the app's by a mark: the pod's redirection says so, too.
pub fn mark(pod: &mut Value) {
    let Some(status) = pod.pointer_mut(INJECT_STATUS) else {
        return;
    };
    let read: Option<Value> = status
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    if let Some(mut read) = read {
        read["redirect"]["proxyMark"] = PROXY_MARK.into();
        *status = read.to_string().into();
    }
}
