//! `weir check`: whether a cluster can have Weir, and whether the Weir that it has is in order.
//!
//! It asks by kubectl, with the rights and the context of whoever calls it, and changes nothing. What the answers mean
//! is decided by pure functions.

mod before;
mod installed;
mod kubectl;
mod network;
mod plugin;
mod pods;
mod services;

use kubectl::Kubectl;

use super::{Failure, paint, print};

/// Look whether a cluster can have Weir, or whether its Weir is in order; changes nothing
///
/// Without --pre: definitions, control plane, webhooks and their certificate, namespaces where no pod of the mesh can start,
/// the pods that have to start anew, because they were made by another version or with other settings, and Services that
/// ask for what the mesh does not do. With it and without: a network that hides from sidecars which Service a call is for.
/// Asks by kubectl.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir check --pre        before weir install
  weir check              after it, and after every change

Exit code 1 when anything is wrong; a warning is none.")]
pub(super) struct Arguments {
    /// What must hold before anything is installed
    #[arg(long)]
    pre: bool,

    /// Namespace of the control plane
    #[arg(short, long, value_name = "NAME", default_value = "weir-system")]
    namespace: String,

    /// The context of kubectl
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The program that asks
    #[arg(long, value_name = "PATH", default_value = "kubectl", env = "KUBECTL")]
    kubectl: String,
}

/// One line of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    state: State,
    what: String,
    /// What to do about it.
    help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    Warning,
    Wrong,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self {
            state: State::Fine,
            what: what.into(),
            help: String::new(),
        }
    }

    fn warning(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            what: what.into(),
            help: help.into(),
        }
    }

    fn wrong(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            state: State::Wrong,
            what: what.into(),
            help: help.into(),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let kubectl = Kubectl::new(&arguments.kubectl, arguments.context.as_deref());
    let version = kubectl
        .ask(&["version", "-o", "json"])
        .map_err(Failure::Unreachable)?;
    let mut findings = before::version(&version);
    // Where it is not there, or may not be read, there is nothing to say.
    let cilium = kubectl.list(&["configmap", "cilium-config", "-n", "kube-system"]);
    findings.extend(network::check(&cilium.unwrap_or_default()));
    let namespace = &arguments.namespace;
    let more = match arguments.pre {
        true => before::check(&kubectl, namespace),
        false => after(&kubectl, namespace),
    };
    findings.extend(more.map_err(Failure::Failed)?);
    for finding in &findings {
        print(&finding.shown())?;
    }
    match findings
        .iter()
        .filter(|finding| finding.state == State::Wrong)
        .count()
    {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 thing is wrong".to_owned())),
        several => Err(Failure::Failed(format!("{several} things are wrong"))),
    }
}

fn after(kubectl: &Kubectl, namespace: &str) -> Result<Vec<Finding>, String> {
    let mut findings = installed::definitions(&kubectl.list(&["crd"])?);
    let deployment = kubectl.list(&["deployment", "weir-control-plane", "-n", namespace])?;
    findings.extend(installed::control_plane(deployment.first(), namespace));
    let mut webhooks = Vec::new();
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingwebhookconfiguration",
    ] {
        webhooks.extend(kubectl.list(&[kind, "weir"])?);
    }
    findings.extend(installed::webhooks(&webhooks, time::now()));
    if let Some(deployment) = deployment.first() {
        let namespaces = kubectl.list(&["namespace"])?;
        let pods = kubectl.list(&["pod", "-A"])?;
        let plugins =
            kubectl.list(&["daemonset", "-A", "-l", "app.kubernetes.io/name=weir-cni"])?;
        findings.extend(plugin::check(deployment, &plugins, &pods));
        // A restart, which is what is said of their pods below, does not help there.
        if !pods::settings(deployment, namespace).cni {
            findings.extend(before::pod_security(&namespaces));
        }
        findings.extend(pods::check(&pods, &namespaces, deployment, namespace));
        let services = kubectl.list(&["service", "-A"])?;
        findings.extend(services::check(&services, &pods));
    }
    Ok(findings)
}

impl Finding {
    fn shown(&self) -> String {
        let (sign, code) = match self.state {
            State::Fine => ("ok     ", "32"),
            State::Warning => ("warning", "33"),
            State::Wrong => ("wrong  ", "31"),
        };
        let mut text = format!("{} {}\n", paint::to_stdout(sign, code), self.what);
        for line in self.help.lines() {
            text.push_str(&format!("          {line}\n"));
        }
        text
    }
}

mod time {
    /// Seconds since 1970, as certificates have it.
    pub(super) fn now() -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
    }
}
