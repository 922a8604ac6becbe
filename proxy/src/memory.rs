//! The memory that the sidecar may use, and what it refuses when there is hardly any left.
//!
//! Each thing that a peer can make grow has a bound of its own; this is the one for all of them together, where the
//! sidecar's container has one. While it is short of memory little is done at a time, rather than nothing: a limit that
//! was chosen too low must not end all traffic.

use std::io;
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
    let Some(mut meter) = Meter::find(given) else {
        return;
    };
    let (mut policy, mut last, mut asked) = (Policy::default(), Level::Enough, None);
    loop {
        let now = Instant::now();
        let (used, limit) = match meter.read() {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the sidecar's memory cannot be measured: nothing is refused for it");
                SIDECAR.set(Level::Enough);
                return;
            }
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
    Cgroup,
    /// In bytes, and what is resident of the process's own is used.
    Given(u64),
}

impl Meter {
    fn find(given: Option<u64>) -> Option<Self> {
        let given = given.filter(|limit| *limit > 0);
        let cgroup = cgroup::limit().ok().flatten();
        match (given, cgroup) {
            (Some(given), Some(cgroup)) if given < cgroup => Some(Self::Given(given)),
            (_, Some(_)) => Some(Self::Cgroup),
            (Some(given), None) => Some(Self::Given(given)),
            (None, None) => None,
        }
    }

    /// In bytes: used, limit. A limit may change while the container runs.
    fn read(&mut self) -> io::Result<(u64, u64)> {
        match self {
            Self::Cgroup => {
                let limit = cgroup::limit()?.unwrap_or(u64::MAX);
                Ok((cgroup::used(limit)?, limit))
            }
            Self::Given(limit) => Ok((resident()?, *limit)),
        }
    }
}

/// What is no copy of a file: the program itself, which the kernel can read again.
fn resident() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = |field| statm.split(' ').nth(field)?.parse::<u64>().ok();
    let pages = pages(1)
        .zip(pages(2))
        .map(|(all, of_files)| all.saturating_sub(of_files));
    Ok(pages.ok_or(io::ErrorKind::InvalidData)? * rustix::param::page_size() as u64)
}

mod cgroup {
    use std::fs::read_to_string;
    use std::io;

    /// `None`: there is none.
    pub(super) fn limit() -> io::Result<Option<u64>> {
        match read_to_string("/sys/fs/cgroup/memory.max")?.trim() {
            "max" => Ok(None),
            bytes => number(bytes).map(Some),
        }
    }

    /// Without what the kernel would take back first. That is looked up only where it matters, because it has the kernel add up
    /// what all CPUs know.
    pub(super) fn used(limit: u64) -> io::Result<u64> {
        let all = number(read_to_string("/sys/fs/cgroup/memory.current")?.trim())?;
        if all < limit / 2 {
            return Ok(all);
        }
        let stat = read_to_string("/sys/fs/cgroup/memory.stat")?;
        Ok(all.saturating_sub(reclaimable(&stat)))
    }

    /// Copies of files, the program's own among them, and what the kernel keeps of names and the like.
    pub(super) fn reclaimable(stat: &str) -> u64 {
        let bytes = |wanted: &str| {
            let of = |line: &str| line.strip_prefix(wanted)?.strip_prefix(' ')?.parse().ok();
            stat.lines().find_map(of).unwrap_or(0_u64)
        };
        // Shared memory is counted among files, and is nowhere else.
        bytes("file").saturating_sub(bytes("shmem")) + bytes("slab_reclaimable")
    }

    fn number(text: &str) -> io::Result<u64> {
        text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
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
        assert_eq!(cgroup::reclaimable(stat), 4_300_000);
        assert_eq!(cgroup::reclaimable("anon 8000000\n"), 0);
    }

    #[test]
    fn what_is_resident_is_what_the_kernel_says() {
        let kept = vec![1_u8; 32 << 20];
        let used = resident().expect("the kernel says it");
        assert!((32 << 20..16 << 30).contains(&used), "{used}");
        assert_eq!(kept[7], 1);
    }
}
