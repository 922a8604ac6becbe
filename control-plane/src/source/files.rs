//! What each file says. Pure: contents in, changes and facts out.
//!
//! A file is taken whole or not at all. One that is bad keeps its last good content in force; so does one that says
//! something about a resource that another file has already.

use std::collections::{BTreeMap, HashMap, HashSet};

use weir_config::resource::FaultPolicy;
use weir_config::{Resource, ResourceRef, parse};

use crate::journal::Fact;
use crate::mesh::Change;
use crate::time::rfc3339;

#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(Text),
    Unreadable(String),
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// In milliseconds since the Unix epoch, where that is known.
    pub(super) written_ms: Option<u64>,
}

pub(super) struct Files {
    trust_domain: String,
    files: BTreeMap<String, File>,
    owners: HashMap<ResourceRef, String>,
}

#[derive(Default)]
struct File {
    /// The last good content.
    resources: HashMap<ResourceRef, Resource>,
    /// Why the newest content was refused; empty when it was not.
    diagnostics: Vec<String>,
    /// Refused because of another file: looked at again when anything else changes.
    conflicted: Option<Text>,
}

#[derive(Default)]
pub(super) struct Update {
    pub(super) changes: Vec<Change>,
    pub(super) facts: Vec<Fact>,
    /// Policy files to be remembered across restarts, or (`None`) forgotten.
    pub(super) remember: Vec<(String, Option<Text>)>,
}

/// A file as it was just read.
struct Candidate {
    name: String,
    text: Text,
    resources: HashMap<ResourceRef, Resource>,
}

impl Files {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            files: BTreeMap::new(),
            owners: HashMap::new(),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    pub(super) fn update(&mut self, mut news: Vec<(String, Content)>) -> Update {
        let heard: HashSet<String> = news.iter().map(|(name, _)| name.clone()).collect();
        let conflicted = self.files.iter().filter(|(name, _)| !heard.contains(*name));
        news.extend(conflicted.filter_map(|(name, file)| {
            Some((name.clone(), Content::Text(file.conflicted.clone()?)))
        }));
        news.sort_by(|(a, _), (b, _)| a.cmp(b));

        let mut update = Update::default();
        let mut candidates = Vec::new();
        for (name, content) in news {
            match content {
                Content::Gone => self.remove(&name, &mut update),
                Content::Unreadable(problem) => self.refuse(
                    &name,
                    vec![format!("error: {name}: {problem}")],
                    None,
                    &mut update,
                ),
                Content::Text(text) => match self.read(&name, &text) {
                    Ok(resources) => candidates.push(Candidate {
                        name,
                        text,
                        resources,
                    }),
                    Err(diagnostics) => self.refuse(&name, diagnostics, None, &mut update),
                },
            }
        }
        self.release(&candidates);
        for candidate in candidates {
            match self.conflict(&candidate) {
                Some(conflict) => self.refuse(
                    &candidate.name,
                    vec![conflict],
                    Some(candidate.text.clone()),
                    &mut update,
                ),
                None => self.accept(candidate, &mut update),
            }
        }
        update
    }

    fn read(&self, name: &str, text: &Text) -> Result<HashMap<ResourceRef, Resource>, Vec<String>> {
        let located = parse(name, &text.text).map_err(|diagnostics| {
            diagnostics
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })?;
        let mut resources = HashMap::new();
        for located in located {
            let (line, mut resource) = (located.line, located.value);
            if let Resource::MeshConfig(mesh) = &resource
                && let Some(other) = mesh
                    .spec
                    .trust_domain
                    .as_ref()
                    .filter(|domain| **domain != self.trust_domain)
            {
                let own = &self.trust_domain;
                return Err(vec![format!(
                    "error: {name}:{line}: the trust domain is {own} (--trust-domain), not {other}"
                )]);
            }
            let reference = resource.reference();
            if let Resource::FaultPolicy(policy) = &mut resource {
                self.date(name, &reference, policy, text.written_ms);
            }
            if resources.insert(reference.clone(), resource).is_some() {
                return Err(vec![format!(
                    "error: {name}:{line}: {reference} is there twice"
                )]);
            }
        }
        Ok(resources)
    }

    /// A fault lasts from when it was written down like this, whatever else changes in its file; after a restart, from when
    /// the file was written.
    fn date(
        &self,
        file: &str,
        reference: &ResourceRef,
        policy: &mut FaultPolicy,
        written_ms: Option<u64>,
    ) {
        if policy.metadata.creation_timestamp.is_some() {
            return;
        }
        let before = self.files.get(file);
        let before = before.and_then(|file| file.resources.get(reference));
        policy.metadata.creation_timestamp = match before {
            Some(Resource::FaultPolicy(known)) if known.spec == policy.spec => {
                known.metadata.creation_timestamp.clone()
            }
            _ => written_ms.map(rfc3339),
        };
    }

    /// What these files do not hold any more is free for others: a resource may move from one file to another.
    fn release(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            let Some(file) = self.files.get(&candidate.name) else {
                continue;
            };
            for reference in file
                .resources
                .keys()
                .filter(|reference| !candidate.resources.contains_key(reference))
            {
                if self.owners.get(reference) == Some(&candidate.name) {
                    self.owners.remove(reference);
                }
            }
        }
    }

    fn conflict(&self, candidate: &Candidate) -> Option<String> {
        let owned =
            |reference: &ResourceRef| Some((reference.clone(), self.owners.get(reference)?));
        let mut taken = candidate
            .resources
            .keys()
            .filter_map(owned)
            .filter(|(_, owner)| **owner != candidate.name);
        let (reference, owner) = taken.next()?;
        Some(format!(
            "error: {}: {reference} is in {owner} already",
            candidate.name
        ))
    }

    fn accept(&mut self, candidate: Candidate, update: &mut Update) {
        let Candidate {
            name,
            text,
            resources,
        } = candidate;
        let file = self.files.entry(name.clone()).or_default();
        let before = std::mem::take(file).resources;
        let was_policy = policies(&before);
        let changed_policy = before
            .iter()
            .filter(|(_, it)| is_policy(it))
            .any(|(key, it)| resources.get(key) != Some(it))
            || resources
                .iter()
                .filter(|(_, it)| is_policy(it))
                .any(|(key, it)| before.get(key) != Some(it));
        for reference in before
            .keys()
            .filter(|reference| !resources.contains_key(reference))
        {
            // Unless another file of this very batch has taken it over.
            if !self.owners.contains_key(reference) {
                update.changes.push(Change::Delete(reference.clone()));
            }
        }
        for (reference, resource) in &resources {
            self.owners.insert(reference.clone(), name.clone());
            if before.get(reference) != Some(resource) {
                update
                    .changes
                    .push(Change::Apply(Box::new(resource.clone())));
            }
        }
        let now_policy = policies(&resources);
        if changed_policy {
            update.facts.push(Fact::PolicyAccepted {
                file: name.clone(),
                policies: now_policy.clone(),
            });
        }
        if !now_policy.is_empty() {
            update.remember.push((name.clone(), Some(text)));
        } else if !was_policy.is_empty() {
            update.remember.push((name.clone(), None));
        }
        self.files.insert(
            name,
            File {
                resources,
                ..File::default()
            },
        );
    }

    fn refuse(
        &mut self,
        name: &str,
        diagnostics: Vec<String>,
        conflicted: Option<Text>,
        update: &mut Update,
    ) {
        let file = self.files.entry(name.to_owned()).or_default();
        for reference in file.resources.keys() {
            // Given up before the refusal was known.
            self.owners
                .entry(reference.clone())
                .or_insert_with(|| name.to_owned());
        }
        file.conflicted = conflicted;
        if file.diagnostics == diagnostics {
            return; // said already
        }
        file.diagnostics.clone_from(&diagnostics);
        update.facts.push(Fact::PolicyRejected {
            file: name.to_owned(),
            diagnostics,
        });
    }

    fn remove(&mut self, name: &str, update: &mut Update) {
        let Some(file) = self.files.remove(name) else {
            return;
        };
        for reference in file.resources.keys() {
            if self
                .owners
                .get(reference)
                .is_some_and(|owner| owner == name)
            {
                self.owners.remove(reference);
                update.changes.push(Change::Delete(reference.clone()));
            }
        }
        if !policies(&file.resources).is_empty() {
            update.remember.push((name.to_owned(), None));
            update.facts.push(Fact::PolicyAccepted {
                file: name.to_owned(),
                policies: Vec::new(),
            });
        }
    }
}

fn is_policy(resource: &Resource) -> bool {
    resource.kind().is_strict()
}

/// By name.
fn policies(resources: &HashMap<ResourceRef, Resource>) -> Vec<String> {
    let mut names: Vec<String> = resources
        .iter()
        .filter(|(_, resource)| is_policy(resource))
        .map(|(reference, _)| reference.to_string())
        .collect();
    names.sort();
    names
}
