//! The injector: a pod without a sidecar goes in, the same pod with one comes out.
//!
//! ```text
//!   skip?  ──▶ Skipped(why)       not ours, opted out, already done, or it cannot work there
//!   refuse? ─▶ Refusal(why)       it was asked for, and would not be what the user believes it is
//!   build  ──▶ Injected(pod)      weir-init, weir-proxy, then the user's own, untouched but for probes
//! ```
//!
//! A pod that has been here, and to which containers were added since, is completed.
//!
//! In CNI mode the node writes the pod's rules by what is in its status annotation, and weir-validate is in weir-init's
//! place: it tries them, and may do nothing else.
//!
//! A pure function, so that the admission webhook, `weir inject` and the lab do the same thing. It works on
//! [`Value`] and not on typed pods: fields of a newer Kubernetes survive it.

mod age;
mod asked;
mod completion;
mod knobs;
mod patch;
mod probes;
mod quantity;
mod removal;
mod settings;
mod warnings;

use serde_json::Value;

pub use self::age::{Made, made_by};
pub use self::asked::asks;
pub use self::removal::uninject;
pub use self::settings::{InjectorSettings, NamespaceContext};
pub use self::warnings::{misplaced, warnings};

use self::asked::{Asked, asked};
use self::knobs::Knobs;

pub const PROXY_CONTAINER: &str = "weir-proxy";
pub const INIT_CONTAINER: &str = "weir-init";
pub const VALIDATE_CONTAINER: &str = "weir-validate";
/// The volume with the pod's token and the mesh's trust bundle.
pub const IDENTITY_VOLUME: &str = "weir-identity";
pub const OUTBOUND_PORT: u16 = 14140;
pub const INBOUND_PORT: u16 = 14143;
pub const ADMIN_PORT: u16 = 14191;
const RESERVED_PORT: u16 = 14190;

const INJECT_LABEL: &str = "weir.dev/inject";
const STATUS_ANNOTATION: &str = "weir.dev/inject-status";
const HASH_ANNOTATION: &str = "weir.dev/config-hash";
const KNOB_PREFIX: &str = "config.weir.dev/";

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Injected(Value),
    Skipped(Skip),
}

/// Why a pod was left as it is. None of these is a mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    #[error("the pod is in the mesh already")]
    AlreadyInjected,
    #[error("neither the namespace nor the pod asks for it (label weir.dev/inject: enabled)")]
    NotSelected,
    #[error("label weir.dev/inject: {0} opts out")]
    OptedOut(String),
    #[error("label weir.dev/inject: {0} of its namespace opts out, whatever the pod's own says")]
    NamespaceOptedOut(String),
    #[error("namespace {0} is never in the mesh: it is the cluster's or the control plane's own")]
    System(String),
    #[error(
        "the pod shares the node's network (hostNetwork): its traffic cannot be told apart from the node's"
    )]
    HostNetwork,
    #[error("the pod has a sidecar of another mesh (container {0})")]
    OtherMesh(String),
    #[error("the pod runs on Windows")]
    Windows,
}

/// Why a pod that should be in the mesh must not start like this. Text for whoever wrote the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this is not a pod: {0}")]
    NotAPod(&'static str),
    #[error(
        "container {container} runs as user {uid}, which is the sidecar's: its traffic would pass by the mesh. \
         Set another securityContext.runAsUser"
    )]
    ProxyUser { container: String, uid: u64 },
    #[error(
        "container {container} declares port {port}, which the sidecar needs (14140, 14143, 14190 and 14191 are taken)"
    )]
    PortTaken { container: String, port: u64 },
    #[error("the pod has a {what} named {name}, a name that the injector needs")]
    NameTaken { what: &'static str, name: String },
    #[error(
        "label {INJECT_LABEL}: {0:?} says neither yes nor no. Write enabled, or \"false\" for a pod that is to stay outside"
    )]
    Label(String),
    #[error("annotation {KNOB_PREFIX}{knob}: expected {expected}, found {found:?}")]
    Annotation {
        knob: &'static str,
        expected: &'static str,
        found: String,
    },
    #[error(
        "annotation {KNOB_PREFIX}{knob}: expected text, found {found}. Write it in quotes: an API server takes nothing else"
    )]
    NotText { knob: &'static str, found: String },
    #[error(
        "annotations {KNOB_PREFIX}proxy-{resource}-request and -limit: {request} asked for and {limit} allowed. No request \
         may be above its limit"
    )]
    AboveLimit {
        resource: &'static str,
        request: String,
        limit: String,
    },
    #[error(
        "annotation {KNOB_PREFIX}native-sidecar: disabled, in a pod that ends by itself (restartPolicy {0}): \
         a classic sidecar would keep it from ever ending"
    )]
    NeverEnds(String),
    #[error(
        "annotation {KNOB_PREFIX}native-sidecar: disabled, in CNI mode and in a pod with init containers: their traffic \
         would go to a sidecar that does not run yet"
    )]
    InitWithoutSidecar,
    #[error(
        "annotation {KNOB_PREFIX}native-sidecar: disabled, in a pod whose init container {0} keeps running (restartPolicy: \
         Always) and has probes or hooks that the sidecar is to answer: a classic sidecar starts after all init containers, \
         so the pod never would. Take the annotation away: a cluster that knows such containers knows native sidecars"
    )]
    ProbedBeforeSidecar(String),
}

/// `pod` with a sidecar, or why not. `pod` may lack a name and a namespace (`generateName`, a template).
pub fn inject(
    pod: &Value,
    namespace: &NamespaceContext,
    settings: &InjectorSettings,
) -> Result<Outcome, Refusal> {
    if !pod.get("spec").is_some_and(Value::is_object) {
        return Err(Refusal::NotAPod("spec is missing"));
    }
    if age::may_be_completed(pod, namespace, settings) {
        let knobs = Knobs::resolve(pod, namespace, settings)?;
        uninject(pod).map_or(Ok(()), |bare| refuse(&bare, &knobs))?;
        let completed = completion::complete(pod, &knobs);
        if completed != *pod {
            return Ok(Outcome::Injected(completed));
        }
    }
    if let Some(skip) = skip(pod, namespace, settings) {
        return Ok(Outcome::Skipped(skip));
    }
    if let Asked::Unclear(label) = asked(pod, namespace, settings) {
        return Err(Refusal::Label(label));
    }
    let knobs = Knobs::resolve(pod, namespace, settings)?;
    refuse(pod, &knobs)?;
    Ok(Outcome::Injected(patch::apply(pod, &knobs)))
}

/// Whether the API server would not ask about this pod if its namespace were as `namespace` says. When it has asked all the
/// same it knows more of the namespace than whoever is asked.
pub fn is_unasked(pod: &Value, namespace: &NamespaceContext, settings: &InjectorSettings) -> bool {
    match skip(pod, namespace, settings) {
        Some(why) => matches!(why, Skip::NotSelected | Skip::NamespaceOptedOut(_)),
        None => asked::is_unclear(namespace),
    }
}

fn skip(pod: &Value, namespace: &NamespaceContext, settings: &InjectorSettings) -> Option<Skip> {
    if sidecar(pod).is_some() {
        return Some(Skip::AlreadyInjected);
    }
    match asked(pod, namespace, settings) {
        Asked::No(why) => return Some(why),
        // What nobody understands is no reason to leave a pod outside: it is refused.
        Asked::Yes | Asked::Unclear(_) => {}
    }
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Some(Skip::HostNetwork);
    }
    if runs_on_windows(pod) {
        return Some(Skip::Windows);
    }
    let other = all_containers(pod)
        .map(name)
        .find(|name| matches!(*name, "linkerd-proxy" | "istio-proxy"));
    other.map(|name| Skip::OtherMesh(name.to_owned()))
}

/// `spec.os` may be left out; a pod without it is led to its nodes by the label that each kubelet gives its own.
fn runs_on_windows(pod: &Value) -> bool {
    let is_said = ["/spec/os/name", "/spec/nodeSelector/kubernetes.io~1os"]
        .into_iter()
        .any(|said| pod.pointer(said).and_then(Value::as_str) == Some("windows"));
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let mut terms = items(pod.pointer(terms)).peekable();
    // Any of the terms is enough for a node, so each must say it.
    is_said || terms.peek().is_some() && terms.all(is_for_windows)
}

fn is_for_windows(term: &Value) -> bool {
    items(term.get("matchExpressions")).any(|wanted| {
        wanted["key"] == "kubernetes.io/os"
            && wanted["operator"] == "In"
            && wanted["values"] == serde_json::json!(["windows"])
    })
}

fn refuse(pod: &Value, knobs: &Knobs) -> Result<(), Refusal> {
    let pod_user = pod
        .pointer("/spec/securityContext/runAsUser")
        .and_then(Value::as_u64);
    for container in all_containers(pod) {
        let own_user = container
            .pointer("/securityContext/runAsUser")
            .and_then(Value::as_u64);
        if let Some(uid) = own_user
            .or(pod_user)
            .filter(|uid| *uid == u64::from(knobs.proxy_uid))
        {
            return Err(Refusal::ProxyUser {
                container: name(container).to_owned(),
                uid,
            });
        }
        let taken = [OUTBOUND_PORT, INBOUND_PORT, RESERVED_PORT, ADMIN_PORT].map(u64::from);
        if let Some(port) = ports(container).find(|port| taken.contains(port)) {
            return Err(Refusal::PortTaken {
                container: name(container).to_owned(),
                port,
            });
        }
        if [INIT_CONTAINER, VALIDATE_CONTAINER, PROXY_CONTAINER].contains(&name(container)) {
            return Err(Refusal::NameTaken {
                what: "container",
                name: name(container).to_owned(),
            });
        }
    }
    if items(pod.pointer("/spec/volumes")).any(|volume| name(volume) == IDENTITY_VOLUME) {
        return Err(Refusal::NameTaken {
            what: "volume",
            name: IDENTITY_VOLUME.to_owned(),
        });
    }
    let has_inits = items(pod.pointer("/spec/initContainers")).next().is_some();
    if knobs.cni && !knobs.native_sidecar && has_inits {
        return Err(Refusal::InitWithoutSidecar);
    }
    if let Some(container) = probed_before_sidecar(pod, knobs) {
        return Err(Refusal::ProbedBeforeSidecar(name(container).to_owned()));
    }
    match pod.pointer("/spec/restartPolicy").and_then(Value::as_str) {
        Some(policy @ ("Never" | "OnFailure")) if !knobs.native_sidecar => {
            Err(Refusal::NeverEnds(policy.to_owned()))
        }
        _ => Ok(()),
    }
}

/// The next container waits for it to have started, and that, for a sidecar behind it.
fn probed_before_sidecar<'a>(pod: &'a Value, knobs: &Knobs) -> Option<&'a Value> {
    if knobs.native_sidecar || !knobs.rewrite_probes {
        return None;
    }
    items(pod.pointer("/spec/initContainers"))
        .filter(|container| container["restartPolicy"] == "Always")
        .find(|container| probes::are_rewritten(container))
}

/// The one that an injector put in: a container of a user's own may have its name, and is not to be taken for it, or out.
/// Annotations get lost where pods are copied, and the environment stays.
fn sidecar(pod: &Value) -> Option<&Value> {
    let proxy = all_containers(pod).find(|container| name(container) == PROXY_CONTAINER)?;
    let annotations = pod.pointer("/metadata/annotations");
    let is_marked = annotations.is_some_and(|them| them.get(STATUS_ANNOTATION).is_some());
    let is_told = items(proxy.get("env")).any(|variable| name(variable).starts_with("WEIR_"));
    (is_marked || is_told).then_some(proxy)
}

/// Init containers first, as they start.
fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(pod.pointer("/spec/initContainers")).chain(items(pod.pointer("/spec/containers")))
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn name(object: &Value) -> &str {
    object
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The TCP ports a container declares.
fn ports(container: &Value) -> impl Iterator<Item = u64> {
    items(container.get("ports"))
        .filter(|port| {
            port.get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP")
                == "TCP"
        })
        .filter_map(|port| port.get("containerPort").and_then(Value::as_u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn injected(label: &str, spec: Value) -> Result<Outcome, Refusal> {
        let labels = [(INJECT_LABEL.to_owned(), "enabled".to_owned())];
        let namespace = NamespaceContext {
            labels: labels.into(),
            ..NamespaceContext::default()
        };
        let annotations = json!({ "config.weir.dev/native-sidecar": "disabled" });
        let pod = json!({
            "metadata": { "labels": { INJECT_LABEL: label }, "annotations": annotations },
            "spec": spec,
        });
        inject(&pod, &namespace, &InjectorSettings::default())
    }

    #[test]
    fn a_pod_that_would_not_be_in_the_mesh_is_refused_and_told_why() {
        let app = json!([{ "name": "app" }]);
        let sidecars_user = json!([{ "name": "app", "securityContext": { "runAsUser": 14102 } }]);
        let fine = injected("enabled", json!({ "containers": app }));
        assert!(matches!(fine, Ok(Outcome::Injected(_))), "{fine:?}");
        let refused = injected("enabled", json!({ "containers": sidecars_user }));
        let refused = refused
            .expect_err("it would pass by its sidecar")
            .to_string();
        assert!(
            refused.contains("container app runs as user 14102"),
            "{refused}"
        );
        let job = json!({ "containers": app, "restartPolicy": "Never" });
        let refused = injected("enabled", job).expect_err("it would never end");
        assert_eq!(refused, Refusal::NeverEnds("Never".to_owned()));
    }

    /// It was said to be in the mesh, and `weir uninject` deleted it, and the volume.
    #[test]
    fn a_users_own_container_with_the_name_of_the_sidecar_is_not_taken_for_it() {
        let spec = |env: Value| {
            json!({
                "containers": [{ "name": "app" }, { "name": PROXY_CONTAINER, "image": "own", "env": env }],
                "volumes": [{ "name": IDENTITY_VOLUME, "emptyDir": {} }],
            })
        };
        let taken = Refusal::NameTaken {
            what: "container",
            name: PROXY_CONTAINER.to_owned(),
        };
        let own = spec(json!([{ "name": "PORT", "value": "80" }]));
        assert_eq!(injected("enabled", own.clone()), Err(taken));
        assert_eq!(uninject(&json!({ "spec": own })), None);
        let marked = json!({
            "metadata": { "annotations": { STATUS_ANNOTATION: "{}" } },
            "spec": spec(json!([])),
        });
        assert!(uninject(&marked).is_some());
        let told = spec(json!([{ "name": "WEIR_POD_NAME" }]));
        let skipped = Ok(Outcome::Skipped(Skip::AlreadyInjected));
        assert_eq!(injected("enabled", told.clone()), skipped);
        assert!(uninject(&json!({ "spec": told })).is_some());
    }

    #[test]
    fn who_said_no_is_left_alone() {
        let skipped = injected("disabled", json!({ "containers": [{ "name": "app" }] }));
        let no = Outcome::Skipped(Skip::OptedOut("disabled".to_owned()));
        assert_eq!(skipped, Ok(no));
    }

    /// The API server asks about none of these, so when it has asked the namespace is not any more what it was.
    #[test]
    fn a_pod_that_nobody_would_ask_about_is_told_from_one_that_says_no_itself() {
        let unasked = |label: Option<&str>, pod: Value| {
            let labels = label.map(|label| (INJECT_LABEL.to_owned(), label.to_owned()));
            let namespace = NamespaceContext {
                name: "shop".to_owned(),
                labels: labels.into_iter().collect(),
                ..NamespaceContext::default()
            };
            is_unasked(&pod, &namespace, &InjectorSettings::default())
        };
        let pod = |label: Value, container: &str| json!({ "metadata": { "labels": label }, "spec": { "containers": [{ "name": container }] } });
        let plain = pod(json!({}), "app");
        for namespace in [None, Some("disabled"), Some("false"), Some("Enabled")] {
            assert!(unasked(namespace, plain.clone()), "{namespace:?}");
            let mut injected = pod(json!({}), PROXY_CONTAINER);
            injected["spec"]["containers"][0]["env"] = json!([{ "name": "WEIR_POD_NAME" }]);
            assert!(!unasked(namespace, injected), "{namespace:?}: it is done");
        }
        assert!(!unasked(Some("enabled"), plain));
        let says = |label: &str| pod(json!({ INJECT_LABEL: label }), "app");
        for label in ["enabled", "disabled", "Yes"] {
            assert!(!unasked(None, says(label)), "{label}: it counts there");
        }
        assert!(!unasked(Some("enabled"), says("disabled")));
        assert!(unasked(Some("disabled"), says("enabled")));
    }

    /// It was taken for a no, so a pod ran outside of the mesh and nobody was told.
    #[test]
    fn a_label_that_nobody_understands_is_refused() {
        for label in ["Enabled", "yes", ""] {
            let refused = injected(label, json!({ "containers": [{ "name": "app" }] }));
            assert_eq!(refused, Err(Refusal::Label(label.to_owned())));
        }
    }
}
