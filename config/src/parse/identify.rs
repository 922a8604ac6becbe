//! What a document is, before its content is looked at.

use std::ops::Range;

use crate::resource::{API_VERSION, GATEWAY_GROUP, Kind, ObjectName, ResourceRef};
use crate::source::Finding;
use crate::suggest;
use crate::yaml::decode::{is_not_yet, listed, not_yet};
use crate::yaml::tree::{NodeId, Tree, Value};

/// Ours by group, whichever version.
const GROUP: &str = "weir.dev/";

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
            if version.starts_with(GATEWAY_GROUP) && !is_of_the_mesh(tree, root) =>
        {
            Identity::Ignored
        }
        Some(known) if known.api_version() == version => Identity::Read(known),
        Some(known)
            if known.is_gateway()
                && (version.starts_with(GATEWAY_GROUP) || version.starts_with(GROUP)) =>
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
        _ => Identity::Ignored,
    }
}

/// Whether a route has a Service as parent: one that has Gateways only is somebody else's, whatever it says.
fn is_of_the_mesh(tree: &Tree, root: NodeId) -> bool {
    let parents = (tree.child(root, "spec")).and_then(|spec| tree.child(spec, "parentRefs"));
    let parents = parents.map(|parents| tree.node(parents).value.children());
    parents.into_iter().flatten().any(|parent| {
        let kind = tree.child(*parent, "kind");
        kind.and_then(|kind| tree.text(kind)) == Some("Service")
    })
}

/// Of the Gateway API the newest version of each kind is read; the API server has them all.
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
    let first = tree
        .node(root)
        .value
        .children()
        .first()
        .map(|child| tree.key_caret(*child));
    let at = first.unwrap_or_else(|| tree.node(root).span.clone());
    Finding::error(
        at,
        format!("this document does not say its {}", listed(&missing, "and")),
    )
    .help(format!(
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
