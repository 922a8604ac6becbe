//! What is known of one kind, and what news change.
//!
//! A list replaces everything at once, so that nobody ever sees half of it. An object of ours, or a route, with a mistake is
//! refused alone: its last good content stays in force, and so does everything else. Where that is not known and rights
//! hang on it, the strictest that it could mean [stands in](super::stand_in) for it.

use std::collections::{BTreeMap, HashMap, HashSet};

use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use weir_config::resource::ObjectName;
use weir_config::{Kind, Resource, ResourceRef, parse};

use super::Shared;
use super::object::{self, Read, concerns_the_mesh};
use super::register::Entry;
use super::stand_in::{self, stand_in};
use crate::journal::Fact;
use crate::mesh::Change;
use crate::source::files::Text;

pub(super) struct Listener {
    kind: Kind,
    shared: Shared,
    /// Objects that the API has, in order or not.
    known: HashSet<ObjectName>,
    /// Of those, the ones that are in force in some version.
    in_force: HashSet<ObjectName>,
    /// Last good content from before a restart, by the resource's full name.
    remembered: HashMap<String, String>,
    listing: Option<Listing>,
}

/// A list that is not complete yet.
#[derive(Default)]
struct Listing {
    seen: HashSet<ObjectName>,
    /// The newest of each object.
    changes: BTreeMap<ObjectName, Change>,
}

impl Listener {
    pub(super) fn new(kind: Kind, shared: Shared, remembered: HashMap<String, String>) -> Self {
        Self {
            kind,
            shared,
            known: HashSet::new(),
            in_force: HashSet::new(),
            remembered,
            listing: None,
        }
    }

    pub(super) fn hear(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::InitApply(object) if !concerns_the_mesh(self.kind, &object) => {}
            Event::Apply(object) if !concerns_the_mesh(self.kind, &object) => self.gone(&object),
            Event::Init => self.begin(),
            Event::InitApply(object) => {
                let name = object::name(&object, self.kind);
                let change = self.read(&object);
                let listing = self.listing.get_or_insert_default();
                listing.seen.insert(name.clone());
                listing.changes.extend(change.map(|change| (name, change)));
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => {
                self.known.insert(object::name(&object, self.kind));
                if let Some(change) = self.read(&object) {
                    self.shared.mesh.change([change]);
                }
            }
            Event::Delete(object) => self.gone(&object),
        }
    }

    /// The list before may have broken off. What was read of it is what is known now, so it is put in force with the next.
    fn begin(&mut self) {
        let Listing { seen, changes } = self.listing.take().unwrap_or_default();
        self.known.extend(seen);
        self.listing = Some(Listing {
            seen: HashSet::new(),
            changes,
        });
    }

    fn gone(&mut self, object: &DynamicObject) {
        let name = object::name(object, self.kind);
        if self.known.remove(&name) {
            let change = self.delete(&name);
            self.shared.mesh.change([change]);
        }
    }

    /// The list is complete: what is not in it is gone.
    fn replace(&mut self) {
        let Listing { seen, mut changes } = self.listing.take().unwrap_or_default();
        let gone: Vec<ObjectName> = self.known.difference(&seen).cloned().collect();
        for name in gone {
            let change = self.delete(&name);
            changes.insert(name, change);
        }
        self.known = seen;
        self.shared.mesh.change(changes.into_values());
        for forgotten in std::mem::take(&mut self.remembered).into_keys() {
            self.shared.memory.keep(&forgotten, None);
        }
    }

    fn delete(&mut self, name: &ObjectName) -> Change {
        let reference = self.reference(name);
        self.in_force.remove(name);
        if self.kind.is_strict() {
            let title = reference.to_string();
            self.shared.register.remove(&reference);
            self.shared.memory.keep(&title, None);
            let policies = Vec::new();
            let fact = Fact::PolicyAccepted {
                file: title,
                policies,
            };
            self.shared.journal.note(fact);
        }
        Change::Delete(reference)
    }

    /// What an object changes; nothing when it is refused.
    fn read(&mut self, object: &DynamicObject) -> Option<Change> {
        let name = object::name(object, self.kind);
        let reference = self.reference(&name);
        match object::read(self.kind, object, self.shared.mesh.trust_domain()) {
            Ok(read) => {
                if self.kind.is_strict() {
                    self.accepted(&reference, object, &read);
                }
                self.in_force.insert(name);
                Some(Change::Apply(Box::new(read.resource)))
            }
            Err(mistakes) => self.refused(name, &reference, object, mistakes),
        }
    }

    fn accepted(&mut self, reference: &ResourceRef, object: &DynamicObject, read: &Read) {
        let title = reference.to_string();
        let entry = entry(object, Vec::new(), true);
        let before = self.shared.register.get(reference);
        let is_new = before.is_none_or(|before| {
            before.generation != entry.generation || !before.refused.is_empty()
        });
        self.shared.register.put(reference.clone(), entry);
        let remembered = self.remembered.remove(&title);
        if is_new && remembered.as_ref() != Some(&read.text) {
            let text = Text {
                text: read.text.clone(),
                written_ms: None, // its creation timestamp is in it
            };
            self.shared.memory.keep(&title, Some(&text));
            let policies = vec![title.clone()];
            let fact = Fact::PolicyAccepted {
                file: title,
                policies,
            };
            self.shared.journal.note(fact);
        }
    }

    fn refused(
        &mut self,
        name: ObjectName,
        reference: &ResourceRef,
        object: &DynamicObject,
        mistakes: Vec<String>,
    ) -> Option<Change> {
        let title = reference.to_string();
        if !self.kind.is_strict() {
            tracing::warn!(
                resource = title,
                problem = mistakes.join("\n"),
                "cannot be read"
            );
            return None;
        }
        let recalled = self.recall(&title);
        if recalled.is_some() {
            self.in_force.insert(name.clone());
        }
        let change = match recalled {
            Some(resource) => Some(Change::Apply(Box::new(resource))),
            None if self.in_force.contains(&name) => None,
            None => self.in_place_of(reference, object),
        };
        let mut entry = entry(object, mistakes.clone(), self.in_force.contains(&name));
        entry.is_stood_in_for = !entry.has_last_good && matches!(change, Some(Change::Apply(_)));
        let before = self.shared.register.get(reference);
        let is_new = before.is_none_or(|before| before.refused != entry.refused);
        self.shared.register.put(reference.clone(), entry);
        if is_new {
            tracing::warn!(
                resource = title,
                "refused: the last good content stays in force, or what stands in for it\n{}",
                mistakes.join("\n")
            );
            self.shared.journal.note(Fact::PolicyRejected {
                file: title,
                diagnostics: mistakes,
            });
        }
        change
    }

    /// Of what was never in force; without it whoever it was to keep out would come in.
    fn in_place_of(&self, reference: &ResourceRef, object: &DynamicObject) -> Option<Change> {
        let applied = stand_in(self.kind, object).map(|it| Change::Apply(Box::new(it)));
        // What stood in for it a moment ago may not be meant any more.
        let deleted = || stand_in::is_for(self.kind).then(|| Change::Delete(reference.clone()));
        applied.or_else(deleted)
    }

    /// The content that was in force before a restart.
    fn recall(&mut self, title: &str) -> Option<Resource> {
        let text = self.remembered.remove(title)?;
        let located = parse(title, &text).ok()?.pop()?;
        Some(located.value)
    }

    fn reference(&self, name: &ObjectName) -> ResourceRef {
        ResourceRef {
            kind: self.kind,
            name: name.clone(),
        }
    }
}

fn entry(object: &DynamicObject, refused: Vec<String>, has_last_good: bool) -> Entry {
    let targets = object.data.pointer("/spec/targetRefs");
    let targets = targets.and_then(Value::as_array);
    Entry {
        generation: object.metadata.generation,
        targets: targets.into_iter().flatten().cloned().collect(),
        has_last_good: has_last_good && !refused.is_empty(),
        refused,
        is_stood_in_for: false,
        status: object.data.get("status").cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
