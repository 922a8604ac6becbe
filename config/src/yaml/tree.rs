//! A document as a tree: every value with its place and its parent, bounded in size and depth.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, options};

use super::syntax;
use crate::source::Finding;

/// Policies are small; so is a slice of a thousand endpoints.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Maps and lists within each other. A pod needs about ten.
pub(crate) const DEPTH_MAX: usize = 32;
/// Values of one document, those that aliases repeat included: a bomb of aliases ends here.
pub(crate) const VALUES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
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
    /// The parser stopped here: what is in the tree is only the beginning.
    pub(crate) broken: Option<Finding>,
    /// Mistakes in the form of maps: the same key twice, and the like.
    pub(crate) problems: Vec<Finding>,
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

/// Every document of a text, as far as each can be read. The text is at most [`FILE_BYTES_MAX`] long.
pub(crate) fn documents(text: &str) -> Vec<Document> {
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut builder: Option<Builder> = None;
    while let Some(next) = parser.next_event() {
        let failure = match next {
            Ok((Event::DocumentStart(..), _)) => {
                builder = Some(Builder::default());
                None
            }
            Ok((Event::DocumentEnd, _)) => {
                documents.extend(builder.take().map(|builder| builder.finish(None)));
                None
            }
            Ok((event, span)) => builder
                .as_mut()
                .and_then(|builder| builder.event(event, &span).err()),
            Err(error) => Some(syntax::explain(&error, text)),
        };
        if let Some(failure) = failure {
            documents.push(builder.take().unwrap_or_default().finish(Some(failure)));
            if !skip_document(&mut parser) {
                break;
            }
        }
    }
    documents
}

fn skip_document<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> bool {
    matches!(parser.proceed_next_document(), Ok(true))
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// Maps and lists that are not closed yet.
    open: Vec<NodeId>,
    /// The key that waits for its value, for each open map.
    keys: Vec<Option<Step>>,
    anchors: HashMap<usize, NodeId>,
    problems: Vec<Finding>,
}

impl Builder {
    fn finish(mut self, broken: Option<Finding>) -> Document {
        self.report_repeated_keys();
        Document {
            tree: Tree { nodes: self.nodes },
            broken,
            problems: self.problems,
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Finding> {
        let at = range(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = tag
                    .as_ref()
                    .is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = style == ScalarStyle::Plain && !as_text;
                if self.expects_key() {
                    self.set_key(text.into_owned(), plain, at);
                    return Ok(());
                }
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                let id = self.add(at, value)?;
                self.anchor(anchor, id);
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, Value::List(Vec::new()), anchor)?,
            Event::MappingStart(_, anchor, _) => self.open(at, Value::Map(Vec::new()), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(id) = self.open.pop() {
                    self.keys.pop();
                    let node = &mut self.nodes[id.0];
                    node.span.end = at.end.max(node.span.start);
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::UnresolvedAlias(name) => {
                return Err(Finding::error(
                    at,
                    format!("the alias `*{name}` names no anchor `&{name}` before it"),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|id| matches!(self.nodes[id.0].value, Value::Map(_)))
            && matches!(self.keys.last(), Some(None))
    }

    fn set_key(&mut self, name: String, plain: bool, span: Range<usize>) {
        if plain && name == "<<" {
            self.problems.push(
                Finding::error(span.clone(), "merging maps with `<<` is not supported")
                    .help("write the fields out: YAML 1.2 has no merge key"),
            );
        }
        if let Some(waiting) = self.keys.last_mut() {
            *waiting = Some(Step::Key { name, plain, span });
        }
    }

    fn open(&mut self, at: Range<usize>, value: Value, anchor: usize) -> Result<(), Finding> {
        if self.expects_key() {
            return Err(Finding::error(
                at,
                "expected a field's name, found a map or a list",
            ));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(at));
        }
        let id = self.add(at, value)?;
        self.anchor(anchor, id);
        self.open.push(id);
        self.keys.push(None);
        Ok(())
    }

    /// Hangs a value below the map or list that is open.
    fn add(&mut self, span: Range<usize>, value: Value) -> Result<NodeId, Finding> {
        let id = NodeId(self.nodes.len());
        let parent = self.open.last().copied();
        let step = match parent.map(|parent| &self.nodes[parent.0].value) {
            None => Step::Root,
            Some(Value::List(items)) => Step::Index(items.len()),
            // `expects_key` was asked before, so a key is waiting.
            Some(_) => self
                .keys
                .last_mut()
                .and_then(Option::take)
                .unwrap_or(Step::Root),
        };
        self.push(Node {
            span,
            parent,
            step,
            value,
        })?;
        if let Some(parent) = parent {
            self.nodes[parent.0].adopt(id);
        }
        Ok(id)
    }

    fn push(&mut self, node: Node) -> Result<(), Finding> {
        if self.nodes.len() >= VALUES_MAX {
            let message = format!(
                "this document has more than {VALUES_MAX} values, those that aliases repeat included"
            );
            return Err(Finding::error(node.span, message));
        }
        self.nodes.push(node);
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    /// Repeats what the anchor marked. The values keep their places; the alias itself is the place of the whole.
    fn alias(&mut self, anchor: usize, at: Range<usize>) -> Result<(), Finding> {
        if self.expects_key() {
            return Err(
                Finding::error(at, "expected a field's name, found an alias")
                    .help("write the name out"),
            );
        }
        let Some(&original) = self.anchors.get(&anchor) else {
            return Err(Finding::error(at, "this alias names no anchor before it"));
        };
        if self.open.contains(&original) {
            return Err(Finding::error(
                at,
                "an alias cannot stand inside what it repeats",
            ));
        }
        let value = self.nodes[original.0].value.emptied();
        let copy = self.add(at.clone(), value)?;
        self.copy_children(original, copy, self.open.len(), &at)
    }

    fn copy_children(
        &mut self,
        from: NodeId,
        to: NodeId,
        depth: usize,
        at: &Range<usize>,
    ) -> Result<(), Finding> {
        let children = self.nodes[from.0].value.children().to_vec();
        if !children.is_empty() && depth >= DEPTH_MAX {
            return Err(too_deep(at.clone()));
        }
        for child in children {
            let original = &self.nodes[child.0];
            let node = Node {
                span: original.span.clone(),
                parent: Some(to),
                step: original.step.clone(),
                value: original.value.emptied(),
            };
            let id = NodeId(self.nodes.len());
            // The alias is to blame, not what it repeats.
            self.push(node).map_err(|mut finding| {
                finding.at = at.clone();
                finding
            })?;
            self.nodes[to.0].adopt(id);
            self.copy_children(child, id, depth + 1, at)?;
        }
        Ok(())
    }

    fn report_repeated_keys(&mut self) {
        let mut problems = Vec::new();
        let tree = Tree {
            nodes: std::mem::take(&mut self.nodes),
        };
        for node in &tree.nodes {
            let Value::Map(children) = &node.value else {
                continue;
            };
            let mut first: HashMap<&str, NodeId> = HashMap::new();
            for child in children {
                let Some(name) = tree.key(*child) else {
                    continue;
                };
                match first.get(name) {
                    None => {
                        first.insert(name, *child);
                    }
                    Some(earlier) => problems.push(
                        Finding::error(
                            tree.key_caret(*child),
                            format!("`{name}` is written twice in the same map"),
                        )
                        .path(tree.path(*child))
                        .also(tree.key_caret(*earlier), "first here")
                        .help("keep one of them: readers of YAML do not agree on which counts"),
                    ),
                }
            }
        }
        self.nodes = tree.nodes;
        self.problems.extend(problems);
    }
}

impl Node {
    fn adopt(&mut self, child: NodeId) {
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

    fn emptied(&self) -> Self {
        match self {
            Self::Scalar { .. } => self.clone(),
            Self::List(_) => Self::List(Vec::new()),
            Self::Map(_) => Self::Map(Vec::new()),
        }
    }
}

fn range(span: &Span) -> Range<usize> {
    // A parser over a string knows its bytes.
    span.byte_range().unwrap_or_default()
}

fn too_deep(at: Range<usize>) -> Finding {
    Finding::error(
        at,
        format!("maps and lists are nested deeper than {DEPTH_MAX} levels"),
    )
}
