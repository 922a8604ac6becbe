//! What was changed about a tree so that decoding could go on past a mistake.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::error::{Fault, child_path};
use crate::yaml::tree::{NodeId, Tree, Value};

#[derive(Default)]
pub(super) struct Repairs {
    removed: BTreeSet<NodeId>,
    /// Required fields that were made up, by the map they are in.
    invented: BTreeMap<NodeId, Vec<&'static str>>,
    /// The kind and version, which the caller has read: not mistakes.
    skipped: BTreeSet<NodeId>,
}

impl Repairs {
    pub(super) fn remove_child(&mut self, tree: &Tree, map: NodeId, field: &str) {
        self.skipped.extend(tree.child(map, field));
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        !self.removed.contains(&node) && !self.skipped.contains(&node)
    }

    pub(super) fn invented(&self, map: NodeId) -> &[&'static str] {
        self.invented.get(&map).map_or(&[], Vec::as_slice)
    }

    /// Whether a mistake is the user's, or follows from what we took out ourselves.
    pub(super) fn is_news(&self, tree: &Tree, at: NodeId, fault: Fault) -> bool {
        match fault {
            Fault::Value | Fault::Key => true,
            Fault::Consequence => false,
            Fault::Missing(field) => match &tree.node(at).value {
                Value::Map(children) => !(children.iter())
                    .any(|child| self.removed.contains(child) && tree.key(*child) == Some(field)),
                Value::List(_) | Value::Scalar { .. } => true,
            },
        }
    }

    /// Makes the mistake at `at` go away; false when that would leave nothing.
    pub(super) fn mend(&mut self, root: NodeId, at: NodeId, fault: Fault) -> bool {
        match fault {
            Fault::Missing(field) => {
                let fields = self.invented.entry(at).or_default();
                if fields.contains(&field) {
                    return self.remove(root, at);
                }
                fields.push(field);
                true
            }
            Fault::Value | Fault::Key | Fault::Consequence => self.remove(root, at),
        }
    }

    fn remove(&mut self, root: NodeId, at: NodeId) -> bool {
        at != root && self.removed.insert(at)
    }

    pub(super) fn paths(&self, tree: &Tree) -> HashSet<String> {
        let removed = self.removed.iter().map(|node| tree.path(*node));
        let invented = (self.invented.iter()).flat_map(|(map, fields)| {
            let above = tree.path(*map);
            fields.iter().map(move |field| child_path(&above, field))
        });
        removed.chain(invented).collect()
    }
}
