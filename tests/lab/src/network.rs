//! The lab's network: acts on what [`crate::address`] and [`crate::ruleset`] decide.
//!
//! ```text
//!   pod namespace                     the lab's own namespace (the "node")
//!   eth0 10.244.0.5/32 ───veth─────── pod5      route 10.244.0.5 dev pod5
//!   default via 169.254.1.1           lo: 10.244.0.1 (node), 169.254.1.1 (gateway)
//!                                     nft: Services, who may talk to whom, faults
//! ```
//!
//! Host routes instead of a bridge: no hairpin mode, no br_netfilter, and every packet between pods
//! passes the node's forward hook. Namespaces have no names: a pod's lives as long as a file
//! descriptor or a process holds it, so there is nothing to clean up.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::address::{GATEWAY, GATEWAY_V6, NODE, NODE_V6, PodNumber, VIRTUAL_NET, VIRTUAL_NET_V6};
use crate::error::{Doing, Error, Result};

/// A pod's network namespace and the addresses in it.
#[derive(Debug)]
pub struct PodNetwork {
    pub number: PodNumber,
    door: Arc<Door>,
}

/// The way into a pod's network. It does not keep the pod's link alive, so it may be handed to
/// threads that are in there when they drop it.
#[derive(Debug)]
pub struct Door(OwnedFd);

impl Door {
    /// Moves the calling thread into the pod's network. Only for threads made for the purpose:
    /// whatever a thread does from now on, spawning included, it does in there.
    pub fn enter(&self) -> std::io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// For other processes of the lab, as long as the pod is there.
    pub fn path(&self) -> PathBuf {
        let (own, number) = (std::process::id(), self.0.as_raw_fd());
        format!("/proc/{own}/fd/{number}").into()
    }
}

/// Makes the lab's namespace a node: addresses, forwarding, routes for virtual addresses.
pub fn prepare_node() -> Result<()> {
    ip_batch(&format!(
        "link set lo up\n\
         addr add {NODE}/32 dev lo\n\
         addr add {GATEWAY}/32 dev lo\n\
         route add {VIRTUAL_NET} dev lo src {NODE}\n"
    ))?;
    sysctl("ipv4/ip_forward", "1")?;
    if has_ipv6() {
        ip_batch(&format!(
            "addr add {NODE_V6}/128 dev lo nodad\n\
             route add {VIRTUAL_NET_V6} dev lo src {NODE_V6}\n"
        ))?;
        sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    load(&crate::ruleset::services(&[]))?;
    load(&crate::ruleset::faults(&[]))
}

pub fn has_ipv6() -> bool {
    fs::metadata("/proc/self/net/if_inet6").is_ok()
}

/// Loads rules in one transaction: all of them, or none and an error.
pub fn load(rules: &str) -> Result<()> {
    feed(Command::new("nft").args(["-f", "-"]), rules)
}

impl PodNetwork {
    /// Makes the namespace, and the link and routes between it and the node.
    pub fn new(number: PodNumber) -> Result<Self> {
        let namespace = in_thread(move || {
            unshare(UnshareFlags::NEWNET).doing(|| "make a network namespace".to_owned())?;
            equip(number)?;
            let own = File::open("/proc/thread-self/ns/net");
            own.doing(|| "open the pod's network namespace".to_owned())
        })?;
        let link = number.link();
        let mut node = format!(
            "link set {link} up\nroute add {}/32 dev {link} src {NODE}\n",
            number.v4()
        );
        if has_ipv6() {
            node += &format!(
                "addr add {GATEWAY_V6}/64 dev {link} nodad\nroute add {}/128 dev {link} src {NODE_V6}\n",
                number.v6()
            );
        }
        ip_batch(&node)?;
        Ok(Self {
            number,
            door: Arc::new(Door(namespace.into())),
        })
    }

    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }
}

impl Drop for PodNetwork {
    /// The kernel would do it once the last descriptor is gone; until then the address would
    /// still answer.
    fn drop(&mut self) {
        let _ = ip_batch(&format!("link del {}\n", self.number.link()));
    }
}

/// The pod's side, run in its namespace.
fn equip(number: PodNumber) -> Result<()> {
    let node = std::process::id();
    let mut pod = format!(
        "link set lo up\n\
         link add eth0 type veth peer name {link} netns {node}\n\
         addr add {v4}/32 dev eth0\n\
         link set eth0 up\n\
         route add {GATEWAY} dev eth0 scope link\n\
         route add default via {GATEWAY} dev eth0 src {v4}\n",
        link = number.link(),
        v4 = number.v4(),
    );
    if has_ipv6() {
        pod += &format!(
            "addr add {v6}/128 dev eth0 nodad\nroute add default via {GATEWAY_V6} dev eth0 src {v6}\n",
            v6 = number.v6(),
        );
    }
    ip_batch(&pod)?;
    // Containers may listen on port 80 without being root.
    sysctl("ipv4/ip_unprivileged_port_start", "0")
}

/// Writes a network sysctl of the calling thread's namespace.
fn sysctl(name: &str, value: &str) -> Result<()> {
    // Not `/proc/sys`: that is `self`'s, and `self` is the process, not this thread.
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).doing(|| format!("write {value} to {path}"))
}

fn ip_batch(commands: &str) -> Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), commands)
}

/// Runs a command on this input, and fails with its output and the input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let name = format!("{command:?}").replace('"', "");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("run {name}"))?;
    let mut stdin = child.stdin.take().expect("stdin was piped above");
    // A command that ends early says why on stderr; the broken pipe is not the news.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().doing(|| format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: name,
        output: format!(
            "{}\n{input}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    })
}

/// Runs something in a thread of its own, so that namespaces entered there end with it.
pub(crate) fn in_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(act)
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives the calling thread namespaces of its own.
pub(crate) fn unshare(flags: UnshareFlags) -> std::io::Result<()> {
    // rustix calls this unsound for one flag only, CLONE_FILES, which takes the thread's
    // descriptors away from the rest of the process. It is not passed here.
    assert!(
        !flags.contains(UnshareFlags::FILES),
        "descriptors stay shared"
    );
    #[expect(
        deprecated,
        reason = "the replacement is unsafe for the sake of CLONE_FILES"
    )]
    rustix::thread::unshare(flags)?;
    Ok(())
}
