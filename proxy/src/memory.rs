//! The memory that the sidecar may use, and what it refuses when there is hardly any left.
//!
//! Each thing that a peer can make grow has a bound of its own; this is the one for all of them together, where the
//! sidecar's container has one. While it is short of memory little is done at a time, rather than nothing: a limit that
//! was chosen too low must not end all traffic.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::body::Duty;
use crate::error::Error;
use crate::policy::memory::{Level, Memory as Policy, Observed};
use crate::policy::outcome::Outcome;
use crate::telemetry;

/// While at most half is used.
const LOOK: Duration = Duration::from_millis(100);
/// Above that: whoever can send fills 40 MB in a second, which is a third of a small limit in 250 ms.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// The allocator is locked meanwhile.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// Begun while there is little memory, and not yet ended. Each may keep its head, 64 KiB of its body and two windows.
const CALLS_MAX: u32 = 64;
/// Open, when another one comes while there is next to none.
pub const CONNECTIONS_MAX: usize = 64;

/// Of the process, as its memory is.
pub static SIDECAR: Memory = Memory::new();

pub struct Memory {
    level: AtomicU8,
    calls: AtomicU32,
    /// How often the allocator was asked to give back what it has in stock.
    asked: AtomicU32,
}

/// Of a call that was begun while there was little memory; given back when it ends.
pub struct Place(&'static Memory);

impl Memory {
    pub const fn new() -> Self {
        Self {
            level: AtomicU8::new(Level::Enough as u8),
            calls: AtomicU32::new(0),
            asked: AtomicU32::new(0),
        }
    }

    /// For one more call. `None`: it needs none, there is memory enough.
    pub fn enter(&'static self) -> Result<Option<Place>, Error> {
        if !self.is(Level::Short) {
            return Ok(None);
        }
        let one_more = |calls| (calls < CALLS_MAX).then_some(calls + 1);
        match (self.calls).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Some(Place(self))),
            Err(_) => Err(Error::OutOfMemory),
        }
    }

    /// For one more connection beside those that are open.
    pub fn has_room_beside(&self, open: usize) -> bool {
        !self.is(Level::Critical) || open < CONNECTIONS_MAX
    }

    fn is(&self, level: Level) -> bool {
        self.level.load(Ordering::Relaxed) >= level as u8
    }

    fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// It has nothing to learn from how the call went.
impl Duty for Place {
    fn done(self, _: Outcome, _: Instant) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks for as long as the process lasts. `given`: a limit in bytes that it was started with, beside its cgroup's.
pub async fn watch(given: Option<u64>) {
    let meter = match Meter::find(given) {
        Ok(Some(meter)) => meter,
        Ok(None) => return,
        Err(error) => return unknown(&error),
    };
    let (mut policy, mut last, mut asked) = (Policy::default(), Level::Enough, None);
    loop {
        let now = Instant::now();
        let (used, limit) = match meter.read() {
            Ok(read) => read,
            Err(error) => return unknown(&error),
        };
        let Observed { level, give_back } = policy.observe(used, limit);
        SIDECAR.set(level);
        telemetry::memory(used, limit, level);
        if level != last {
            last = level;
            tracing::warn!(used, limit, ?level, "memory");
        }
        if give_back && asked.is_none_or(|asked| now.duration_since(asked) >= GIVE_BACK) {
            asked = Some(now);
            SIDECAR.asked.fetch_add(1, Ordering::Relaxed);
            allocator::give_back();
        }
        sleep(if used < limit / 2 { LOOK } else { CLOSE_LOOK }).await;
    }
}

fn unknown(error: &io::Error) {
    tracing::warn!(%error, "the sidecar's memory cannot be measured: nothing is refused for it");
    SIDECAR.set(Level::Enough);
}

/// A worker's part in giving back: some allocators know only what is the asking thread's own.
pub struct Stock(u32);

impl Stock {
    pub fn new() -> Self {
        Self(SIDECAR.asked.load(Ordering::Relaxed))
    }

    /// A few times a second.
    pub fn tick(&mut self) {
        let asked = SIDECAR.asked.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.0, asked) != asked {
            allocator::give_back_of_this_thread();
        }
    }
}

impl Default for Stock {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the limit is, and what of it is used.
enum Meter {
    /// cgroup v2, in a namespace of its own: the container's. What sockets hold in the kernel is counted, too.
    Cgroup {
        limit: Kept,
        current: Kept,
        stat: Kept,
    },
    /// In bytes, and what is resident of the process's own is used.
    Given { limit: u64, statm: Kept },
}

impl Meter {
    fn find(given: Option<u64>) -> io::Result<Option<Self>> {
        let cgroup = Kept::open("/sys/fs/cgroup/memory.max").ok();
        let allowed = cgroup.as_ref().and_then(|max| cgroup_limit(max).ok());
        let allowed = allowed.unwrap_or(u64::MAX);
        match (given, cgroup) {
            (Some(limit @ 1..), _) if limit < allowed => {
                let statm = Kept::open("/proc/self/statm")?;
                Ok(Some(Self::Given { limit, statm }))
            }
            (_, Some(limit)) => Ok(Some(Self::Cgroup {
                limit,
                current: Kept::open("/sys/fs/cgroup/memory.current")?,
                stat: Kept::open("/sys/fs/cgroup/memory.stat")?,
            })),
            (_, None) => Ok(None),
        }
    }

    /// In bytes: used, limit. A limit may change while the container runs.
    fn read(&self) -> io::Result<(u64, u64)> {
        match self {
            Self::Given { limit, statm } => Ok((resident(&statm.read()?)?, *limit)),
            Self::Cgroup {
                limit,
                current,
                stat,
            } => {
                let limit = cgroup_limit(limit)?;
                let all = number(&current.read()?)?;
                // It has the kernel add up what all CPUs know, so it is asked only where it matters.
                let reclaimable = match all < limit / 2 {
                    true => 0,
                    false => reclaimable(&stat.read()?),
                };
                Ok((all.saturating_sub(reclaimable), limit))
            }
        }
    }
}

/// A file that the kernel writes anew for each who reads it. Kept open, so that it can be read when there is no descriptor
/// left either.
struct Kept(File);

impl Kept {
    fn open(path: &str) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    fn read(&self) -> io::Result<String> {
        let mut text = vec![0; 8 * 1024];
        let length = self.0.read_at(&mut text, 0)?;
        text.truncate(length);
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

fn cgroup_limit(max: &Kept) -> io::Result<u64> {
    match max.read()?.trim() {
        "max" => Ok(u64::MAX),
        bytes => number(bytes),
    }
}

fn number(text: &str) -> io::Result<u64> {
    let number = text.trim().parse();
    number.map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What the kernel would take back first: copies of files, the program's own among them, and what it keeps of names and
/// the like.
fn reclaimable(stat: &str) -> u64 {
    let bytes = |wanted: &str| {
        let of = |line: &str| line.strip_prefix(wanted)?.strip_prefix(' ')?.parse().ok();
        stat.lines().find_map(of).unwrap_or(0_u64)
    };
    // Shared memory is counted among files, and is nowhere else.
    bytes("file").saturating_sub(bytes("shmem")) + bytes("slab_reclaimable")
}

/// What is no copy of a file: the program itself, which the kernel can read again.
fn resident(statm: &str) -> io::Result<u64> {
    let pages = |field| statm.split(' ').nth(field)?.parse::<u64>().ok();
    let pages = (pages(1).zip(pages(2))).map(|(all, of_files)| all.saturating_sub(of_files));
    Ok(pages.ok_or(io::ErrorKind::InvalidData)? * rustix::param::page_size() as u64)
}

/// What has been freed, and is kept to be used again.
#[expect(
    unsafe_code,
    reason = "no crate of the tree gives back what an allocator keeps"
)]
mod allocator {
    #[cfg(feature = "mimalloc")]
    pub(super) fn give_back() {
        give_back_of_this_thread();
    }

    #[cfg(feature = "mimalloc")]
    pub(super) fn give_back_of_this_thread() {
        unsafe extern "C" {
            fn mi_collect(force: bool);
        }
        // SAFETY: it is linked in with this feature, takes any value, and may be called whenever memory may be freed.
        unsafe { mi_collect(true) }
    }

    #[cfg(all(not(feature = "mimalloc"), target_env = "gnu"))]
    pub(super) fn give_back() {
        // SAFETY: it may be called whenever memory may be freed. What all threads have freed is meant.
        unsafe { libc::malloc_trim(0) };
    }

    #[cfg(all(not(feature = "mimalloc"), not(target_env = "gnu")))]
    pub(super) fn give_back() {}

    #[cfg(not(feature = "mimalloc"))]
    pub(super) fn give_back_of_this_thread() {}
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn memory(level: Level) -> &'static Memory {
        let memory = Box::leak(Box::new(Memory::new()));
        memory.set(level);
        memory
    }

    #[test]
    fn while_there_is_enough_nobody_is_counted() {
        let memory = memory(Level::Enough);
        for _ in 0..1000 {
            assert!(matches!(memory.enter(), Ok(None)));
        }
        assert!(memory.has_room_beside(10_000));
    }

    /// A limit that is too low for the sidecar alone would end all traffic otherwise.
    #[test]
    fn short_of_it_little_is_done_at_a_time_and_not_nothing() {
        for level in [Level::Short, Level::Critical] {
            let memory = memory(level);
            let all: Vec<_> = (0..100).map(|_| memory.enter()).collect();
            let begun = all
                .iter()
                .filter(|entered| matches!(entered, Ok(Some(_))))
                .count();
            assert_eq!(begun, 64, "{level:?}");
            drop(all);
            assert!(matches!(memory.enter(), Ok(Some(_))), "nothing is lost");
        }
    }

    #[test]
    fn with_next_to_none_few_connections_are_taken() {
        assert!(memory(Level::Short).has_room_beside(1000));
        assert!(memory(Level::Critical).has_room_beside(63));
        assert!(!memory(Level::Critical).has_room_beside(64));
    }

    #[test]
    fn what_the_kernel_would_take_back_is_not_in_use() {
        let stat = "anon 8000000\nfile 5000000\nkernel 900000\nshmem 1000000\nfile_mapped 4000000\nslab_reclaimable 300000\n";
        assert_eq!(reclaimable(stat), 4_300_000);
        assert_eq!(reclaimable("anon 8000000\n"), 0);
    }

    /// Under an attack there may be no descriptor left, and that is when it matters.
    #[test]
    fn what_is_used_can_be_read_when_no_file_can_be_opened_any_more() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let kept = Kept::open(file.path().to_str().expect("text")).expect("it is there");
        for used in ["100\n", "20\n", "3000000\n"] {
            file.as_file().set_len(0).expect("it is emptied");
            file.rewind().expect("from its beginning");
            file.write_all(used.as_bytes()).expect("it is written");
            let _ = std::fs::remove_file(file.path());
            assert_eq!(kept.read().expect("it is open"), used);
        }
    }

    #[test]
    fn what_is_resident_is_what_the_kernel_says() {
        let kept = vec![1_u8; 32 << 20];
        let meter = Meter::find(Some(1))
            .expect("it is there")
            .expect("it is given");
        let (used, limit) = meter.read().expect("the kernel says it");
        assert_eq!(limit, 1);
        assert!((32 << 20..16 << 30).contains(&used), "{used}");
        assert_eq!(kept[7], 1);
    }
}
