//! A document as a tree: every value with its place and its parent.

use std::ops::Range;

use crate::source::Finding;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(super) usize);

#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) parent: Option<NodeId>,
    /// How the parent calls it.
    pub(crate) step: Step,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Root,
    Key {
        name: String,
        plain: bool,
        span: Range<usize>,
    },
    Index(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<NodeId>),
    /// Children whose step is a key.
    Map(Vec<NodeId>),
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// Empty when the document is.
    pub(crate) tree: Tree,
    /// Where reading stopped: what is in the tree is only the beginning.
    pub(crate) stop: Option<Stop>,
    /// The same key twice in a map.
    pub(crate) problems: Vec<Finding>,
    /// Maps that are merged into others, as YAML 1.1 had it.
    pub(crate) merges: Vec<Finding>,
}

/// Why a document was not read to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is not YAML.
    Broken(Finding),
    /// It is more than we read. Whoever it is meant for may read more.
    TooLarge(Finding),
}

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Self {
        Self::Broken(finding)
    }
}

impl Stop {
    pub(super) fn at(mut self, at: Range<usize>) -> Self {
        let (Self::Broken(finding) | Self::TooLarge(finding)) = &mut self;
        finding.at = at;
        self
    }
}

impl Tree {
    pub(crate) fn root(&self) -> Option<NodeId> {
        (!self.nodes.is_empty()).then_some(NodeId(0))
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub(crate) fn child(&self, map: NodeId, name: &str) -> Option<NodeId> {
        let Value::Map(children) = &self.node(map).value else {
            return None;
        };
        children
            .iter()
            .copied()
            .find(|child| self.key(*child) == Some(name))
    }

    pub(crate) fn key(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).step {
            Step::Key { name, .. } => Some(name),
            Step::Root | Step::Index(_) => None,
        }
    }

    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// `spec.routes[0].match`.
    pub(crate) fn path(&self, id: NodeId) -> String {
        let node = self.node(id);
        let above = node
            .parent
            .map(|parent| self.path(parent))
            .unwrap_or_default();
        match &node.step {
            Step::Root => String::new(),
            Step::Key { name, .. } if above.is_empty() => name.clone(),
            Step::Key { name, .. } => format!("{above}.{name}"),
            Step::Index(index) => format!("{above}[{index}]"),
        }
    }

    /// The value at a path, or the nearest that exists above it.
    pub(crate) fn nearest(&self, path: &str) -> Option<NodeId> {
        let mut at = self.root()?;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (step.strip_suffix(']'), &self.node(at).value) {
                (Some(index), Value::List(items)) => index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index).copied()),
                (Some(_), _) => None,
                (None, _) => self.child(at, step),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }

    /// Where to put the caret for a value: on the value, or on its key when there is nothing to see or too much.
    pub(crate) fn caret(&self, id: NodeId) -> Range<usize> {
        let node = self.node(id);
        let own = match &node.value {
            Value::Scalar { .. } => !node.span.is_empty(),
            Value::List(children) | Value::Map(children) => children.is_empty(),
        };
        match &node.step {
            Step::Key { span, .. } if !own => span.clone(),
            _ => node.span.clone(),
        }
    }

    /// From the first to the last byte of a value and all that is in it.
    pub(crate) fn extent(&self, id: NodeId) -> Range<usize> {
        let node = self.node(id);
        let first = node
            .value
            .children()
            .first()
            .map(|child| self.key_caret(*child).start);
        first.unwrap_or(node.span.start).min(node.span.start)..node.span.end
    }

    pub(crate) fn key_caret(&self, id: NodeId) -> Range<usize> {
        match &self.node(id).step {
            Step::Key { span, .. } => span.clone(),
            Step::Root | Step::Index(_) => self.node(id).span.clone(),
        }
    }
}

impl Node {
    pub(super) fn adopt(&mut self, child: NodeId) {
        match &mut self.value {
            Value::List(children) | Value::Map(children) => children.push(child),
            Value::Scalar { .. } => {}
        }
    }
}

impl Value {
    pub(crate) fn children(&self) -> &[NodeId] {
        match self {
            Self::List(children) | Self::Map(children) => children,
            Self::Scalar { .. } => &[],
        }
    }

    pub(super) fn emptied(&self) -> Self {
        match self {
            Self::Scalar { .. } => self.clone(),
            Self::List(_) => Self::List(Vec::new()),
            Self::Map(_) => Self::Map(Vec::new()),
        }
    }
}
