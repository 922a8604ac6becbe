//! The words between the lab and whoever steers it: one JSON object a line, over a unix socket.
//! File descriptors travel beside a line, so a client gets real sockets and gives real streams.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container::{Role, State};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum Request {
    /// What runs.
    Ps,
    /// Waits until every pod is ready.
    Wait {
        seconds: u64,
    },
    /// SIGKILL to the app containers, or the whole pod at once; supervision starts them anew.
    Kill {
        target: String,
        pod: bool,
    },
    /// SIGSTOP to app and sidecar, or to the app alone.
    Stop {
        target: String,
        app_only: bool,
    },
    /// SIGCONT.
    Cont {
        target: String,
    },
    /// Ends pods gracefully, one after the other, each replaced before the next goes.
    Restart {
        target: String,
    },
    Scale {
        workload: String,
        replicas: u32,
    },
    NetDrop {
        left: String,
        right: String,
    },
    NetLoss {
        percent: u8,
        target: String,
    },
    /// Takes all faults of the network back.
    NetHeal,
    /// Runs a command in a pod, or on the node. Three descriptors come with it: stdin, stdout,
    /// stderr. Hanging up ends the command.
    Exec {
        target: Option<String>,
        container: Option<String>,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        folder: Option<PathBuf>,
    },
    /// Opens a TCP connection from the node or a pod. The descriptor comes with the answer.
    Dial {
        from: Option<String>,
        to: String,
    },
    /// Ends everything gracefully.
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Ok(Value),
    Error(String),
}

/// What the lab tells the process that started it, unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bulletin {
    News(String),
    /// The control socket answers.
    Serving,
    Failed(String),
    Ended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub id: String,
    pub mesh: bool,
    pub folder: PathBuf,
    pub pods: Vec<PodStatus>,
    pub services: Vec<ServiceStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodStatus {
    pub namespace: String,
    pub name: String,
    pub workload: String,
    pub ordinal: u32,
    pub uid: String,
    pub address: IpAddr,
    pub addresses: Vec<IpAddr>,
    pub phase: String,
    pub ready: bool,
    pub terminating: bool,
    pub meshed: bool,
    pub message: String,
    pub containers: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub name: String,
    pub role: Role,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub namespace: String,
    pub name: String,
    /// Virtual address, and the endpoints behind it that take new connections.
    pub ports: Vec<(SocketAddr, Vec<SocketAddr>)>,
}
