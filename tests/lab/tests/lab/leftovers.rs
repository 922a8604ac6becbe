//! Whatever ends a lab, and however: nothing of it stays on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use weir_lab::client::Client;

use crate::echo::{PATIENCE, deployment, eventually};

/// A lab started the way people do, with everything the kernel knows of it.
struct Started {
    outer: Child,
    folder: PathBuf,
    /// Processes of the lab by their number out here, with the time each started.
    processes: BTreeMap<i32, String>,
    /// The processes' network namespaces.
    networks: Vec<String>,
    _manifest: tempfile::NamedTempFile,
}

fn start(flags: &[&str]) -> Started {
    let manifest = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(manifest.path(), deployment("web", 2, "", "")).unwrap();
    let mut outer = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["up", "--mesh", "off"])
        .args(flags)
        .arg(manifest.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(outer.stdout.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    let folder = PathBuf::from(first.split(" in ").nth(1).unwrap());
    // Somebody must read on, or the lab's news would have nowhere to go.
    std::thread::spawn(move || said.for_each(drop));
    // From here on, a failing test takes it down.
    let mut started = Started {
        outer,
        folder,
        processes: BTreeMap::new(),
        networks: Vec::new(),
        _manifest: manifest,
    };
    Client::new(&started.folder).wait_ready(PATIENCE).unwrap();
    let processes = descendants(started.outer.id() as i32);
    assert!(
        processes.len() >= 4,
        "unshare, the lab, two apps: {processes:?}"
    );
    let network = |pid: &i32| link(format!("/proc/{pid}/ns/net"));
    let mut networks: Vec<String> = processes.keys().map(network).collect();
    networks.retain(|network| *network != link("/proc/self/ns/net"));
    assert!(networks.len() >= 3, "the lab's and two pods': {networks:?}");
    started.processes = processes;
    started.networks = networks;
    started
}

impl Started {
    /// The lab's first process, pid 1 in there, and the one between it and ours.
    fn supervisor_and_its_parent(&self) -> [i32; 2] {
        let child_of = |parent: i32| {
            let mut all = self.processes.keys();
            *all.find(|pid| parent_of(**pid) == Some(parent)).unwrap()
        };
        let between = child_of(self.outer.id() as i32);
        [child_of(between), between]
    }

    /// How the starter ended; it has to, soon.
    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the starter has ended", || {
            status = self.outer.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has ended")
    }

    fn assert_nothing_is_left(&self) {
        eventually("every process is gone", || {
            let mut all = self.processes.iter();
            all.all(|(pid, started)| start_of(*pid).as_ref() != Some(started))
        });
        let theirs = |path: &Path| self.networks.contains(&link(path.join("ns/net")));
        // Numbers of namespaces are used again: a later process is of another lab.
        let newest = self
            .processes
            .values()
            .filter_map(|start| start.parse::<u64>().ok())
            .max();
        let contemporary = |path: &Path| {
            let pid = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let started = pid.and_then(start_of).and_then(|start| start.parse().ok());
            started <= newest
        };
        let held: Vec<PathBuf> = proc_folders()
            .filter(|path| theirs(path) && contemporary(path))
            .collect();
        assert!(
            held.is_empty(),
            "a network namespace is still in use: {held:?}"
        );
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn link(path: impl AsRef<Path>) -> String {
    fs::read_link(path).map_or(String::new(), |link| link.display().to_string())
}

fn proc_folders() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let named = |path: &PathBuf| path.file_name()?.to_str()?.parse::<i32>().ok();
    entries
        .map(|entry| entry.path())
        .filter(move |path| named(path).is_some())
}

/// Fields of `/proc/PID/stat` after the name.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn parent_of(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

fn start_of(pid: i32) -> Option<String> {
    stat(pid)?.get(19).cloned()
}

fn descendants(of: i32) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for path in proc_folders() {
            let name = path.file_name().unwrap().to_str().unwrap();
            let pid = name.parse().unwrap();
            if parent_of(pid) == Some(parent)
                && let Some(started) = start_of(pid)
            {
                found.insert(pid, started);
                parents.push(pid);
            }
        }
    }
    found
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Both ways of making namespaces; they are the same one for a user who is not root.
const MODES: [&[&str]; 2] = [&[], &["--rootless"]];

#[test]
fn a_lab_whose_starter_is_killed_leaves_nothing() {
    for mode in MODES {
        let mut lab = start(mode);
        lab.outer.kill().unwrap();
        lab.ended();
        lab.assert_nothing_is_left();
        eventually("its directory is gone", || !lab.folder.exists());
    }
}

#[test]
fn a_lab_whose_supervisor_or_its_parent_is_killed_leaves_nothing_and_says_so() {
    for mode in MODES {
        for victim in [0, 1] {
            let mut lab = start(mode);
            signal(lab.supervisor_and_its_parent()[victim], Signal::KILL);
            assert!(!lab.ended().success());
            lab.assert_nothing_is_left();
        }
    }
}

#[test]
fn an_interrupted_lab_ends_gracefully_and_leaves_nothing() {
    for mode in MODES {
        let mut lab = start(mode);
        signal(lab.outer.id() as i32, Signal::INT);
        assert!(lab.ended().success());
        lab.assert_nothing_is_left();
        assert!(!lab.folder.exists());
    }
}

#[test]
fn a_lab_can_be_ended_from_elsewhere() {
    let mut lab = start(&[]);
    let id = lab.folder.file_name().unwrap().to_str().unwrap();
    let down = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["down", id])
        .status();
    assert!(down.unwrap().success());
    assert!(lab.ended().success());
    lab.assert_nothing_is_left();
}

#[test]
fn the_machines_own_network_is_not_touched() {
    let links = || {
        fs::read_to_string("/proc/self/net/dev")
            .unwrap()
            .lines()
            .count()
    };
    let routes = || fs::read_to_string("/proc/self/net/route").unwrap();
    let before = (links(), routes());
    let lab = start(&[]);
    assert_eq!((links(), routes()), before);
    drop(lab);
}
