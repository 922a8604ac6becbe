//! Runs and their directories: where they are, which are alive, and what is left of the dead.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Doing, Error, Result};
use crate::server::socket_in;

/// A run of this user.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub folder: PathBuf,
}

impl Run {
    /// Whether its supervisor answers.
    pub fn is_alive(&self) -> bool {
        UnixStream::connect(socket_in(&self.folder)).is_ok()
    }
}

/// The directory of all runs of this user. Nobody else may look inside.
pub fn base() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let of_session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of_session =
        of_session.filter(|folder| fs::metadata(folder).is_ok_and(|m| m.uid() == user));
    let base = match of_session {
        Some(folder) => folder.join("weir-lab"),
        None => std::env::temp_dir().join(format!("weir-lab-{user}")),
    };
    private(&base)?;
    Ok(base)
}

/// A directory that is ours alone, or an error: the place is world-writable, and somebody else
/// could have put something there first.
fn private(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).doing(|| format!("create {}", folder.display()));
    }
    let found = fs::symlink_metadata(folder).doing(|| format!("look at {}", folder.display()))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && ours && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Lab(format!(
        "{} must be a directory that only you may enter; remove it, or set XDG_RUNTIME_DIR",
        folder.display()
    )))
}

/// A directory for a new run, with an id nobody has.
pub fn create() -> Result<Run> {
    let base = base()?;
    loop {
        let id: String = (0..4).map(|_| fastrand::lowercase()).collect();
        let folder = base.join(&id);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(Run { id, folder }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing(|| format!("create {}", folder.display())),
        }
    }
}

pub fn all() -> Result<Vec<Run>> {
    let base = base()?;
    let entries = fs::read_dir(&base).doing(|| format!("list {}", base.display()))?;
    let mut runs: Vec<Run> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some(Run {
                id: entry.file_name().into_string().ok()?,
                folder: entry.path(),
            })
        })
        .collect();
    runs.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(runs)
}

/// How long the directory of a run that died is left for somebody to look at.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// Removes what runs left that died long ago.
pub fn prune() -> Result<()> {
    for run in all()? {
        let age = fs::metadata(&run.folder).and_then(|found| found.modified());
        let age = age
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_some_and(|age| age > KEPT_FOR) && !run.is_alive() {
            let _ = fs::remove_dir_all(&run.folder);
        }
    }
    Ok(())
}

/// The run with this id, or the only one alive.
pub fn find(id: Option<&str>) -> Result<Run> {
    let mut runs = all()?;
    match id {
        Some(id) => runs.retain(|run| run.id == id),
        None => runs.retain(Run::is_alive),
    }
    match runs.len() {
        1 => Ok(runs.remove(0)),
        0 => Err(Error::Request(match id {
            Some(id) => format!("there is no run {id}"),
            None => "no lab is running; start one with `weir-lab up`".to_owned(),
        })),
        _ => {
            let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
            let ids = ids.join(", ");
            Err(Error::Request(format!(
                "several labs are running; say which with --run: {ids}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_others_may_enter_or_a_link_somebody_left_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let ours = place.path().join("ours");
        private(&ours).unwrap();
        private(&ours).unwrap();
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private(&ours).is_err());
        let link = place.path().join("link");
        symlink(place.path(), &link).unwrap();
        assert!(private(&link).is_err());
    }
}
