//! Our own kinds and routes of the Gateway API as the API has them, in force or refused: what their status has to say, and what it says now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use weir_config::ResourceRef;

#[derive(Clone, Default)]
pub struct Register(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    entries: BTreeMap<ResourceRef, Entry>,
    /// Grows with every change.
    revision: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub generation: Option<i64>,
    /// `spec.targetRefs`, as far as there is such a list.
    pub targets: Vec<Value>,
    /// Why its newest content is not in force; empty when it is.
    pub refused: Vec<String>,
    /// An older content of it is in force.
    pub has_last_good: bool,
    /// Nothing of it ever was, so that the strictest that it could mean is in force.
    pub is_stood_in_for: bool,
    /// As the API has it.
    pub status: Value,
}

impl Register {
    pub fn put(&self, resource: ResourceRef, entry: Entry) {
        let mut state = self.lock();
        if state.entries.get(&resource) != Some(&entry) {
            state.entries.insert(resource, entry);
            state.revision += 1;
        }
    }

    pub fn remove(&self, resource: &ResourceRef) {
        let mut state = self.lock();
        if state.entries.remove(resource).is_some() {
            state.revision += 1;
        }
    }

    pub fn get(&self, resource: &ResourceRef) -> Option<Entry> {
        self.lock().entries.get(resource).cloned()
    }

    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub fn entries(&self) -> Vec<(ResourceRef, Entry)> {
        let state = self.lock();
        let entries = state.entries.iter();
        entries
            .map(|(resource, entry)| (resource.clone(), entry.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
