//! From the text of a file to resources, or to everything that is wrong with it.

mod identify;

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Deref, Range};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostic, Severity};
use crate::resource::{Kind, Resource, ResourceRef};
use crate::source::{Finding, Source};
use crate::validate::{self, Contradiction};
use crate::yaml::decode;
use crate::yaml::documents::{FILE_BYTES_MAX, each_document};
use crate::yaml::scalar::{Plain, resolve};
use crate::yaml::tree::{Document, NodeId, Stop, Tree, Value};
use identify::Identity;

/// After that many mistakes the rest of a file is not read: it is no policy.
const MISTAKES_MAX: usize = 200;

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    pub value: T,
    pub file: Arc<str>,
    /// Of the document's first field, from 1.
    pub line: usize,
    /// What is allowed but surely not meant.
    pub warnings: Vec<Diagnostic>,
}

/// A file read as far as it can be: one bad document does not take the good ones with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub resources: Vec<Located<Resource>>,
    /// In the order of the file.
    pub errors: Vec<Diagnostic>,
    /// Documents that were refused, as far as they say who they are: for these the last good one stays in force.
    pub refused: Vec<ResourceRef>,
    /// With something in them, those that were passed over included.
    pub documents: usize,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Every resource of the file that we have a use for, or every mistake in it. Documents of kinds that we do not
/// read (Deployment, Namespace, …) are passed over.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Located<Resource>>, Vec<Diagnostic>> {
    let reading = read(file_name, text);
    if reading.errors.is_empty() {
        Ok(reading.resources)
    } else {
        Err(reading.errors)
    }
}

/// The same, document by document: what is good is returned beside what is wrong with the rest.
pub fn read(file_name: &str, text: &str) -> Reading {
    let mut reader = Reader {
        source: Source::new(file_name, text),
        file: file_name.into(),
        reading: Reading::default(),
        defined: HashMap::new(),
    };
    if text.len() > FILE_BYTES_MAX {
        reader.refuse(vec![too_long(text)], None);
        return reader.reading;
    }
    each_document(text, |document| {
        let end = document.tree.root().map(|root| document.tree.extent(root));
        reader.document(document);
        reader.stop_at_the_limit(end.unwrap_or_default())
    });
    reader.reading
}

/// The same for a file as it lies on the disk.
pub fn read_bytes(file_name: &str, bytes: &[u8]) -> Reading {
    match utf8(file_name, bytes) {
        Ok(text) => read(file_name, text),
        Err(error) => Reading {
            errors: vec![*error],
            ..Reading::default()
        },
    }
}

/// The text of a file that is YAML, whatever it is about: for whoever hands it on rather than reads it.
pub fn yaml_text<'a>(file_name: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Diagnostic>> {
    let text = utf8(file_name, bytes).map_err(|error| vec![*error])?;
    let source = Source::new(file_name, text);
    let mut findings = Vec::new();
    if text.len() > FILE_BYTES_MAX {
        findings.push(too_long(text));
    } else {
        each_document(text, |document| {
            if let Some(Stop::Broken(finding)) = document.stop {
                findings.push(finding);
            }
            findings.extend(document.problems);
            match findings.len() < MISTAKES_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    }
    let mistakes = findings.into_iter();
    let mistakes: Vec<Diagnostic> = mistakes.map(|it| source.diagnose(it, None)).collect();
    if mistakes.is_empty() {
        Ok(text)
    } else {
        Err(mistakes)
    }
}

fn utf8<'a>(file_name: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good);
        let end = good.len()..good.len();
        let finding =
            Finding::error(end, "the file is not UTF-8 from here on").help("save it as UTF-8");
        Box::new(Source::new(file_name, &good).diagnose(finding, None))
    })
}

fn too_long(text: &str) -> Finding {
    let message = format!(
        "the file has {} bytes; {FILE_BYTES_MAX} are the most that are read",
        text.len()
    );
    Finding::error(0..0, message).help("split it")
}

struct Reader<'a> {
    source: Source<'a>,
    file: Arc<str>,
    reading: Reading,
    /// Where this file defined what already.
    defined: HashMap<ResourceRef, Range<usize>>,
}

impl Reader<'_> {
    fn document(&mut self, document: Document) {
        let Document {
            tree,
            stop,
            mut problems,
            merges,
        } = document;
        problems.extend(merges);
        let root = tree.root();
        let is_empty = root.is_none_or(|root| is_null(&tree, root));
        self.reading.documents += usize::from(stop.is_some() || !is_empty);
        match stop {
            None => {}
            Some(Stop::TooLarge(_)) if root.is_some_and(|root| is_ignored(&tree, root)) => return,
            Some(Stop::Broken(finding) | Stop::TooLarge(finding)) => {
                let who = root.and_then(|root| identify::reference(&tree, root));
                return self.refuse(vec![finding], who);
            }
        }
        if let Some(root) = root.filter(|_| !is_empty) {
            self.resource(&tree, root, &problems);
        }
    }

    fn stop_at_the_limit(&mut self, at: Range<usize>) -> ControlFlow<()> {
        if self.reading.errors.len() < MISTAKES_MAX {
            return ControlFlow::Continue(());
        }
        let message = format!(
            "the file has more than {MISTAKES_MAX} mistakes: what comes after this was not read"
        );
        self.refuse(vec![Finding::error(at, message)], None);
        ControlFlow::Break(())
    }

    fn resource(&mut self, tree: &Tree, root: NodeId, problems: &[Finding]) {
        match identify::identify(tree, root) {
            Identity::Ignored => {}
            Identity::Unclear(finding) => self.refuse(vec![finding], None),
            Identity::List(items) => {
                for item in tree.node(items).value.children() {
                    self.resource(tree, *item, problems);
                }
            }
            Identity::Read(kind) => {
                let inside = tree.extent(root);
                let problems = problems
                    .iter()
                    .filter(|problem| inside.contains(&problem.at.start))
                    .cloned();
                self.read(tree, root, kind, problems.collect());
            }
        }
    }

    fn read(&mut self, tree: &Tree, root: NodeId, kind: Kind, mut findings: Vec<Finding>) {
        let (resource, repaired) = match kind {
            Kind::Service => decode_as(tree, root, Resource::Service, &mut findings),
            Kind::EndpointSlice => decode_as(tree, root, Resource::EndpointSlice, &mut findings),
            Kind::Pod => decode_as(tree, root, Resource::Pod, &mut findings),
            Kind::ResiliencePolicy => {
                decode_as(tree, root, Resource::ResiliencePolicy, &mut findings)
            }
            Kind::FaultPolicy => decode_as(tree, root, Resource::FaultPolicy, &mut findings),
            Kind::AuthorizationPolicy => {
                decode_as(tree, root, Resource::AuthorizationPolicy, &mut findings)
            }
            Kind::MeshConfig => decode_as(tree, root, Resource::MeshConfig, &mut findings),
            Kind::HttpRoute => decode_as(tree, root, Resource::HttpRoute, &mut findings),
            Kind::GrpcRoute => decode_as(tree, root, Resource::GrpcRoute, &mut findings),
            Kind::ReferenceGrant => decode_as(tree, root, Resource::ReferenceGrant, &mut findings),
        };
        if let Some(resource) = &resource {
            let prefix = tree.path(root);
            let contradictions = validate::check(resource);
            findings.extend(
                (contradictions.into_iter())
                    .map(|contradiction| contradiction.below(&prefix))
                    .filter(|contradiction| !contradiction.rests_on(&repaired))
                    .map(|contradiction| place(tree, contradiction)),
            );
        }
        let who = identify::reference(tree, root);
        if let Some(who) = &who {
            let name = identify::name_caret(tree, root);
            match self.defined.get(who) {
                None => {
                    self.defined.insert(who.clone(), name);
                }
                Some(earlier) => findings.push(
                    Finding::error(name, format!("{who} is defined twice in this file"))
                        .path("metadata.name")
                        .help("give one of them another name, or leave it out")
                        .also(earlier.clone(), "first here"),
                ),
            }
        }
        match resource {
            Some(resource)
                if findings
                    .iter()
                    .all(|finding| finding.severity == Severity::Warning) =>
            {
                findings.sort_by_key(|finding| finding.at.start);
                let name = who.as_ref().map(ToString::to_string);
                let warnings = findings
                    .into_iter()
                    .map(|finding| self.source.diagnose(finding, name.as_deref()));
                self.reading.resources.push(Located {
                    value: resource,
                    file: self.file.clone(),
                    line: self.source.line(tree.extent(root).start),
                    warnings: warnings.collect(),
                });
            }
            _ => self.refuse(findings, who),
        }
    }

    fn refuse(&mut self, mut findings: Vec<Finding>, who: Option<ResourceRef>) {
        let name = who.as_ref().map(ToString::to_string);
        findings.sort_by_key(|finding| finding.at.start);
        // One place, one mistake: what form and content both complain about is said once.
        findings.dedup_by(|later, earlier| {
            later.at == earlier.at && (later.path == earlier.path || earlier.path.is_empty())
        });
        let diagnostics = findings
            .into_iter()
            .map(|finding| self.source.diagnose(finding, name.as_deref()));
        self.reading.errors.extend(diagnostics);
        self.reading.refused.extend(who);
    }
}

fn decode_as<T: DeserializeOwned>(
    tree: &Tree,
    root: NodeId,
    resource: impl Fn(T) -> Resource,
    findings: &mut Vec<Finding>,
) -> (Option<Resource>, HashSet<String>) {
    let decoded = decode::decode::<T>(tree, root, &["apiVersion", "kind"]);
    findings.extend(decoded.mistakes);
    (decoded.value.map(resource), decoded.repaired)
}

/// A contradiction is about fields; people look at lines.
fn place(tree: &Tree, contradiction: Contradiction) -> Finding {
    let caret = |path: &str| tree.nearest(path).map_or(0..0, |node| tree.caret(node));
    Finding {
        severity: contradiction.severity,
        at: caret(&contradiction.path),
        message: contradiction.message,
        help: contradiction.help,
        secondary: (contradiction.secondary).map(|(path, text)| Box::new((caret(&path), text))),
        path: contradiction.path,
    }
}

fn is_ignored(tree: &Tree, root: NodeId) -> bool {
    matches!(identify::identify(tree, root), Identity::Ignored)
}

fn is_null(tree: &Tree, node: NodeId) -> bool {
    matches!(&tree.node(node).value, Value::Scalar { text, plain: true } if resolve(text) == Plain::Null)
}
