//! What was changed about a tree so that decoding could go on past a mistake.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::error::{Fault, child_path};
use crate::suggest;
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
        // One that is written twice has been reported.
        let children = tree.node(map).value.children().iter().copied();
        let named = children.filter(|child| tree.key(*child) == Some(field));
        self.skipped.extend(named);
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
                Value::Map(children) => {
                    let removed = |child: &&NodeId| self.removed.contains(*child);
                    let is_it = |child: &NodeId| {
                        let key = tree.key(*child);
                        key.is_some_and(|key| suggest::nearest(key, &[field]).is_some())
                    };
                    !children.iter().filter(removed).any(is_it) && !self.is_deeper(tree, at, field)
                }
                Value::List(_) | Value::Scalar { .. } => true,
            },
        }
    }

    /// Whether a field was taken out of a map in which there is none, and which is inside the one that misses it.
    fn is_deeper(&self, tree: &Tree, map: NodeId, field: &str) -> bool {
        self.removed.iter().any(|removed| {
            let mut above = tree.node(*removed).parent;
            let within = std::iter::from_fn(|| {
                let at = above?;
                above = tree.node(at).parent;
                Some(at)
            });
            tree.key(*removed) == Some(field) && within.skip(1).any(|at| at == map)
        })
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
