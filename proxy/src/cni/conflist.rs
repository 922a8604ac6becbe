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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        Entry {
            kubeconfig: "/etc/cni/net.d/weir-cni.kubeconfig".into(),
            excluded_namespaces: vec!["kube-system".into()],
        }
    }

    #[test]
    fn a_chain_gets_our_entry_as_its_last() {
        let flannel = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;
        let expected = r#"{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    },
    {
      "type": "weir-cni",
      "kubeconfig": "/etc/cni/net.d/weir-cni.kubeconfig",
      "excludeNamespaces": [
        "kube-system"
      ],
      "capabilities": {
        "io.kubernetes.cri.pod-annotations": true
      }
    }
  ]
}
"#;
        assert_eq!(chain(flannel, &entry()).as_deref(), Ok(expected));
    }

    #[test]
    fn a_single_plugin_becomes_a_chain_of_two_with_all_that_it_said() {
        let single =
            r#"{"cniVersion":"0.3.1","name":"net","type":"bridge","ipam":{"type":"host-local"}}"#;
        assert!(is_single(single));
        let chained: Value =
            serde_json::from_str(&chain(single, &entry()).expect("a chain")).expect("JSON");
        assert_eq!(chained["cniVersion"], "0.3.1");
        assert_eq!(chained["name"], "net");
        assert_eq!(
            chained["plugins"][0],
            serde_json::from_str::<Value>(single).expect("JSON")
        );
        assert_eq!(chained["plugins"][1]["type"], "weir-cni");
    }

    #[test]
    fn an_older_entry_of_ours_is_replaced_and_moved_to_the_end() {
        let text = r#"{"cniVersion":"1.0.0","plugins":[{"type":"weir-cni","kubeconfig":"/old"},{"type":"bridge"}]}"#;
        let chained: Value =
            serde_json::from_str(&chain(text, &entry()).expect("a chain")).expect("JSON");
        assert_eq!(chained["plugins"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            chained["plugins"][1]["kubeconfig"],
            "/etc/cni/net.d/weir-cni.kubeconfig"
        );
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "no JSON"),
            ("[]", "no object"),
            ("{}", "neither plugins nor a type"),
            (r#"{"cniVersion":"1.0.0","plugins":{}}"#, "no list"),
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "no plugin"),
            (
                r#"{"cniVersion":"1.0.0","plugins":[{"type":"weir-cni"}]}"#,
                "no plugin",
            ),
            (r#"{"cniVersion":"0.2.0","type":"bridge"}"#, "0.2.0"),
            (r#"{"type":"bridge"}"#, "0.1.0"),
        ] {
            let error = chain(text, &entry()).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_name_that_a_runtime_reads_is_the_networks() {
        let names = [
            "weir-cni.kubeconfig",
            "20-b.conf",
            "10-a.conflist",
            "05-x.conf.weir-cni",
            "99-z.json",
        ];
        assert_eq!(primary(names), Some("10-a.conflist"));
        assert_eq!(primary(["README", "a.conf~"]), None);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-z]{1,6}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever is in it: a second time changes no byte, and taken out again it is what it was.
        #[test]
        fn adding_twice_is_adding_once_and_removing_gives_back_what_was_there(
            more in proptest::collection::vec(("[A-Z]{1,8}", json_value()), 0..4),
            plugins in proptest::collection::vec(json_value(), 1..4),
        ) {
            let mut network: Map<String, Value> = more.into_iter().collect();
            network.insert("cniVersion".into(), "1.0.0".into());
            network.insert("plugins".into(), plugins.into());
            let text = Value::Object(network.clone()).to_string();
            let once = chain(&text, &entry()).expect("a network");
            prop_assert_ne!(&once, &text);
            prop_assert_eq!(&chain(&once, &entry()).expect("a network"), &once);
            let back = unchain(&once).expect("a network").expect("it was in there");
            prop_assert_eq!(object(&back).expect("an object"), network);
            prop_assert_eq!(unchain(&back), Ok(None));
        }

        #[test]
        fn nonsense_is_refused_and_never_a_panic(text in "\\PC{0,40}") {
            let _ = (chain(&text, &entry()), unchain(&text), is_single(&text));
        }
    }
}
