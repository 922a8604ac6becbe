//! How much memory the sidecar may use, and how much it uses.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the limit is, and what of it is used.
pub(super) enum Meter {
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
    pub(super) fn find(given: Option<u64>) -> io::Result<Option<Self>> {
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
    pub(super) fn read(&self) -> io::Result<(u64, u64)> {
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
pub(super) struct Kept(File);

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

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

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
