//! What the injector is told by the mesh's operator, and what it must know of the pod's namespace.

use std::collections::BTreeMap;

use serde_json::Value;

/// The operator's side. An annotation `config.weir.dev/…` on the pod or its namespace overrides some of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectorSettings {
    /// Image of both containers.
    pub proxy_image: String,
    /// host:port. Empty: the sidecar runs without a control plane.
    pub control_plane_addr: String,
    pub trust_domain: String,
    /// User and group of the sidecar; the redirection rules let this user's traffic pass.
    pub proxy_uid: u32,
    /// Audience of the projected token: the control plane accepts no other.
    pub token_audience: String,
    /// Upper bound of the drain; the pod's grace period may make it shorter.
    pub drain_seconds: u32,
    pub log_level: String,
    /// The node writes the pods' rules: no container of theirs needs NET_ADMIN.
    pub cni: bool,
}

impl InjectorSettings {
    /// Of whose pods no webhook is asked, because the cluster must start without Weir, and Weir without itself.
    pub(super) fn stays_outside(&self, namespace: &str) -> bool {
        namespace == "kube-system" || Some(namespace) == self.own_namespace()
    }

    /// The control plane's, by its name in the cluster: `weir-control-plane.weir-system.svc:14180`.
    fn own_namespace(&self) -> Option<&str> {
        let (host, _) = self.control_plane_addr.rsplit_once(':')?;
        let mut labels = host.split('.').skip(1);
        let namespace = labels.next()?;
        (labels.next() == Some("svc")).then_some(namespace)
    }
}

impl Default for InjectorSettings {
    fn default() -> Self {
        Self {
            proxy_image: concat!("weir-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            control_plane_addr: "weir-control-plane.weir-system.svc:14180".to_owned(),
            trust_domain: "weir.local".to_owned(),
            proxy_uid: 14102,
            token_audience: "weir.dev".to_owned(),
            drain_seconds: 30,
            log_level: "info".to_owned(),
            cni: false,
        }
    }
}

/// The pod's namespace, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceContext {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl NamespaceContext {
    /// A namespace that asks for injection and says nothing else.
    pub fn enabled(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: BTreeMap::from([("weir.dev/inject".to_owned(), "enabled".to_owned())]),
            annotations: BTreeMap::new(),
        }
    }

    /// From a Namespace object.
    pub fn from_object(namespace: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let map = |pointer: &str| {
            let entries = namespace
                .pointer(pointer)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            entries
                .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
                .collect()
        };
        Self {
            name: namespace
                .pointer("/metadata/name")
                .and_then(text)
                .unwrap_or_default(),
            labels: map("/metadata/labels"),
            annotations: map("/metadata/annotations"),
        }
    }
}
