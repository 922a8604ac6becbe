//! Where a field belongs that was written in the wrong place.

use serde_json::Value;

use super::error::meant_field;
use crate::resource::Kind;
use crate::schema;
use crate::suggest;
use crate::yaml::tree::{NodeId, Step, Tree};

/// After the name of a list, for what its items have.
const ITEMS: &str = "[]";
/// More places are no advice.
const TOLD_MAX: usize = 2;
/// Of maps within each other; no schema of ours refers to itself.
const DEPTH_MAX: usize = 16;

/// What to say of a field that is none here, if one of its name is one elsewhere in its kind.
pub(super) fn told(tree: &Tree, field: NodeId) -> Option<String> {
    let name = tree.key(field)?;
    let (kind, here) = place(tree, field)?;
    if here == ["spec", "targetRefs"] && name == "namespace" {
        return Some("a policy is for its own namespace: see metadata.namespace".to_owned());
    }
    let fields = fields(kind)?;
    let names: Vec<&str> = fields.iter().filter_map(|path| last(path)).collect();
    let meant = suggest::same(name, &names)?;
    let distance = |path: &[String]| {
        let above = &path[..path.len() - 1];
        let shared = common(above, &here);
        (here.len() - shared) + (above.len() - shared)
    };
    let candidates = fields.iter().filter(|path| last(path) == Some(meant));
    let nearest = candidates.clone().map(|path| distance(path)).min()?;
    let places: Vec<&Vec<String>> = candidates
        .filter(|path| distance(path) == nearest)
        .take(TOLD_MAX + 1)
        .collect();
    match places.as_slice() {
        [] => None,
        [only] => Some(match here.get(only.len() - 1) {
            Some(beside) if common(only, &here) == only.len() - 1 => {
                format!("write `{meant}` beside `{beside}`, not inside it")
            }
            _ => meant_field(name, &only.join(".")),
        }),
        [..] if places.len() > TOLD_MAX => None,
        [..] => {
            let places: Vec<String> = places
                .iter()
                .map(|path| format!("`{}`", path.join(".")))
                .collect();
            Some(format!("did you mean {}?", places.join(" or ")))
        }
    }
}

fn last(path: &[String]) -> Option<&str> {
    path.last().map(String::as_str)
}

/// How much of the way to one field is the way to the other: maps in the tree do not say in which lists they are.
fn common(path: &[String], here: &[String]) -> usize {
    let both = path.iter().zip(here);
    both.take_while(|(path, here)| path.trim_end_matches(ITEMS) == **here)
        .count()
}

/// The kind of the resource that a field is in, and the fields that it is inside of there.
fn place(tree: &Tree, field: NodeId) -> Option<(Kind, Vec<String>)> {
    let mut above = Vec::new();
    let mut at = tree.node(field).parent?;
    loop {
        let kind = tree.child(at, "kind").and_then(|kind| tree.text(kind));
        let is_resource = tree.child(at, "apiVersion").is_some();
        if let Some(kind) = kind.filter(|_| is_resource) {
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
            above.reverse();
            return Some((kind, above));
        }
        let node = tree.node(at);
        if let Step::Key { name, .. } = &node.step {
            above.push(name.clone());
        }
        at = node.parent?;
    }
}

/// All that a resource of a kind may have.
fn fields(kind: Kind) -> Option<Vec<Vec<String>>> {
    let schema = schema::json_schema(kind)?;
    let mut found = Vec::new();
    collect(&schema, &schema, &mut Vec::new(), &mut found);
    found.retain(|path| path.first().is_some_and(|first| first != "status"));
    Some(found)
}

fn collect(root: &Value, at: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if path.len() > DEPTH_MAX {
        return;
    }
    let named = at["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    if let Some(definition) = named.and_then(|pointer| root.pointer(pointer)) {
        collect(root, definition, path, found);
    }
    for (name, field) in at["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        if !found.contains(path) {
            found.push(path.clone());
        }
        collect(root, field, path, found);
        path.pop();
    }
    if at["items"].is_object()
        && let Some(list) = path.pop()
    {
        path.push(list.clone() + ITEMS);
        collect(root, &at["items"], path, found);
        path.pop();
        path.push(list);
    }
    for one_of in ["anyOf", "oneOf", "allOf"] {
        for choice in at[one_of].as_array().into_iter().flatten() {
            collect(root, choice, path, found);
        }
    }
}
