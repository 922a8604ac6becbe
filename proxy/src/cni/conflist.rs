//! A network's configuration with our entry in it, and without. Text in, text out; decides everything, does nothing.
//!
//! Runtimes read the files of a folder in the order of their names, and the first is the cluster's network. Our entry
//! stands last in its chain, where the pod has its addresses. Everything else in the file stays as it is.

use serde_json::{Map, Value, json};

use super::NAME;
use super::network::{ANNOTATIONS, VERSIONS};

/// What our entry in a chain says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where the runtime's plugin finds its credentials, on the node.
    pub(super) kubeconfig: String,
    pub(super) excluded_namespaces: Vec<String>,
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "type": NAME,
            "kubeconfig": self.kubeconfig,
            "excludeNamespaces": self.excluded_namespaces,
            "capabilities": { ANNOTATIONS: true },
        })
    }
}

/// The name that a runtime takes.
pub(super) fn primary<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let read = |name: &&str| {
        [".conf", ".conflist", ".json"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    names.into_iter().filter(read).min()
}

/// Whether it is a single plugin, which has no chain until it is given one.
pub(super) fn is_single(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|network| network.get("plugins").is_none())
}

/// With our entry last; a single plugin becomes a chain. What is right already comes back as it was.
pub(super) fn chain(text: &str, entry: &Entry) -> Result<String, String> {
    let before = object(text)?;
    let mut network = match before.get("plugins") {
        Some(_) => before.clone(),
        None => single(&before)?,
    };
    let version = network
        .get("cniVersion")
        .and_then(Value::as_str)
        .unwrap_or("0.1.0");
    if !VERSIONS.contains(&version) {
        return Err(format!(
            "its cniVersion is {version}: weir-cni has {}",
            VERSIONS.join(", ")
        ));
    }
    let plugins = network.get_mut("plugins").and_then(Value::as_array_mut);
    let plugins = plugins.ok_or("its plugins are no list")?;
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        return Err("there is no plugin in it that makes a network".to_owned());
    }
    plugins.push(entry.json());
    Ok(written(text, &before, &network))
}

/// Without our entry. `None`: there is none in it.
pub(super) fn unchain(text: &str) -> Result<Option<String>, String> {
    let before = object(text)?;
    let mut network = before.clone();
    let plugins = network.get_mut("plugins").and_then(Value::as_array_mut);
    if let Some(plugins) = plugins {
        plugins.retain(|plugin| !is_ours(plugin));
    }
    let is_changed = network != before;
    Ok(is_changed.then(|| written(text, &before, &network)))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(network)) => Ok(network),
        Ok(_) => Err("it is no object".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

fn single(plugin: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    if plugin.get("type").and_then(Value::as_str).is_none() {
        return Err("it has neither plugins nor a type".to_owned());
    }
    let mut network = Map::new();
    for shared in ["cniVersion", "name"] {
        network.extend(
            plugin
                .get(shared)
                .map(|value| (shared.to_owned(), value.clone())),
        );
    }
    network.insert("plugins".to_owned(), json!([plugin]));
    Ok(network)
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(NAME)
}

fn written(text: &str, before: &Map<String, Value>, after: &Map<String, Value>) -> String {
    match before == after {
        true => text.to_owned(),
        false => format!("{:#}\n", Value::Object(after.clone())),
    }
}

#[cfg(test)]
mod tests;
