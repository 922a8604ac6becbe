//! From a tree to a value, with every mistake on the way.
//!
//! The types' own serde derives say what is allowed. serde stops at the first mistake, so each one is noted, its
//! place taken out of the tree (or, where a field is missing, put in), and the whole is tried again until it
//! succeeds. What is left of a value with mistakes is good enough to look for contradictions in.

mod access;
mod elsewhere;
mod error;
mod invented;
mod repair;
mod variant;

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::tree::{NodeId, Tree};
use crate::source::Finding;
use access::NodeDeserializer;
use repair::Repairs;

pub(crate) use error::{is_not_yet, listed, not_yet};

/// More are not looked for: nobody reads them, and each costs a pass.
const MISTAKES_MAX: usize = 25;
/// Passes over a document, the ones included that find the consequences of a repair.
const PASSES_MAX: usize = 200;

/// What came out of a tree.
pub(crate) struct Decoded<T> {
    /// `None` when nothing sensible is left.
    pub(crate) value: Option<T>,
    pub(crate) mistakes: Vec<Finding>,
    /// Paths that were taken out or put in: what is said about these is not the user's word.
    pub(crate) repaired: HashSet<String>,
}

/// Reads the map at `root`, passing over the fields named in `skip`.
pub(crate) fn decode<T: DeserializeOwned>(tree: &Tree, root: NodeId, skip: &[&str]) -> Decoded<T> {
    let mut repairs = Repairs::default();
    for field in skip {
        repairs.remove_child(tree, root, field);
    }
    let mut decoded = Decoded {
        value: None,
        mistakes: Vec::new(),
        repaired: HashSet::new(),
    };
    for _ in 0..PASSES_MAX {
        match T::deserialize(NodeDeserializer::new(tree, &repairs, root)) {
            Ok(value) => {
                decoded.value = Some(value);
                break;
            }
            Err(error) => {
                let Some((at, fault)) = error.place() else {
                    break;
                };
                if repairs.is_news(tree, at, fault) {
                    decoded.mistakes.push(error.finding(tree));
                }
                if decoded.mistakes.len() >= MISTAKES_MAX {
                    say_that_there_may_be_more(&mut decoded.mistakes);
                    break;
                }
                if !repairs.mend(root, at, fault) {
                    break;
                }
            }
        }
    }
    decoded.repaired = repairs.paths(tree);
    decoded
}

fn say_that_there_may_be_more(mistakes: &mut [Finding]) {
    if let Some(last) = mistakes.last_mut() {
        let more = "further mistakes of this document were not looked for";
        last.help = Some(
            last.help
                .take()
                .map_or(more.to_owned(), |help| format!("{help}\n{more}")),
        );
    }
}
