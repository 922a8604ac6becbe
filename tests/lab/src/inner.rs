//! The process that is the lab: pid 1 of its own pid namespace, in mount and network namespaces
//! nobody else has. When it ends, however it ends, the kernel takes everything down with it.
//!
//! Its standard input is the lifeline to the process that started it: settings come in on it,
//! news goes out, and its end is the end of the lab.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc};

use crate::address::Addresses;
use crate::control::{Bulletin, Request};
use crate::error::{Doing, Error, Result};
use crate::manifest::{Manifests, Service};
use crate::mount::{Bind, Tree};
use crate::network;
use crate::node::{Node, host_names};
use crate::publish;
use crate::server::{Server, socket_in};
use crate::settings::Settings;
use crate::supervisor::{Supervisor, control_plane};
use crate::wire::{self, Inbox};

/// The first argument that makes a program the lab itself instead of what it usually is.
pub const INNER: &str = "__lab";

/// At removing a directory in which somebody may still write.
const ATTEMPTS: u32 = 20;

/// To be called first in the `main` of every program that starts labs: the program is its own
/// supervisor, so that there is no second binary to find.
pub fn run_if_asked() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == INNER).then(run)
}

fn run() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> Result<()> {
    // The end of the lifeline kills every process in sight, and that must not be the machine's.
    if std::process::id() != 1 {
        let what = format!("{INNER} is for weir-lab's own use, in namespaces of its own");
        return Err(Error::Request(what));
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let lifeline = UnixStream::from(stdin.doing(|| "open the lifeline".to_owned())?);
    let mut inbox = Inbox::default();
    let first = inbox.receive::<Settings>(&lifeline);
    let first = first.doing(|| "read the settings".to_owned())?;
    let (settings, listeners) = first.ok_or_else(|| Error::Lab("no settings came".to_owned()))?;
    let folder = settings.folder.clone();
    let keep = settings.keep;
    let result = prepare(settings).and_then(|lab| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .doing(|| "start the runtime".to_owned())?;
        runtime.block_on(supervise(lab, &lifeline, inbox, listeners))
    });
    let last = match &result {
        Ok(()) => Bulletin::Ended,
        Err(error) => Bulletin::Failed(error.to_string()),
    };
    if !keep {
        let _ = fs::remove_dir_all(&folder);
    }
    // Whoever listened may be gone; then this was the reason for the end.
    let _ = wire::send(&lifeline, &last, &[]);
    result
}

struct Lab {
    node: Arc<Node>,
    services: Vec<(Service, Vec<std::net::IpAddr>)>,
    addresses: Addresses,
    news: mpsc::UnboundedReceiver<String>,
}

/// Everything that must happen before there are threads: mounts, network, names.
fn prepare(settings: Settings) -> Result<Lab> {
    let mut manifests = Manifests::read(&settings.manifests)?;
    let (news_in, news) = mpsc::unbounded_channel();
    let mut node = Node {
        settings,
        manifests: Manifests::default(),
        hosts: String::new(),
        changed: Notify::new(),
        news: news_in,
    };
    if node.settings.mesh {
        let (workload, service) = control_plane(&node, &manifests);
        manifests.workloads.insert(0, workload);
        manifests.services.insert(0, service);
    }
    check_replicas(&node.settings, &manifests)?;
    node.manifests = manifests;
    let mut addresses = Addresses::default();
    let services = with_addresses(&node.manifests.services, &mut addresses);
    node.hosts = hosts(&services);
    node.lay_out()?;
    if !node.manifests.ignored.is_empty() {
        node.say(format!(
            "not for a lab: {}",
            node.manifests.ignored.join(", ")
        ));
    }
    mount(&node).doing(|| "prepare the mounts".to_owned())?;
    network::prepare_node()?;
    Ok(Lab {
        node: Arc::new(node),
        services,
        addresses,
        news,
    })
}

fn check_replicas(settings: &Settings, manifests: &Manifests) -> Result<()> {
    let named = settings.replicas.keys().chain(settings.env.keys());
    for name in named {
        if !manifests.workloads.iter().any(|one| one.name == *name) {
            return Err(Error::Request(format!("no workload is called {name}")));
        }
    }
    Ok(())
}

fn with_addresses(
    services: &[Service],
    addresses: &mut Addresses,
) -> Vec<(Service, Vec<std::net::IpAddr>)> {
    let services = services.iter().map(|service| {
        let headless = service.spec.cluster_ip.as_deref() == Some("None");
        let external = service.spec.kind.as_deref() == Some("ExternalName");
        let given = if headless || external {
            Vec::new()
        } else {
            let wants_v6 = service
                .spec
                .ip_families
                .iter()
                .any(|family| family == "IPv6");
            addresses.service(wants_v6 && network::has_ipv6())
        };
        (service.clone(), given)
    });
    services.collect()
}

fn hosts(services: &[(Service, Vec<std::net::IpAddr>)]) -> String {
    let mut lines = String::new();
    for (service, addresses) in services {
        for address in addresses {
            let names = host_names(&service.name, &service.namespace);
            lines.push_str(&format!("{address} {names}\n"));
        }
    }
    lines
}

/// The node's own names, and a way for users other than root to what they are to run.
fn mount(node: &Node) -> std::io::Result<()> {
    let mut tree = Tree::new(&node.scratch())?;
    let hosts = node.settings.folder.join("hosts");
    fs::write(&hosts, node.hosts_file(""))?;
    for (source, target) in [
        (hosts, "/etc/hosts"),
        (node.resolv_conf(), "/etc/resolv.conf"),
        (node.nsswitch_conf(), "/etc/nsswitch.conf"),
    ] {
        tree.bind(&Bind {
            source,
            target: target.into(),
            read_only: true,
        })?;
    }
    if !node.settings.rootless {
        for directory in closed_directories(&node.settings) {
            tree.open(&directory)?;
        }
    }
    Ok(())
}

/// Directories on the way to programs that only root may pass, such as /root when the
/// checkout or a toolchain is in there. They are opened in the lab's own mounts only.
fn closed_directories(settings: &Settings) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut wanted: Vec<PathBuf> = std::env::split_paths(&path).collect();
    wanted.extend(settings.images.iter().map(|mapping| mapping.folder.clone()));
    wanted.push(settings.bin_dir.clone());
    let mut closed: Vec<PathBuf> = Vec::new();
    for wanted in wanted.iter().filter_map(|path| fs::canonicalize(path).ok()) {
        for ancestor in wanted.ancestors() {
            if is_closed(ancestor) && !closed.iter().any(|known| known == ancestor) {
                closed.push(ancestor.to_path_buf());
            }
        }
    }
    // The outer ones first: a cover shows what was below it before.
    closed.sort();
    closed
}

fn is_closed(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.permissions().mode() & 0o001 == 0)
}

async fn supervise(
    lab: Lab,
    lifeline: &UnixStream,
    inbox: Inbox,
    listeners: Vec<OwnedFd>,
) -> Result<()> {
    let supervisor = Arc::new(Supervisor::new(
        lab.node.clone(),
        lab.services,
        lab.addresses,
    ));
    let down = Arc::new(Notify::new());
    let socket = socket_in(&lab.node.settings.folder);
    let listener =
        UnixListener::bind(&socket).doing(|| format!("listen on {}", socket.display()))?;
    let server = Arc::new(Server {
        supervisor: supervisor.clone(),
        down: down.clone(),
    });
    tokio::spawn(server.serve(listener));
    for (publish, listener) in lab.node.settings.publish.iter().zip(listeners) {
        let (_, addresses) = supervisor.service_named(&publish.service)?;
        let address = addresses.first().ok_or_else(|| {
            Error::Request(format!(
                "{} has no virtual address to publish",
                publish.service
            ))
        })?;
        let listener = std::net::TcpListener::from(listener);
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .doing(|| "take over a published port".to_owned())?;
        tokio::spawn(publish::relay(listener, (*address, publish.port).into()));
    }
    watch_lifeline(lifeline, inbox, down.clone(), lab.node.clone())?;
    tokio::spawn(tell(
        lifeline
            .try_clone()
            .doing(|| "copy the lifeline".to_owned())?,
        lab.news,
    ));
    tokio::spawn(reap_orphans());
    tokio::spawn(supervisor.clone().keep_in_step());
    if lab.node.settings.mesh {
        tokio::spawn(supervisor.clone().pass_on_trust());
    }
    tokio::spawn(announce(supervisor.clone()));
    let result = tokio::select! {
        result = supervisor.start() => match result {
            Ok(()) => {
                down.notified().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = down.notified() => Ok(()),
    };
    supervisor.shut_down().await;
    result
}

/// The end of the lifeline is the end of everything, at once; "down" on it is a graceful end.
fn watch_lifeline(
    lifeline: &UnixStream,
    mut inbox: Inbox,
    down: Arc<Notify>,
    node: Arc<Node>,
) -> Result<()> {
    wire::send(lifeline, &Bulletin::Serving, &[]).doing(|| "tell that the lab is up".to_owned())?;
    let lifeline = lifeline
        .try_clone()
        .doing(|| "copy the lifeline".to_owned())?;
    std::thread::spawn(move || {
        while let Ok(Some((Request::Down, _))) = inbox.receive::<Request>(&lifeline) {
            down.notify_one();
        }
        // All but this process; a loop, because supervision is about to start them anew.
        for _ in 0..ATTEMPTS {
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
            if node.settings.keep || !node.settings.folder.exists() {
                break;
            }
            let _ = fs::remove_dir_all(&node.settings.folder);
        }
        // As pid 1, this takes every process and namespace of the lab with it.
        std::process::exit(1);
    });
    Ok(())
}

/// Says once that everything is there, after the news of the last pod.
async fn announce(supervisor: Arc<Supervisor>) {
    while supervisor
        .until_ready(Duration::from_secs(60))
        .await
        .is_err()
    {}
    supervisor.node.say("all pods are ready".to_owned());
}

async fn tell(lifeline: UnixStream, mut news: mpsc::UnboundedReceiver<String>) {
    while let Some(text) = news.recv().await {
        eprintln!("{text}");
        // Small lines into a socket buffer; a reader that is gone ends the lab elsewhere.
        let _ = wire::send(&lifeline, &Bulletin::News(text), &[]);
    }
}

/// Pid 1 inherits the children of those who died, and must collect them. Its own children are
/// collected where they were started, at once; what is still dead at a second look is nobody's.
async fn reap_orphans() {
    let mut seen = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let dead = dead_children();
        for pid in dead.iter().filter(|pid| seen.contains(*pid)) {
            let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
        }
        seen = dead;
    }
}

fn dead_children() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let dead = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name, which may contain anything: the state and the parent.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let orphan = fields.next() == Some("Z") && fields.next() == Some("1");
        orphan.then(|| Pid::from_raw(pid)).flatten()
    });
    dead.collect()
}
