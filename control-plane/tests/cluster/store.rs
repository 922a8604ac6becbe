//! What the API double keeps: objects, and every change of them with its version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Real ones do not remember for ever, either.
const HISTORY_MAX: usize = 4000;

/// An answer that is no success: HTTP status, and the reason in Kubernetes' words.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `api/v1/pods`, `apis/weir.dev/v1alpha1/resiliencepolicies`
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

pub struct Store {
    pub version: u64,
    pub objects: BTreeMap<Key, Value>,
    log: Vec<Logged>,
    /// Changes up to this version are forgotten.
    compacted: u64,
    pub changed: watch::Sender<u64>,
}

#[derive(Clone)]
struct Logged {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            version: 1,
            objects: BTreeMap::new(),
            log: Vec::new(),
            compacted: 0,
            changed: watch::Sender::new(1),
        }
    }
}

impl Store {
    pub fn get(&self, key: &Key) -> Result<Value, Failure> {
        self.objects.get(key).cloned().ok_or_else(|| not_found(key))
    }

    pub fn create(&mut self, mut key: Key, mut object: Value) -> Result<Value, Failure> {
        let metadata = metadata(&mut object);
        if key.name.is_empty() {
            let prefix = metadata["generateName"].as_str().unwrap_or_default();
            key.name = format!("{prefix}{:05}", self.version);
        }
        if self.objects.contains_key(&key) {
            let message = format!("{} already exists", key.name);
            return Err(failure(409, "AlreadyExists", message));
        }
        metadata.insert("name".to_owned(), json!(key.name));
        metadata.insert("uid".to_owned(), json!(format!("uid-{}", self.version)));
        metadata.insert("generation".to_owned(), json!(1));
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| json!("2026-11-26T03:00:00Z"));
        if !key.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(key.namespace));
        }
        Ok(self.put(key, object))
    }

    /// `status`: only that part is taken, as of a status subresource; else everything but that.
    pub fn replace(&mut self, key: &Key, new: Value, status: bool) -> Result<Value, Failure> {
        let before = self.get(key)?;
        let sent = new["metadata"]["resourceVersion"].as_str();
        if sent.is_some_and(|sent| before["metadata"]["resourceVersion"] != sent) {
            let message = "the object has been modified".to_owned();
            return Err(failure(409, "Conflict", message));
        }
        let mut after = if status { before.clone() } else { new.clone() };
        let part = if status { &new } else { &before };
        match part.get("status").filter(|_| status || has_status(key)) {
            Some(part) => after["status"] = part.clone(),
            None if status => {}
            None => {}
        }
        for kept in [
            "uid",
            "generation",
            "creationTimestamp",
            "name",
            "namespace",
        ] {
            if let Some(value) = before["metadata"].get(kept) {
                after["metadata"][kept] = value.clone();
            }
        }
        if before.get("spec") != after.get("spec") {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            after["metadata"]["generation"] = json!(generation + 1);
        }
        let unchanged = before == after;
        Ok(if unchanged {
            before
        } else {
            self.put(key.clone(), after)
        })
    }

    pub fn merge(&mut self, key: &Key, patch: &Value, status: bool) -> Result<Value, Failure> {
        let mut object = self.get(key)?;
        merge(&mut object, patch);
        self.replace(key, object, status)
    }

    /// Server-side apply. Lists belong to one manager as a whole.
    pub fn apply(
        &mut self,
        key: &Key,
        manager: &str,
        force: bool,
        mut applied: Value,
        status: bool,
    ) -> Result<Value, Failure> {
        if let Some(metadata) = applied["metadata"].as_object_mut() {
            metadata.retain(|field, _| ["labels", "annotations"].contains(&field.as_str()));
        }
        let mut object = match self.get(key) {
            Ok(object) => object,
            Err(missing) if status => return Err(missing),
            Err(_) => self.create(key.clone(), applied.clone())?,
        };
        let mut owners = owners(&object);
        let leaves = leaves(&applied);
        for (path, value) in &leaves {
            let others = owners
                .iter()
                .filter(|(owner, paths)| *owner != manager && paths.contains(path));
            let other = others.map(|(owner, _)| owner.clone()).next();
            if let Some(other) = other.filter(|_| object.pointer(path) != Some(value)) {
                if !force {
                    let message = format!("conflict with {other:?}: {path}");
                    return Err(failure(409, "Conflict", message));
                }
                owners.entry(other).or_default().remove(path);
            }
        }
        let given_up = owners.remove(manager).unwrap_or_default();
        for path in given_up
            .iter()
            .filter(|path| !leaves.iter().any(|(leaf, _)| leaf == *path))
        {
            remove(&mut object, path);
        }
        merge(&mut object, &applied);
        owners.insert(
            manager.to_owned(),
            leaves.into_iter().map(|(path, _)| path).collect(),
        );
        let managed: Vec<Value> = owners
            .iter()
            .map(|(manager, paths)| json!({ "manager": manager, "operation": "Apply", "fieldsV1": { "paths": paths } }))
            .collect();
        object["metadata"]["managedFields"] = Value::Array(managed);
        // Of the status subresource nothing else changes, but whose fields they are.
        let managed = object["metadata"]["managedFields"].clone();
        let mut result = self.replace(key, object, status)?;
        if result["metadata"]["managedFields"] != managed {
            result["metadata"]["managedFields"] = managed;
            result = self.put(key.clone(), result);
        }
        Ok(result)
    }

    pub fn delete(&mut self, key: &Key) -> Result<Value, Failure> {
        let before = self.objects.remove(key).ok_or_else(|| not_found(key))?;
        self.record(key.clone(), Some(before.clone()), None);
        Ok(before)
    }

    /// Forgets the history: whoever watches from before now has to list again.
    pub fn compact(&mut self) {
        // A change that nobody watches, so that every version handed out so far is an old one.
        self.version += 1;
        self.compacted = self.version;
        self.log.clear();
        self.changed.send_replace(self.version);
    }

    /// The events after `version`, as the API streams them; `None`: they are forgotten.
    pub fn since(
        &self,
        version: u64,
        resource: &str,
        matches: impl Fn(&Key, &Value) -> bool,
    ) -> Option<Vec<Value>> {
        if version < self.compacted {
            return None;
        }
        let news = self
            .log
            .iter()
            .filter(|logged| logged.version > version && logged.key.resource == resource);
        let events = news.filter_map(|logged| {
            let matching = |object: &Option<Value>| {
                let object = object.as_ref();
                object.is_some_and(|object| matches(&logged.key, object))
            };
            let (before, after) = (matching(&logged.before), matching(&logged.after));
            let (event, object) = match (before, after) {
                (false, true) => ("ADDED", &logged.after),
                (true, true) => ("MODIFIED", &logged.after),
                (true, false) => ("DELETED", &logged.before),
                (false, false) => return None,
            };
            let mut object = object.clone()?;
            object["metadata"]["resourceVersion"] = json!(logged.version.to_string());
            Some(json!({ "type": event, "object": object }))
        });
        Some(events.collect())
    }

    fn put(&mut self, key: Key, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.version + 1).to_string());
        let before = self.objects.insert(key.clone(), object.clone());
        self.record(key, before, Some(object.clone()));
        object
    }

    fn record(&mut self, key: Key, before: Option<Value>, after: Option<Value>) {
        if self.log.len() == HISTORY_MAX {
            let mut forgotten = self.log.drain(..HISTORY_MAX / 2);
            self.compacted = forgotten.next_back().map_or(0, |last| last.version);
        }
        self.version += 1;
        self.log.push(Logged {
            version: self.version,
            key,
            before,
            after,
        });
        self.changed.send_replace(self.version);
    }
}

/// Kinds whose status is a subresource.
fn has_status(key: &Key) -> bool {
    key.resource.contains("weir.dev")
        || key.resource.contains("gateway")
        || key.resource.ends_with("/pods")
}

pub fn failure(code: u16, reason: &'static str, message: String) -> Failure {
    Failure {
        code,
        reason,
        message,
    }
}

fn not_found(key: &Key) -> Failure {
    let message = format!("{} {:?} not found", key.resource, key.name);
    failure(404, "NotFound", message)
}

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("it is one now")
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("it is one now");
    for (key, value) in fields {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// JSON pointers of everything that is no object, with the values.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        match value.as_object() {
            Some(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    walk(value, &format!("{path}/{key}"), found);
                }
            }
            _ => found.push((path.to_owned(), value.clone())),
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

fn owners(object: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let managed = object["metadata"]["managedFields"].as_array();
    let entries = managed.into_iter().flatten().filter_map(|entry| {
        let manager = entry["manager"].as_str()?.to_owned();
        let paths = entry["fieldsV1"]["paths"].as_array()?.iter();
        let paths = paths.filter_map(|path| Some(path.as_str()?.to_owned()));
        Some((manager, paths.collect()))
    });
    entries.collect()
}

fn remove(object: &mut Value, path: &str) {
    let Some((parent, key)) = path.rsplit_once('/') else {
        return;
    };
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(&key.replace("~1", "/").replace("~0", "~"));
    }
}
