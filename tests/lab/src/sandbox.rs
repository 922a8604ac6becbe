//! Starts a process in a pod: its network, its own mounts and host name, its user.
//!
//! Namespaces belong to threads, and a child inherits those of the thread that spawns it. So a
//! thread is made, enters the pod, spawns, and ends; the supervisor's own threads stay where
//! they are.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rustix::thread::UnshareFlags;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use crate::mount::{Bind, Tree};
use crate::network::{Door, in_thread, unshare};

#[derive(Clone, Debug)]
pub struct Sandbox {
    pub door: Arc<Door>,
    pub hostname: String,
    pub binds: Vec<Bind>,
    /// Where a new root can be put together if one is needed; exists and is empty.
    pub scratch: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub folder: Option<PathBuf>,
    /// User and group; none where the lab has only one user to give (rootless).
    pub user: Option<(u32, u32)>,
    pub no_new_privileges: bool,
}

/// Standard streams of a process.
pub struct Streams {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

/// A container's private memory file system, and where its temporary files go: `/tmp` is
/// the machine's, and two replicas would meet there.
pub const SCRATCH_IN_POD: &str = "/dev/shm";

pub fn spawn(sandbox: &Sandbox, program: &Program, streams: Streams) -> io::Result<Child> {
    let (sandbox, program, runtime) = (sandbox.clone(), program.clone(), Handle::current());
    in_thread(move || {
        sandbox.door.enter()?;
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUTS)?;
        rustix::system::sethostname(sandbox.hostname.as_bytes())?;
        let mut tree = Tree::new(&sandbox.scratch)?;
        tree.tmpfs(SCRATCH_IN_POD.as_ref())?;
        for bind in &sandbox.binds {
            tree.bind(bind).map_err(|error| {
                let target = bind.target.display();
                io::Error::new(error.kind(), format!("mount {target}: {error}"))
            })?;
        }
        if program.no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        let _runtime = runtime.enter();
        start(&program, streams)
    })
}

/// The process leads a group of its own, so that a signal reaches all of the container.
pub fn start(program: &Program, streams: Streams) -> io::Result<Child> {
    let (name, arguments) = program
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an empty command"))?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .process_group(0);
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    if let Some((user, group)) = program.user {
        command.uid(user).gid(group);
    }
    command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}
