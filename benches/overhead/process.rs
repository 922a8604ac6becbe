//! A program under test: pinned to its core, its CPU and memory read from /proc, killed when it is dropped.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Load and backend.
pub const DRIVER_CORE: usize = 0;
/// All proxies.
pub const PROXY_CORE: usize = 1;
/// Between two looks at a process that is to go to sleep.
const GLANCE: Duration = Duration::from_micros(50);

pub struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
}

pub struct Start<'a> {
    pub name: String,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub core: usize,
    /// For its output, which is shown when it fails.
    pub folder: &'a Path,
}

impl Process {
    pub fn start(start: Start) -> io::Result<Self> {
        let log = start.folder.join(format!("{}.log", start.name));
        let output = File::create(&log)?;
        let mut command = Command::new(&start.command[0]);
        command
            .args(&start.command[1..])
            .env_clear()
            .envs(start.environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // A child inherits the core of the thread that starts it.
        pin(start.core)?;
        let child = command.spawn();
        pin(DRIVER_CORE)?;
        let name = start.name;
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", start.command[0]))
        })?;
        Ok(Self { name, child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of what it said, if it is no more.
    pub fn has_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!(
            "{} ended ({status}): {}",
            self.name,
            self.last_words()
        ))
    }

    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// Asks it to end and waits; what does not end in time is killed when dropped.
    pub fn end(&mut self, patience: Duration) {
        self.terminate();
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            pause(Duration::from_millis(10));
        }
    }

    /// Asks it to end. A profiler ends with what it watches.
    pub fn terminate(&self) {
        let watched = family(self.id()).last().copied();
        if let Some(pid) = watched.and_then(known) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// CPU of all its threads, its children's too (nginx and HAProxy do their work in one).
    pub fn cpu(&self) -> Duration {
        family(self.id()).into_iter().map(cpu_of).sum()
    }

    /// Resident memory, KiB.
    pub fn resident(&self) -> u64 {
        family(self.id()).into_iter().map(resident_of).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in family(self.id()).into_iter().rev().filter_map(known) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn known(pid: u32) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.try_into().ok()?)
}

/// Puts the calling thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[allow(clippy::disallowed_methods)] // nothing else runs on this thread, and no clock is paused
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until every thread of a process and of those it has started sleeps.
pub fn until_asleep(pid: u32, patience: Duration) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut seen = 0;
    // Twice: between two threads that wake each other there is a moment at which both sleep.
    while seen < 2 {
        seen = if is_asleep(pid)? { seen + 1 } else { 0 };
        if tokio::time::Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it never sleeps"));
        }
        pause(GLANCE);
    }
    Ok(())
}

fn is_asleep(pid: u32) -> io::Result<bool> {
    for pid in family(pid) {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // One that has ended meanwhile says nothing any more.
            let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            if parse_state(&stat).is_some_and(|state| state != 'S') {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The letter after the name, which stands in brackets and may have any in it.
fn parse_state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How busy the machine is, and how much of that is this bench with all it has started.
pub struct Usage {
    machine: Duration,
    own: Duration,
    at: tokio::time::Instant,
}

impl Usage {
    pub fn now() -> Self {
        Self {
            machine: machine_busy().unwrap_or_default(),
            own: family(std::process::id()).into_iter().map(cpu_of).sum(),
            at: tokio::time::Instant::now(),
        }
    }

    /// Share of the machine that others have used since.
    pub fn foreign(&self) -> f64 {
        let now = Self::now();
        let own = now.own.saturating_sub(self.own);
        let others = now.machine.saturating_sub(self.machine).saturating_sub(own);
        let cores = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let cores = cores.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        others.as_secs_f64() / (self.at.elapsed().as_secs_f64() * cores.max(1) as f64)
    }
}

fn machine_busy() -> Option<Duration> {
    parse_busy(&fs::read_to_string("/proc/stat").ok()?)
}

/// user, nice, system, (idle, iowait,) irq, softirq, steal: in ticks of 10 ms.
fn parse_busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|tick| tick.parse().ok())
        .collect();
    let busy = ticks.get(..3)?.iter().sum::<u64>() + ticks.get(5..8)?.iter().sum::<u64>();
    Some(Duration::from_millis(busy * 10))
}

/// A process and those it has started, the parent first.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let path = format!("/proc/{pid}/task/{pid}/children", pid = all[at]);
        let children = fs::read_to_string(path).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}

fn cpu_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| parse_schedstat(&text))
        .sum()
}

/// The first number is the time on a core, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<Duration> {
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn resident_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_resident(&status).unwrap_or(0)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        assert_eq!(
            parse_schedstat("1500000 20 3\n"),
            Some(Duration::from_micros(1500))
        );
        assert_eq!(parse_schedstat(""), None);
        let stat = "cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_busy(stat), Some(Duration::from_millis(270)));
        assert_eq!(parse_state("7 (a (b) c) S 1 7 7 0"), Some('S'));
        assert_eq!(parse_state(""), None);
        let status = "Name:\tweir\nVmHWM:\t 9000 kB\nVmRSS:\t    7124 kB\n";
        assert_eq!(parse_resident(status), Some(7124));
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
    }
}
