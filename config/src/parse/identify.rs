//! What a document is, before its content is looked at.

use std::ops::Range;

use crate::resource::{API_VERSION, GATEWAY_GROUP, Kind, ObjectName, ResourceRef};
use crate::source::Finding;
use crate::suggest;
use crate::yaml::decode::{is_not_yet, listed, not_yet};
use crate::yaml::tree::{NodeId, Tree, Value};

use super::is_null;

/// Ours by group, whichever version.
const GROUP: &str = "weir.dev/";
const SERVICE: &str = "Service";
const PARENT_FIELDS: [&str; 6] = ["group", "kind", "namespace", "name", "sectionName", "port"];
/// Kinds of the Gateway API whose names are near those of ours.
const OTHER_ROUTES: [&str; 3] = ["TCPRoute", "TLSRoute", "UDPRoute"];

pub(super) enum Identity {
    Read(Kind),
    /// Somebody else's: Deployment, Namespace, …
    Ignored,
    /// `kind: List`, as `kubectl get -o yaml` prints several resources.
    List(NodeId),
    Unclear(Finding),
}

pub(super) fn identify(tree: &Tree, root: NodeId) -> Identity {
    if !matches!(tree.node(root).value, Value::Map(_)) {
        let message = "expected a resource: a map with `apiVersion`, `kind`, `metadata` and `spec`";
        return Identity::Unclear(Finding::error(tree.node(root).span.clone(), message));
    }
    let text = |field| {
        tree.child(root, field)
            .and_then(|node| Some((node, tree.text(node)?)))
    };
    let (Some((version_at, version)), Some((kind_at, kind))) = (text("apiVersion"), text("kind"))
    else {
        return Identity::Unclear(incomplete(tree, root));
    };
    if kind == "List" && version == "v1" {
        return tree
            .child(root, "items")
            .map_or(Identity::Ignored, Identity::List);
    }
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    match known {
        Some(Kind::HttpRoute | Kind::GrpcRoute)
            if is_of_the_gateway_api(version) && is_elsewhere(tree, root) =>
        {
            Identity::Ignored
        }
        Some(known)
            if known.api_version() == version || known.newer_api_version() == Some(version) =>
        {
            Identity::Read(known)
        }
        Some(known)
            if known.is_gateway()
                && (is_of_the_gateway_api(version) || version.starts_with(GROUP)) =>
        {
            Identity::Unclear(other_version(tree, version_at, version, known))
        }
        Some(ours) if ours.is_ours() => Identity::Unclear(
            Finding::error(
                tree.caret(version_at),
                format!("{ours} belongs to `{API_VERSION}`, found `{version}`"),
            )
            .path("apiVersion")
            .help(format!("write apiVersion: {API_VERSION}")),
        ),
        _ if version.starts_with(GROUP) => Identity::Unclear(unknown_kind(tree, kind_at, kind)),
        None if is_of_the_gateway_api(version) => misspelt(tree, root, kind_at, kind),
        _ => Identity::Ignored,
    }
}

/// By its group, though it be misspelt.
fn is_of_the_gateway_api(version: &str) -> bool {
    let group = version.split_once('/').map_or(version, |(group, _)| group);
    suggest::nearest(group, &[GATEWAY_GROUP]).is_some()
}

/// Whether a route is clearly no Service's: that of Gateways is somebody else's, whatever it says. A slip where the Service
/// is named must not make it look like one of these.
fn is_elsewhere(tree: &Tree, root: NodeId) -> bool {
    let Some(spec) = tree.child(root, "spec") else {
        return !has_key_like(tree, root, "spec");
    };
    match tree.child(spec, "parentRefs") {
        None => !has_key_like(tree, spec, "parentRefs"),
        Some(parents) if is_null(tree, parents) => true,
        Some(parents) => match &tree.node(parents).value {
            Value::List(parents) => parents.iter().all(|parent| is_no_service(tree, *parent)),
            Value::Scalar { .. } | Value::Map(_) => false,
        },
    }
}

/// Without a kind it is a Gateway, unless the kind is in a field that is not called so.
fn is_no_service(tree: &Tree, parent: NodeId) -> bool {
    match tree.child(parent, "kind") {
        Some(kind) => tree
            .text(kind)
            .is_some_and(|kind| suggest::nearest(kind, &[SERVICE]).is_none()),
        None => match &tree.node(parent).value {
            Value::Map(fields) => fields.iter().all(|field| {
                tree.key(*field)
                    .is_some_and(|key| PARENT_FIELDS.contains(&key))
            }),
            Value::Scalar { .. } | Value::List(_) => false,
        },
    }
}

fn has_key_like(tree: &Tree, map: NodeId, name: &str) -> bool {
    let mut keys = (tree.node(map).value.children().iter()).filter_map(|child| tree.key(*child));
    keys.any(|key| suggest::nearest(key, &[name]).is_some())
}

/// A kind of the Gateway API that we do not know: one that has nearly the name of one that we do is a slip.
fn misspelt(tree: &Tree, root: NodeId, at: NodeId, kind: &str) -> Identity {
    let ours = Kind::ALL.into_iter().filter(|kind| kind.is_gateway());
    let ours: Vec<&str> = ours.map(Kind::name).collect();
    let named: Vec<&str> = ours.iter().copied().chain(OTHER_ROUTES).collect();
    let meant = suggest::nearest(kind, &named).filter(|meant| ours.contains(meant));
    let is_route = meant != Some(Kind::ReferenceGrant.name());
    match meant {
        Some(meant) if !(is_route && is_elsewhere(tree, root)) => Identity::Unclear(
            Finding::error(
                tree.caret(at),
                format!("expected {}, found {kind:?}", listed(&ours, "or")),
            )
            .path("kind")
            .help(format!("did you mean `{meant}`?")),
        ),
        _ => Identity::Ignored,
    }
}

/// Of the Gateway API those versions are read that say all we read; the API server has them.
fn other_version(tree: &Tree, at: NodeId, version: &str, known: Kind) -> Finding {
    let wanted = known.api_version();
    let message = format!("{known} is read as `{wanted}`, found `{version}`");
    Finding::error(tree.caret(at), message)
        .path("apiVersion")
        .help(format!("write apiVersion: {wanted}"))
}

fn incomplete(tree: &Tree, root: NodeId) -> Finding {
    let missing: Vec<&str> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| {
            tree.child(root, field)
                .is_none_or(|node| tree.text(node).is_none())
        })
        .collect();
    let message = format!("this document does not say its {}", listed(&missing, "and"));
    let children = tree.node(root).value.children();
    for child in children {
        let Some(key) = tree.key(*child) else {
            continue;
        };
        if key.starts_with("//") {
            return Finding::error(tree.key_caret(*child), "a comment begins with `#` in YAML")
                .help("write # in place of //, or take the comment out");
        }
        if missing.contains(&key) {
            let message = format!(
                "expected text, found {}",
                match &tree.node(*child).value {
                    Value::List(_) => "a list",
                    Value::Map(_) | Value::Scalar { .. } => "a map",
                }
            );
            return Finding::error(tree.key_caret(*child), message).path(key);
        }
        if let Some(meant) = suggest::nearest(key, &missing) {
            return Finding::error(tree.key_caret(*child), message)
                .path(key)
                .help(format!("did you mean `{meant}`?"));
        }
    }
    let first = children.first().map(|child| tree.key_caret(*child));
    let at = first.unwrap_or_else(|| tree.node(root).span.clone());
    Finding::error(at, message).help(format!(
        "a policy begins with apiVersion: {API_VERSION} and kind: ResiliencePolicy"
    ))
}

fn unknown_kind(tree: &Tree, at: NodeId, kind: &str) -> Finding {
    let ours: Vec<&str> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_ours())
        .map(Kind::name)
        .collect();
    let finding = if is_not_yet(kind) {
        Finding::error(tree.caret(at), not_yet(kind))
            .help(format!("this version knows {}", listed(&ours, "and")))
    } else {
        let expected = listed(&ours, "or");
        let finding = Finding::error(
            tree.caret(at),
            format!("expected {expected}, found {kind:?}"),
        );
        match suggest::nearest(kind, &ours) {
            Some(meant) => finding.help(format!("did you mean `{meant}`?")),
            None => finding,
        }
    };
    finding.path("kind")
}

/// Who it is, as far as it says so.
pub(super) fn reference(tree: &Tree, root: NodeId) -> Option<ResourceRef> {
    let Identity::Read(kind) = identify(tree, root) else {
        return None;
    };
    let metadata = tree.child(root, "metadata")?;
    let text = |field| tree.child(metadata, field).and_then(|node| tree.text(node));
    let name = text("name").filter(|name| !name.is_empty())?;
    let namespace = match kind {
        Kind::MeshConfig => "",
        _ => text("namespace").unwrap_or("default"),
    };
    Some(ResourceRef {
        kind,
        name: ObjectName::new(namespace, name),
    })
}

pub(super) fn name_caret(tree: &Tree, root: NodeId) -> Range<usize> {
    let name = tree
        .child(root, "metadata")
        .and_then(|metadata| tree.child(metadata, "name"));
    tree.caret(name.unwrap_or(root))
}

#[cfg(test)]
mod tests {
    use crate::parse;

    /// Each of these was passed over as if it were of a Gateway, and called fine.
    #[test]
    fn a_slip_where_a_route_names_its_service_is_told() {
        let head =
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n";
        let service = "{group: \"\", kind: Service, name: cart}";
        for (text, at, help) in [
            (
                format!("{head}spec: {{parentRefs: [{{group: \"\", kind: service, name: cart}}]}}"),
                "spec.parentRefs[0].kind",
                "did you mean `Service`?",
            ),
            (
                format!("{head}spec: {{parentRefs: [{{group: \"\", knd: Service, name: cart}}]}}"),
                "spec.parentRefs[0].knd",
                "did you mean `kind`?",
            ),
            (
                format!("{head}spec: {{parentRef: [{service}]}}"),
                "spec.parentRef",
                "did you mean `parentRefs`?",
            ),
            (
                format!("{head}spec: {{parentRefs: {service}}}"),
                "spec.parentRefs",
                "put it in brackets: [{…}]",
            ),
            (
                format!("{head}spce: {{parentRefs: [{service}]}}"),
                "spce",
                "did you mean `spec`?",
            ),
            (
                format!("{head}spec: {{parentRefs: [{service}]}}").replace("HTTP", "Http"),
                "kind",
                "did you mean `HTTPRoute`?",
            ),
            (
                format!("{head}spec: {{parentRefs: [{service}]}}").replace("working", "work"),
                "apiVersion",
                "write apiVersion: gateway.networking.k8s.io/v1",
            ),
        ] {
            let errors = parse("route.yaml", &text).expect_err(&text);
            let told = (errors.iter()).any(|it| it.path == at && it.help.as_deref() == Some(help));
            assert!(told, "{text}\n{errors:#?}");
        }
    }

    #[test]
    fn a_route_of_gateways_is_passed_over_whatever_it_says() {
        for (kind, spec) in [
            ("HTTPRoute", "{parentRefs: [{name: gateway}], rulez: 1}"),
            (
                "HTTPRoute",
                "{parentRefs: [{kind: Gateway, nam: gateway, port: x}], rules: {a: b}}",
            ),
            (
                "GRPCRoute",
                "{parentRefs: [{kind: XListenerSet, name: a}, {kind: TCPRoute}]}",
            ),
            ("HTTPRoute", "{parentRefs: [], rulez: 1}"),
            ("HTTPRoute", "{parentRefs: , rulez: 1}"),
            ("HTTPRoute", "{rulez: 1}"),
            ("HttpRoute", "{parentRefs: [{name: gateway}]}"),
            (
                "TCPRoute",
                "{parentRefs: [{group: \"\", kind: Service, name: cart}]}",
            ),
            (
                "TLSRoute",
                "{parentRefs: [{group: \"\", kind: Service, name: cart}]}",
            ),
        ] {
            let text = format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
            );
            assert_eq!(parse("route.yaml", &text), Ok(Vec::new()), "{text}");
        }
    }
}
