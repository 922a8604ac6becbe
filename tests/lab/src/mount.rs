//! Mount points where the machine has none, without a trace on the machine.
//!
//! A container wants something at `/var/run/secrets/weir`, and the machine has no such
//! directory. A *cover* is a tmpfs over the nearest directory that exists, with everything that
//! was in there bound back in place; in it new directories can be made. All of this happens in a
//! private mount namespace.

use std::ffi::CString;
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

/// Something that appears at a path.
#[derive(Clone, Debug)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// The mounts of one namespace while it is being built.
pub struct Tree {
    /// Directories that are ours to make entries in.
    made: Vec<PathBuf>,
    /// An empty directory for the time of building a new root.
    scratch: PathBuf,
}

impl Tree {
    /// For the calling thread, which must have a mount namespace of its own.
    pub fn new(scratch: &Path) -> io::Result<Self> {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        Ok(Self {
            made: Vec::new(),
            scratch: scratch.to_path_buf(),
        })
    }

    pub fn bind(&mut self, bind: &Bind) -> io::Result<()> {
        let target = self.mount_point(&bind.target, bind.source.is_file())?;
        mount_bind_recursive(&bind.source, &target)?;
        if bind.read_only {
            // May fail where the source's own mount is locked in a user namespace. Reading
            // works all the same, and that is what the container needs.
            let _ = mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, c"");
        }
        Ok(())
    }

    /// A memory file system of the container's own.
    pub fn tmpfs(&mut self, target: &Path) -> io::Result<()> {
        let target = self.mount_point(target, false)?;
        tmpfs(&target, 0o1777)
    }

    /// Makes a directory that only its owner may enter passable, in this namespace.
    pub fn open(&mut self, directory: &Path) -> io::Result<()> {
        self.cover(directory, Some(0o755))
    }

    fn mount_point(&mut self, wanted: &Path, file: bool) -> io::Result<PathBuf> {
        if let Ok(existing) = fs::canonicalize(wanted) {
            return Ok(existing);
        }
        let ancestor = wanted
            .ancestors()
            .find(|ancestor| ancestor.exists())
            .unwrap_or(Path::new("/"));
        let missing = wanted
            .strip_prefix(ancestor)
            .expect("an ancestor is a prefix")
            .to_path_buf();
        let ancestor = fs::canonicalize(ancestor)?;
        if !self.made.contains(&ancestor) {
            self.cover(&ancestor, None)?;
        }
        let target = ancestor.join(missing);
        let directories = if file {
            target.parent()
        } else {
            Some(&*target)
        };
        let directories = directories.expect("a mount point is below the root");
        fs::create_dir_all(directories)?;
        self.made.extend(
            directories
                .ancestors()
                .take_while(|made| *made != ancestor)
                .map(Path::to_path_buf),
        );
        if file {
            File::create(&target)?;
        }
        Ok(target)
    }

    fn cover(&mut self, directory: &Path, mode: Option<u32>) -> io::Result<()> {
        let mode = match mode {
            Some(mode) => mode,
            None => fs::metadata(directory)?.permissions().mode() & 0o7777,
        };
        // Through this descriptor the covered directory stays reachable.
        let covered: OwnedFd = rustix::fs::open(
            directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let entries: Vec<DirEntry> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
        let is_root = directory == Path::new("/");
        let cover = if is_root {
            self.scratch.as_path()
        } else {
            directory
        };
        tmpfs(cover, mode)?;
        if is_root {
            // Or the tree that contains the scratch directory would be bound into itself.
            mount_change(cover, MountPropagationFlags::UNBINDABLE)?;
        }
        let covered = PathBuf::from(format!("/proc/self/fd/{}", covered.as_raw_fd()));
        for entry in &entries {
            // What cannot be bound (gone meanwhile, not ours to see) is missing in the cover.
            let _ = uncover(&covered, cover, entry);
        }
        if is_root {
            rustix::process::chdir(cover)?;
            rustix::process::pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")?;
        }
        self.made.push(directory.to_path_buf());
        Ok(())
    }
}

fn uncover(covered: &Path, cover: &Path, entry: &DirEntry) -> io::Result<()> {
    let source = covered.join(entry.file_name());
    let target = cover.join(entry.file_name());
    let kind = entry.file_type()?;
    if kind.is_symlink() {
        return symlink(fs::read_link(&source)?, &target);
    }
    if kind.is_dir() {
        fs::create_dir(&target)?;
    } else {
        File::create(&target)?;
    }
    mount_bind_recursive(&source, &target)?;
    Ok(())
}

fn tmpfs(target: &Path, mode: u32) -> io::Result<()> {
    let data = CString::new(format!("mode={mode:o}")).expect("digits have no NUL");
    mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        data.as_c_str(),
    )?;
    Ok(())
}
