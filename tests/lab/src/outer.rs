//! Starts a lab: a child of ours, in namespaces of its own, tied to us by a lifeline.
//!
//! ```text
//!   this process ──lifeline──▶ unshare ──▶ the lab (pid 1 in there) ──▶ pods
//! ```
//!
//! Root gets a mount, a network and a pid namespace. Anybody else gets a user namespace around
//! them. Nothing of the machine is changed: no namespace has a name, no rule and no link is in
//! the machine's own network, and when the lab's first process ends, all of it ends.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::control::{Bulletin, Request};
use crate::error::{Doing, Error, Result};
use crate::inner::INNER;
use crate::settings::{Publish, Settings};
use crate::toolbox;
use crate::wire::{self, Inbox};

/// A lab this process started. Dropped: it ends at once.
#[derive(Debug)]
pub struct Outer {
    child: Child,
    lifeline: UnixStream,
    inbox: Inbox,
    pub settings: Settings,
    /// Where the published ports are, in the order of the settings.
    pub published: Vec<SocketAddr>,
}

impl Outer {
    /// Starts the lab and waits until it answers; `program` must call
    /// [`run_if_asked`](crate::inner::run_if_asked) first.
    pub fn start(program: &Path, settings: Settings) -> Result<Self> {
        let listeners = settings
            .publish
            .iter()
            .map(listen)
            .collect::<Result<Vec<_>>>()?;
        let published = listeners.iter().map(TcpListener::local_addr);
        let published = published
            .collect::<io::Result<_>>()
            .doing(|| "read the address of a published port".to_owned())?;
        let (ours, theirs) = UnixStream::pair().doing(|| "make a lifeline".to_owned())?;
        let child = spawn(program, &settings, theirs)?;
        let mut outer = Self {
            child,
            lifeline: ours,
            inbox: Inbox::default(),
            settings,
            published,
        };
        let beside: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        // Fails when the child is gone already; why, it says below.
        let _ = wire::send(&outer.lifeline, &outer.settings, &beside);
        match outer.bulletin()? {
            Bulletin::Serving => Ok(outer),
            Bulletin::Failed(why) => Err(Error::Lab(why)),
            other => Err(Error::Lab(format!(
                "the lab said {other:?} before it was up"
            ))),
        }
    }

    /// The next thing the lab says; an error when it is gone without a word.
    pub fn bulletin(&mut self) -> Result<Bulletin> {
        let heard = self.inbox.receive::<Bulletin>(&self.lifeline);
        match heard {
            Ok(Some((bulletin, _))) => Ok(bulletin),
            Ok(None) | Err(_) => Err(Error::Lab(self.last_words())),
        }
    }

    /// Asks for a graceful end. The last bulletin tells when it is over.
    pub fn ask_down(&self) {
        // A lab that is gone is down.
        let _ = wire::send(&self.lifeline, &Request::Down, &[]);
    }

    /// For a thread that listens to the lab while this one does something else.
    pub fn lifeline(&self) -> io::Result<UnixStream> {
        self.lifeline.try_clone()
    }

    /// Waits for the end of the lab.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait().doing(|| "wait for the lab".to_owned())?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Lab(self.last_words()))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(log_of(&self.settings)).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let mut words = format!("the lab ended unexpectedly\n{}", tail.join("\n"));
        if log.contains("unshare") || log.contains("prepare the mounts") {
            words += if self.settings.rootless {
                "\nThis kernel does not let an ordinary user make namespaces. Run it as root, or allow it: \
                 sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000"
            } else {
                "\nNamespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN; in a container, run it with --privileged"
            };
        }
        words
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        // Both ways at once: the lab sees its lifeline end, and loses its parent, which it was
        // told not to survive.
        let _ = self.lifeline.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.settings.keep {
            let _ = fs::remove_dir_all(&self.settings.folder);
        }
    }
}

fn listen(publish: &Publish) -> Result<TcpListener> {
    let address = SocketAddr::from(([127, 0, 0, 1], publish.host_port));
    TcpListener::bind(address).doing(|| format!("listen on {address} for {}", publish.service))
}

fn spawn(program: &Path, settings: &Settings, lifeline: UnixStream) -> Result<Child> {
    let path = log_of(settings);
    let log = File::create(&path).doing(|| format!("create {}", path.display()))?;
    let copy = log.try_clone().doing(|| "copy a descriptor".to_owned())?;
    let mut command = Command::new("unshare");
    if settings.rootless {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(program)
        .arg(INNER)
        .env("PATH", toolbox::path())
        .stdin(Stdio::from(OwnedFd::from(lifeline)))
        .stdout(log)
        .stderr(copy)
        // Ctrl-C at the terminal is for us; what becomes of the lab we decide.
        .process_group(0);
    command
        .spawn()
        .doing(|| "run unshare (of util-linux)".to_owned())
}

fn log_of(settings: &Settings) -> std::path::PathBuf {
    settings.folder.join("lab.log")
}
