//! `weir inject`: the webhook's own code, on files; and `weir uninject`, the way back.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_config::yaml_text;

use super::{Failure, print};
use crate::injector::{
    InjectorSettings, NamespaceContext, Outcome, inject, misplaced, uninject, warnings,
};
use crate::source::FILE_BYTES_MAX;
use crate::spiffe;

/// Add the sidecar to every pod in a file; needs no control plane
///
/// Reads Pods and whatever makes pods (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob), alone or in a
/// List of any kind, and writes everything in the file but comments, with the sidecar where it belongs. A pod that opts out, is in the mesh
/// already, or cannot be (hostNetwork) is left as it is; stderr says which and why. Nothing is written when a pod
/// is refused.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir inject -f deployment.yaml | kubectl apply -f -
  kubectl get deploy -o yaml | weir inject -f - | kubectl apply -f -")]
pub(super) struct Arguments {
    /// A file, or - for stdin
    #[arg(short, long = "filename", value_name = "PATH")]
    filename: PathBuf,

    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value_t = InjectorSettings::default().proxy_image)]
    proxy_image: String,

    /// Where the sidecar finds its control plane, as host:port
    #[arg(long, value_name = "ADDR", default_value_t = InjectorSettings::default().control_plane_addr)]
    control_plane_addr: String,

    #[arg(long, value_name = "NAME", default_value_t = InjectorSettings::default().trust_domain,
          value_parser = trust_domain)]
    trust_domain: String,

    /// For nodes with the CNI plugin (weir install --cni): no container gets NET_ADMIN
    #[arg(long)]
    cni: bool,
}

/// Take the sidecar out of every pod in a file; needs no control plane
///
/// The way back from `weir inject`, and from what the webhook did to a pod. A pod without a sidecar is left as it is;
/// stderr says which. In a namespace that asks for sidecars the webhook puts it in again: label the pod
/// weir.dev/inject: "false", or take the label off the namespace.
#[derive(clap::Args)]
#[command(after_help = "Example:
  kubectl get deploy cart -o yaml | weir uninject -f - | kubectl apply -f -")]
pub(super) struct Removal {
    /// A file, or - for stdin
    #[arg(short, long = "filename", value_name = "PATH")]
    filename: PathBuf,
}

pub(super) fn remove(arguments: &Removal) -> Result<(), Failure> {
    let mut documents = documents(&arguments.filename)?;
    let mut without_pod = 0;
    for document in &mut documents {
        without_pod += each_pod(document, &mut |pod, _, name| match uninject(pod) {
            Some(bare) => {
                *pod = bare;
                eprintln!("{name}: taken out");
            }
            None => eprintln!("{name}: left as it is: there is no sidecar in it"),
        });
    }
    match without_pod {
        0 => print(&yaml(&documents)?),
        _ => Err(Failure::Failed("nothing is written".to_owned())),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut documents = documents(&arguments.filename)?;
    let settings = InjectorSettings {
        proxy_image: arguments.proxy_image.clone(),
        control_plane_addr: arguments.control_plane_addr.clone(),
        trust_domain: arguments.trust_domain.clone(),
        cni: arguments.cni,
        ..InjectorSettings::default()
    };
    let mut injection = Injection {
        namespaces: namespaces(&documents),
        settings,
        refused: 0,
    };
    for document in &mut documents {
        let without_pod = each_pod(document, &mut |pod, namespace, name| {
            injection.pod(pod, namespace, name);
        });
        injection.refused += without_pod;
    }
    match injection.refused {
        0 => print(&yaml(&documents)?),
        1 => Err(Failure::Failed(
            "1 pod was refused: nothing is written".to_owned(),
        )),
        refused => Err(Failure::Failed(format!(
            "{refused} pods were refused: nothing is written"
        ))),
    }
}

struct Injection {
    namespaces: HashMap<String, NamespaceContext>,
    settings: InjectorSettings,
    refused: usize,
}

impl Injection {
    fn pod(&mut self, pod: &mut Value, namespace: &str, name: &str) {
        // Whoever runs this asks for injection, unless the namespace says otherwise.
        let asked = NamespaceContext::enabled(namespace);
        let namespace = self.namespaces.get(namespace).unwrap_or(&asked);
        for warning in warnings(pod, namespace) {
            eprintln!("warning: {name}: {warning}");
        }
        match inject(pod, namespace, &self.settings) {
            Ok(Outcome::Injected(injected)) => {
                *pod = injected;
                eprintln!("{name}: injected");
            }
            Ok(Outcome::Skipped(why)) => eprintln!("{name}: left as it is: {why}"),
            Err(refusal) => {
                self.refused += 1;
                eprintln!("{name}: refused: {refusal}");
            }
        }
    }
}

/// Calls `visit` with each pod of an object, its namespace, and a name for people. Returns how many should have a pod and have
/// none.
fn each_pod(object: &mut Value, visit: &mut impl FnMut(&mut Value, &str, &str)) -> usize {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(of) = kind.strip_suffix("List") {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        let items = items.into_iter().flatten();
        return items
            .map(|item| match item.get("kind") {
                // As the API server writes a DeploymentList: what its items are is said once.
                None if !of.is_empty() => pod_of(item, of, visit),
                _ => each_pod(item, visit),
            })
            .sum();
    }
    pod_of(object, &kind, visit)
}

fn pod_of(object: &mut Value, kind: &str, visit: &mut impl FnMut(&mut Value, &str, &str)) -> usize {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or("default").to_owned();
    let name = text("/metadata/name")
        .or(text("/metadata/generateName"))
        .unwrap_or("(no name)");
    let name = format!("{} {namespace}/{name}", kind.to_lowercase());
    let Some(pointer) = template(kind) else {
        if object.pointer("/spec/template/spec/containers").is_some() {
            eprintln!(
                "{name}: left as it is: weir does not know this kind. The webhook sees its pods when they are made"
            );
        }
        return 0;
    };
    let place = pointer.trim_start_matches('/').replace('/', ".");
    if !place.is_empty() {
        for warning in misplaced(object, kind, &place) {
            eprintln!("warning: {name}: {warning}");
        }
    }
    match object.pointer_mut(pointer).filter(|pod| pod.is_object()) {
        Some(pod) => {
            visit(pod, &namespace, &name);
            0
        }
        None => {
            eprintln!("{name}: refused: there is no pod at {place}");
            1
        }
    }
}

/// Where the pod is in an object of this kind.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Of the file itself, in Lists too. One without a label is taken as enabled: that is what was asked for.
fn namespaces(objects: &[Value]) -> HashMap<String, NamespaceContext> {
    let mut known = HashMap::new();
    for object in objects {
        match object["kind"].as_str() {
            Some(kind) if kind.ends_with("List") => {
                let items = object["items"].as_array();
                known.extend(namespaces(items.map_or(&[], Vec::as_slice)));
            }
            Some("Namespace") => {
                let mut context = NamespaceContext::from_object(object);
                context
                    .labels
                    .entry("weir.dev/inject".to_owned())
                    .or_insert_with(|| "enabled".to_owned());
                known.insert(context.name.clone(), context);
            }
            _ => {}
        }
    }
    known
}

fn documents(path: &Path) -> Result<Vec<Value>, Failure> {
    let bytes = read(path)?;
    let text = yaml_text(&path.to_string_lossy(), &bytes).map_err(|mistakes| {
        for mistake in mistakes {
            eprintln!("{mistake}");
        }
        Failure::Failed(format!(
            "{} cannot be read: nothing is written",
            path.display()
        ))
    })?;
    let options = serde_saphyr::options! {
        // As kubectl reads it: `defaultMode: 0400` is 256.
        legacy_octal_numbers: true,
        // The length of the file bounds these.
        budget: serde_saphyr::budget! {
            max_documents: usize::MAX,
            max_nodes: usize::MAX,
            max_events: usize::MAX,
        },
    };
    let parsed: Result<Vec<Value>, _> = serde_saphyr::from_multiple_with_options(text, options);
    let mut documents =
        parsed.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    documents.retain(|document| !document.is_null());
    let wrong = match documents.iter().find(|document| !document.is_object()) {
        Some(_) => "expected objects of Kubernetes only, maps with apiVersion and kind",
        None if documents.is_empty() => "there is nothing in it: expected a pod or what makes pods",
        None => return Ok(documents),
    };
    Err(Failure::Failed(format!("{}: {wrong}", path.display())))
}

fn yaml(documents: &[Value]) -> Result<String, Failure> {
    serde_saphyr::to_string_multiple(documents).map_err(|error| Failure::Failed(error.to_string()))
}

/// One byte more than is taken, so that too many are noticed.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || {
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            std::io::stdin()
                .take(FILE_BYTES_MAX + 1)
                .read_to_end(&mut bytes)?;
        } else {
            let file = std::fs::File::open(path)?;
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display())))
}

fn trust_domain(text: &str) -> Result<String, String> {
    match spiffe::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a DNS name in lower case, such as weir.local".to_owned()),
    }
}
