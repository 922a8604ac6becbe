//! The redirection of one pod as the injector wrote it down, for whoever writes the rules in its stead: the CNI plugin.
//!
//! It comes from an annotation, which whoever wrote the pod may have written, too. All it can do is to make rules for
//! that one pod; what is not understood there is refused, so that a newer injector is never half obeyed.

use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::Deserialize;
use serde_json::Value;

use super::{InitArgs, InitError, Rules, apply, table};

#[derive(Debug)]
pub struct Redirection(Rules);

/// What the annotation says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    inbound_port: u16,
    outbound_port: u16,
    proxy_uid: u32,
    #[serde(default)]
    proxy_mark: String,
    #[serde(default)]
    skip_inbound_ports: String,
    #[serde(default)]
    skip_outbound_ports: String,
    #[serde(default)]
    skip_outbound_cidrs: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RedirectionError {
    #[error("the pod's redirection is not understood: {0}")]
    NotUnderstood(String),
    #[error("cannot enter the pod's network namespace {path}: {error}")]
    Namespace { path: String, error: std::io::Error },
    #[error("cannot make a network namespace to compare with: {0}")]
    Scratch(std::io::Error),
    #[error("cannot list the pod's rules: {0}")]
    List(std::io::Error),
    #[error("{0}")]
    Apply(String),
    #[error("the pod's rules are not those of its redirection: they were taken away or changed")]
    Changed,
}

impl Redirection {
    pub fn read(said: &Value) -> Result<Self, RedirectionError> {
        let wrong = |why: &dyn std::fmt::Display| RedirectionError::NotUnderstood(why.to_string());
        let said = Said::deserialize(said).map_err(|error| wrong(&error))?;
        if said.inbound_port == 0 || said.outbound_port == 0 || said.proxy_uid == 0 {
            return Err(wrong(&"neither a port nor the sidecar's user can be 0"));
        }
        let args = InitArgs {
            inbound_port: said.inbound_port,
            outbound_port: said.outbound_port,
            proxy_uid: Some(said.proxy_uid),
            proxy_mark: said.proxy_mark.parse().map_err(|error| wrong(&error))?,
            skip_inbound_ports: said
                .skip_inbound_ports
                .parse()
                .map_err(|error| wrong(&error))?,
            skip_outbound_ports: said
                .skip_outbound_ports
                .parse()
                .map_err(|error| wrong(&error))?,
            skip_outbound_cidrs: said
                .skip_outbound_cidrs
                .parse()
                .map_err(|error| wrong(&error))?,
            print: false,
            no_verify: true,
            remove: false,
        };
        let rules = args.rules().map_err(|error: InitError| wrong(&error))?;
        Ok(Self(rules))
    }

    /// Writes the rules in that network namespace; a second time changes nothing.
    pub fn install(&self, namespace: &Path) -> Result<(), RedirectionError> {
        let rules = self.0.clone();
        within(namespace, move || {
            apply::install(&rules).map_err(|error| RedirectionError::Apply(error.to_string()))
        })?
    }

    /// Whether the rules in that network namespace are still these: the kernel shows the same of them as of the same
    /// rules in a namespace where there is nothing else.
    pub fn check(&self, namespace: &Path) -> Result<(), RedirectionError> {
        // First, so that of a pod that is gone it is said that it is gone, also by those who may make no namespace.
        let there = within(namespace, || table::shown().map_err(RedirectionError::List))??;
        let rules = self.0.clone();
        let wanted = in_thread(move || {
            unshare().map_err(RedirectionError::Scratch)?;
            apply::install(&rules).map_err(|error| RedirectionError::Apply(error.to_string()))?;
            table::shown().map_err(RedirectionError::List)
        })?;
        match there == wanted {
            true => Ok(()),
            false => Err(RedirectionError::Changed),
        }
    }
}

/// Namespaces belong to threads: one is made for this, and ends with it.
fn within<T: Send + 'static>(
    namespace: &Path,
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RedirectionError> {
    let path = namespace.to_owned();
    in_thread(move || {
        let entered = std::fs::File::open(&path).and_then(|file| {
            let kind = LinkNameSpaceType::Network;
            Ok(move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(kind),
            )?)
        });
        match entered {
            Ok(()) => Ok(act()),
            Err(error) => Err(RedirectionError::Namespace {
                path: path.display().to_string(),
                error,
            }),
        }
    })
}

fn in_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(act)
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn unshare() -> std::io::Result<()> {
    #[expect(
        deprecated,
        reason = "what is unsafe about it is CLONE_FILES, which is not asked for"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    Ok(())
}
