//! From the parser's events to a tree a document, bounded in size and depth.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, options};

use super::syntax;
use super::tree::{Document, Node, NodeId, Step, Stop, Tree, Value};
use crate::source::Finding;

/// Policies are small; the definitions of other people's kinds, which may lie beside them, are not.
pub(crate) const FILE_BYTES_MAX: usize = 16 << 20;
/// Maps and lists within each other. A pod needs about ten, the schema of a kind with a pod in it about forty.
pub(crate) const DEPTH_MAX: usize = 64;
/// Values of one document, those that aliases repeat included: a bomb of aliases ends here.
pub(crate) const VALUES_MAX: usize = 100_000;

/// Nobody reads more.
const PROBLEMS_MAX: usize = 50;

/// Hands over every document of a text, as far as each can be read, until `take` has enough. The text is at most
/// [`FILE_BYTES_MAX`] long.
pub(crate) fn each_document(text: &str, mut take: impl FnMut(Document) -> ControlFlow<()>) {
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder: Option<Builder> = None;
    while let Some(next) = parser.next_event() {
        let failure = match next {
            Ok((Event::DocumentStart(..), _)) => {
                builder = Some(Builder::default());
                continue;
            }
            Ok((Event::DocumentEnd, _)) => {
                let Some(builder) = builder.take() else {
                    continue;
                };
                if take(builder.finish(None)).is_break() {
                    return;
                }
                continue;
            }
            Ok((event, span)) => builder
                .as_mut()
                .map_or(Ok(()), |builder| builder.event(event, &span)),
            Err(error) => Err(syntax::explain(&error, text)),
        };
        if let Err(failure) = failure {
            let failure = syntax::unless_a_template(failure, text);
            let broken = builder.take().unwrap_or_default().finish(Some(failure));
            if take(broken).is_break() || !skip_document(&mut parser) {
                return;
            }
        }
    }
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
    merges: Vec<Finding>,
}

impl Builder {
    fn finish(mut self, stop: Option<Stop>) -> Document {
        self.report_repeated_keys();
        Document {
            tree: Tree { nodes: self.nodes },
            stop,
            problems: self.problems,
            merges: self.merges,
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Stop> {
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
                )
                .help("write the value out, or put the anchor before what it is to repeat")
                .into());
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
        if plain && name == "<<" && self.merges.len() < PROBLEMS_MAX {
            self.merges.push(
                Finding::error(span.clone(), "merging maps with `<<` is not supported")
                    .help("write the fields out: YAML 1.2 has no merge key"),
            );
        }
        if let Some(waiting) = self.keys.last_mut() {
            *waiting = Some(Step::Key { name, plain, span });
        }
    }

    fn open(&mut self, at: Range<usize>, value: Value, anchor: usize) -> Result<(), Stop> {
        if self.expects_key() {
            return Err(
                Finding::error(at, "expected a field's name, found a map or a list").into(),
            );
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
    fn add(&mut self, span: Range<usize>, value: Value) -> Result<NodeId, Stop> {
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

    fn push(&mut self, node: Node) -> Result<(), Stop> {
        if self.nodes.len() >= VALUES_MAX {
            let message = format!(
                "this document has more than {VALUES_MAX} values, those that aliases repeat included"
            );
            let finding = Finding::error(node.span, message);
            return Err(Stop::TooLarge(
                finding.help("write it as several documents"),
            ));
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
    fn alias(&mut self, anchor: usize, at: Range<usize>) -> Result<(), Stop> {
        if self.expects_key() {
            return Err(
                Finding::error(at, "expected a field's name, found an alias")
                    .help("write the name out")
                    .into(),
            );
        }
        let Some(&original) = self.anchors.get(&anchor) else {
            return Err(Finding::error(at, "this alias names no anchor before it")
                .help("write the value out")
                .into());
        };
        if self.open.contains(&original) {
            return Err(
                Finding::error(at, "an alias cannot stand inside what it repeats")
                    .help("write the value out")
                    .into(),
            );
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
    ) -> Result<(), Stop> {
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
            self.push(node).map_err(|stop| stop.at(at.clone()))?;
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
            if node.parent.is_none()
                && let Some(second) = second_document(&tree, children)
            {
                problems.push(second);
                continue;
            }
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
        self.problems.truncate(PROBLEMS_MAX);
    }
}

/// Two resources without `---` between them, rather than four mistakes.
fn second_document(tree: &Tree, fields: &[NodeId]) -> Option<Finding> {
    let again = |name: &str| {
        let mut named = fields
            .iter()
            .filter(|field| tree.key(**field) == Some(name));
        named.nth(1).map(|field| tree.key_caret(*field))
    };
    let (version, kind) = (again("apiVersion")?, again("kind")?);
    let first = if version.start < kind.start {
        version
    } else {
        kind
    };
    let message = "another document begins here, without `---` before it";
    Some(Finding::error(first, message).help("write --- on a line of its own above this one"))
}

fn range(span: &Span) -> Range<usize> {
    // A parser over a string knows its bytes.
    span.byte_range().unwrap_or_default()
}

pub(super) fn too_deep(at: Range<usize>) -> Stop {
    let message = format!("maps and lists are nested deeper than {DEPTH_MAX} levels");
    let finding = Finding::error(at, message);
    Stop::TooLarge(finding.help("no resource of ours is as deep: check the brackets"))
}
