//! The plugin: one question of a container runtime, one answer.
//!
//! | command | what it does |
//! |---|---|
//! | ADD | a pod of ours gets its rules; whatever the pod, what the chain has made so far is passed on as it came |
//! | CHECK | the rules of a pod of ours are still what they were |
//! | DEL, GC | nothing: rules end with the pod's network |
//! | STATUS | whether it could answer |
//! | VERSION | which versions it speaks |
//!
//! It fails closed: a pod of which nobody can say whether it is ours does not start, and the kubelet asks again. Only
//! pods of the namespaces that are never ours start whatever happens, or a cluster could not come up.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::failure::{Code, Failure};
use super::network::{Network, VERSIONS};
use super::pod::{self, Pod};
use crate::redirect::{Redirection, RedirectionError};

/// Longer than everything in it may take together. A runtime waits longer still.
const TIME_MAX: Duration = Duration::from_secs(20);
const STDIN_BYTES_MAX: u64 = 1024 * 1024;
/// In whose words an answer is when nothing could be read of the question.
const OWN_VERSION: &str = "1.1.0";
/// Of a pod that the kubelet runs on its own: its uid is another in the API.
const MIRROR: &str = "kubernetes.io/config.mirror";

struct Answered {
    version: &'static str,
    outcome: Result<Option<Value>, Failure>,
}

pub(super) fn run() -> ExitCode {
    let (sender, answers) = mpsc::channel();
    // Whatever hangs, stdin included, hangs in there.
    std::thread::spawn(move || {
        // Nobody listens any more when it has taken too long.
        let _ = sender.send(answer(
            &|name| std::env::var(name).ok(),
            std::io::stdin().lock(),
        ));
    });
    let answered = answers.recv_timeout(TIME_MAX).unwrap_or_else(|_| Answered {
        version: OWN_VERSION,
        outcome: Err(Failure::new(
            Code::TryAgain,
            format!("no end within {} s", TIME_MAX.as_secs()),
        )),
    });
    let (text, code) = match &answered.outcome {
        Ok(None) => (String::new(), ExitCode::SUCCESS),
        Ok(Some(result)) => (result.to_string(), ExitCode::SUCCESS),
        Err(failure) => (
            failure.json(answered.version).to_string(),
            ExitCode::FAILURE,
        ),
    };
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

fn answer(variable: Variables, stdin: impl Read) -> Answered {
    let mut version = OWN_VERSION;
    let outcome = handle(variable, stdin, &mut version);
    Answered { version, outcome }
}

fn handle(
    variable: Variables,
    stdin: impl Read,
    version: &mut &'static str,
) -> Result<Option<Value>, Failure> {
    let command = variable("CNI_COMMAND").ok_or_else(|| {
        Failure::new(Code::BadEnvironment, "CNI_COMMAND is not set")
            .with("a container runtime calls this; for people there is weir-cni --help")
    })?;
    let mut text = Vec::new();
    let read = stdin.take(STDIN_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::new(Code::Io, format!("stdin: {error}")))?;
    if text.len() as u64 > STDIN_BYTES_MAX {
        let message = format!("the network's configuration is longer than {STDIN_BYTES_MAX} bytes");
        return Err(Failure::new(Code::Unreadable, message));
    }
    if command == "VERSION" {
        return Ok(Some(
            json!({ "cniVersion": OWN_VERSION, "supportedVersions": VERSIONS }),
        ));
    }
    let network = Network::read(&text)?;
    *version = network.version;
    let since = |since: &str| match network.has(since) {
        true => Ok(()),
        false => Err(Failure::new(
            Code::IncompatibleVersion,
            format!("CNI {} has no {command}", network.version),
        )),
    };
    match command.as_str() {
        "ADD" => add(variable, network).map(Some),
        "CHECK" => since("0.4.0")
            .and_then(|()| check(variable, &network))
            .map(|()| None),
        "DEL" => Ok(None),
        "GC" => since("1.1.0").map(|()| None),
        "STATUS" => since("1.1.0")
            .and_then(|()| status(&network))
            .map(|()| None),
        other => Err(Failure::new(
            Code::BadEnvironment,
            format!("CNI_COMMAND: {other} is not known"),
        )),
    }
}

fn add(variable: Variables, network: Network) -> Result<Value, Failure> {
    let namespace = namespace(variable, &network)?;
    if let Some(redirection) = wanted(variable, &network)? {
        redirection.install(&namespace).map_err(not_redirected)?;
    }
    network.previous.ok_or_else(unchained)
}

fn check(variable: Variables, network: &Network) -> Result<(), Failure> {
    let namespace = namespace(variable, network)?;
    match wanted(variable, network)? {
        None => Ok(()),
        Some(redirection) => redirection.check(&namespace).map_err(not_redirected),
    }
}

fn status(network: &Network) -> Result<(), Failure> {
    let Some(path) = &network.kubeconfig else {
        return Ok(());
    };
    let read = Api::read(path).map(drop);
    read.map_err(|error| Failure::new(Code::NotAvailable, error.to_string()).with(INSTALLER))
}

const INSTALLER: &str =
    "the DaemonSet weir-cni writes it and keeps it fresh: is it running on this node?";

/// The path of the pod's network, once everything is there that a runtime must say.
fn namespace(variable: Variables, network: &Network) -> Result<PathBuf, Failure> {
    let needed = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]
        .map(|name| (name, variable(name).unwrap_or_default()));
    if let Some((name, _)) = needed.iter().find(|(_, value)| value.is_empty()) {
        return Err(Failure::new(
            Code::BadEnvironment,
            format!("{name} is not set"),
        ));
    }
    match network.previous {
        None => Err(unchained()),
        Some(_) => Ok(PathBuf::from(&needed[1].1)),
    }
}

fn unchained() -> Failure {
    Failure::new(Code::BadConfiguration, "there is no prevResult")
        .with("weir-cni stands last in a chain: it makes no network itself")
}

fn not_redirected(error: RedirectionError) -> Failure {
    let code = match error {
        RedirectionError::Namespace { .. } => Code::Io,
        _ => Code::Redirection,
    };
    Failure::new(code, error.to_string())
}

/// The redirection of the pod that is meant, if it is one of ours.
fn wanted(variable: Variables, network: &Network) -> Result<Option<Redirection>, Failure> {
    let Some(meant) = Pod::meant(&variable("CNI_ARGS").unwrap_or_default())? else {
        return Ok(None);
    };
    if network.is_excluded(&meant.namespace) {
        return Ok(None);
    }
    match &network.annotations {
        Some(annotations) => pod::redirection(annotations),
        None => pod::redirection(&asked(&meant, network)?),
    }
}

/// The pod's annotations, from the API server.
fn asked(
    meant: &Pod,
    network: &Network,
) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let path = network.kubeconfig.as_deref().ok_or_else(|| {
        Failure::new(
            Code::BadConfiguration,
            "neither the runtime nor a kubeconfig tells of the pod",
        )
        .with("weir-cni install writes the entry with both")
    })?;
    let later = |error: ApiError| {
        let message = format!(
            "cannot tell whether pod {}/{} is in the mesh: {error}",
            meant.namespace, meant.name
        );
        let details = match error {
            ApiError::Kubeconfig { .. } | ApiError::Denied { .. } => INSTALLER,
            _ => "it starts as soon as the API server can be asked",
        };
        Failure::new(Code::TryAgain, message).with(details)
    };
    let pod = Api::read(path)
        .and_then(|api| api.pod(&meant.namespace, &meant.name))
        .map_err(later)?;
    let metadata = &pod["metadata"];
    let annotations = metadata["annotations"].as_object().into_iter().flatten();
    let annotations: std::collections::BTreeMap<_, _> = annotations
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let is_same = meant.uid.as_ref().is_none_or(|uid| {
        metadata["uid"].as_str() == Some(uid) || annotations.get(MIRROR) == Some(uid)
    });
    match is_same {
        true => Ok(annotations),
        // Its successor has its name already, and what that one wants is no answer.
        false => Err(Failure::new(
            Code::TryAgain,
            format!("pod {}/{} is another by now", meant.namespace, meant.name),
        )),
    }
}

#[cfg(test)]
mod tests;
