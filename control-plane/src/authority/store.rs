//! The anchors on disk: one file each, key and certificate together, readable by their owner only.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Anchor, AuthorityError, Minted};

/// Oldest first. No folder is no anchors; a file that cannot be read is an error, never a reason for a new CA:
/// that would cut off every sidecar that trusts the old one.
pub(super) fn read(folder: &Path) -> Result<Vec<Anchor>, AuthorityError> {
    let paths = paths(folder)?;
    paths.iter().map(|path| read_anchor(path)).collect()
}

/// Of an anchor that is to be written there.
pub(super) fn next_number(folder: &Path) -> Result<u32, AuthorityError> {
    let paths = paths(folder)?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    Ok(super::next_number(names))
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>, AuthorityError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error(folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| file_error(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
    }
    paths.sort(); // numbers with leading zeros
    Ok(paths)
}

fn read_anchor(path: &Path) -> Result<Anchor, AuthorityError> {
    let content = |problem: String| AuthorityError::Content {
        path: path.to_owned(),
        problem,
    };
    let mode = std::fs::metadata(path)
        .map_err(|error| file_error(path, error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(content(format!(
            "others than its owner can read this key (mode {:o}): chmod 600",
            mode & 0o777
        )));
    }
    let pem = std::fs::read_to_string(path).map_err(|error| file_error(path, error))?;
    parse(&pem).map_err(content)
}

/// Certificate and key together.
pub(super) fn parse(pem: &str) -> Result<Anchor, String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|it| fail(&it))?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|it| fail(&it))?;
    let key = KeyPair::try_from(key.secret_der()).map_err(|it| fail(&it))?;
    Anchor::new(certificate, certificate_of(pem), key).map_err(|it| fail(&it))
}

/// The certificate alone, wherever it stands: this is shown to everybody, and the key may come first.
fn certificate_of(pem: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let inside = pem
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END));
    let (inside, _) = inside.unwrap_or_default();
    format!("{BEGIN}{inside}{END}\n")
}

/// On disk for good when this returns: a CA that a sidecar has seen must not be forgotten. Nor may one that is there be
/// written over.
pub(super) fn write(folder: &Path, minted: &Minted) -> Result<(), AuthorityError> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| file_error(folder, error))?;
    let path = folder.join(minted.file_name());
    let temporary = path.with_extension("new");
    let result = unless_it_exists(&path)
        .and_then(|()| write_synced(&temporary, &minted.pem))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    result.map_err(|error| file_error(&path, error))
}

/// The folder is one control plane's alone, so nobody makes it a moment later.
fn unless_it_exists(path: &Path) -> std::io::Result<()> {
    match path.try_exists()? {
        true => Err(ErrorKind::AlreadyExists.into()),
        false => Ok(()),
    }
}

fn write_synced(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn file_error(path: &Path, error: std::io::Error) -> AuthorityError {
    AuthorityError::File {
        path: PathBuf::from(path),
        error,
    }
}
