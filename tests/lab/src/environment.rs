//! A container's environment: values, references to pod fields and config maps, `$(NAME)`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::manifest::{Key, Manifests};
use crate::spec::{ContainerSpec, EnvSource, KeyRef, ResourceFieldRef};

/// What a container may refer to.
pub struct References<'a> {
    /// The whole pod as JSON, with its `status.podIP`, for the downward API.
    pub pod: &'a Value,
    pub namespace: &'a str,
    pub manifests: &'a Manifests,
}

impl References<'_> {
    /// Every variable of the container, in the order in which it names them.
    pub fn environment(&self, container: &ContainerSpec) -> Result<Vec<(String, String)>, String> {
        let mut known: Vec<(String, String)> = Vec::new();
        for from in &container.env_from {
            let sources = [
                (
                    &from.config_map_ref,
                    &self.manifests.config_maps,
                    "ConfigMap",
                ),
                (&from.secret_ref, &self.manifests.secrets, "Secret"),
            ];
            for (reference, store, kind) in sources {
                let Some(reference) = reference else { continue };
                match store.get(&self.key(&reference.name)) {
                    Some(data) => known
                        .extend(data.iter().map(|(name, value)| {
                            (format!("{}{name}", from.prefix), value.clone())
                        })),
                    None if reference.optional => {}
                    None => return Err(format!("{kind} {} does not exist", reference.name)),
                }
            }
        }
        for variable in &container.env {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) => Some(expand(value, &known)),
                (None, Some(source)) => self
                    .look_up(source, container)
                    .map_err(|why| format!("env {}: {why}", variable.name))?,
                (None, None) => Some(String::new()),
            };
            if let Some(value) = value {
                known.retain(|(name, _)| *name != variable.name);
                known.push((variable.name.clone(), value));
            }
        }
        Ok(known)
    }

    fn look_up(
        &self,
        from: &EnvSource,
        container: &ContainerSpec,
    ) -> Result<Option<String>, String> {
        if let Some(field) = &from.field_ref {
            return self.field(&field.field_path).map(Some);
        }
        if let Some(reference) = &from.config_map_key_ref {
            return self.entry(&self.manifests.config_maps, reference, "ConfigMap");
        }
        if let Some(reference) = &from.secret_key_ref {
            return self.entry(&self.manifests.secrets, reference, "Secret");
        }
        if let Some(reference) = &from.resource_field_ref {
            return self.resource(reference, container).map(Some);
        }
        Err("an empty valueFrom".to_owned())
    }

    fn entry(
        &self,
        store: &BTreeMap<Key, BTreeMap<String, String>>,
        reference: &KeyRef,
        kind: &str,
    ) -> Result<Option<String>, String> {
        let found = store
            .get(&self.key(&reference.name))
            .and_then(|data| data.get(&reference.key));
        match found {
            Some(value) => Ok(Some(value.clone())),
            None if reference.optional => Ok(None),
            None => Err(format!(
                "{kind} {} has no {}",
                reference.name, reference.key
            )),
        }
    }

    fn key(&self, name: &str) -> Key {
        (self.namespace.to_owned(), name.to_owned())
    }

    /// A field of the downward API, such as `status.podIP` or `metadata.labels['app']`.
    pub fn field(&self, path: &str) -> Result<String, String> {
        if let Some((map, key)) = subscript(path) {
            return Ok(self
                .pod
                .pointer(&format!("/{}", map.replace('.', "/")))
                .and_then(|map| map.get(key))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned());
        }
        match path {
            "status.podIPs" => {
                let ips = self.pod.pointer("/status/podIPs").and_then(Value::as_array);
                let ips: Vec<&str> = ips
                    .into_iter()
                    .flatten()
                    .filter_map(|ip| ip["ip"].as_str())
                    .collect();
                Ok(ips.join(","))
            }
            "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.serviceAccountName"
            | "status.hostIP"
            | "status.podIP" => Ok(self
                .pod
                .pointer(&format!("/{}", path.replace('.', "/")))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()),
            _ => Err(format!("field {path} is not one of the downward API's")),
        }
    }

    /// Limits as the downward API rounds them: whole CPUs, and the machine's where none is set.
    fn resource(
        &self,
        from: &ResourceFieldRef,
        container: &ContainerSpec,
    ) -> Result<String, String> {
        let (group, name) = from
            .resource
            .split_once('.')
            .ok_or_else(|| format!("resource {} is not known", from.resource))?;
        let set = container.resources[group][name].as_str().map(str::to_owned);
        let set = set.or_else(|| {
            container.resources[group][name]
                .as_u64()
                .map(|n| n.to_string())
        });
        match (name, set) {
            ("cpu", Some(quantity)) => whole_cpus(&quantity)
                .map(|cpus| cpus.to_string())
                .ok_or_else(|| format!("cpu quantity {quantity} is not understood")),
            ("cpu", None) => Ok(std::thread::available_parallelism()
                .map_or(1, usize::from)
                .to_string()),
            ("memory", Some(quantity)) => whole_bytes(&quantity)
                .map(|bytes| bytes.to_string())
                .ok_or_else(|| format!("memory quantity {quantity} is not understood")),
            (_, Some(quantity)) => Ok(quantity),
            (_, None) => Ok("0".to_owned()),
        }
    }
}

fn whole_cpus(quantity: &str) -> Option<u64> {
    match quantity.strip_suffix('m') {
        Some(milli) => Some(milli.parse::<u64>().ok()?.div_ceil(1000)),
        None => Some(quantity.parse::<f64>().ok()?.ceil() as u64),
    }
}

fn whole_bytes(quantity: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let of_unit = |(suffix, unit): (&str, u64)| Some((quantity.strip_suffix(suffix)?, unit));
    let (number, unit) = UNITS.into_iter().find_map(of_unit).unwrap_or((quantity, 1));
    Some((number.parse::<f64>().ok()? * unit as f64).ceil() as u64)
}

/// `metadata.labels['app']` → (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Replaces `$(NAME)` by what is known of NAME; `$$(NAME)` stands for itself, and so does a name
/// nobody knows.
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest
            .strip_prefix("$(")
            .and_then(|inner| inner.split_once(')'));
        let value = reference.and_then(|(name, _)| known.iter().find(|(known, _)| known == name));
        match (reference, value) {
            (Some((_, after)), Some((_, value))) => {
                out.push_str(value);
                rest = after;
            }
            _ => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(env: Value) -> Result<Vec<(String, String)>, String> {
        let pod = json!({
            "metadata": {"name": "cart-0", "uid": "u-1", "labels": {"app.kubernetes.io/name": "cart"}},
            "status": {"podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd10:244::2"}]},
        });
        let mut manifests = Manifests::default();
        manifests.config_maps.insert(
            ("shop".into(), "knobs".into()),
            [("latency".to_owned(), "5".to_owned())].into(),
        );
        let references = References {
            pod: &pod,
            namespace: "shop",
            manifests: &manifests,
        };
        let container = json!({"name": "cart", "env": env, "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}});
        references.environment(&serde_json::from_value(container).unwrap())
    }

    #[test]
    fn variables_come_from_values_pod_fields_config_maps_and_limits() {
        let env = resolve(json!([
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app.kubernetes.io/name']"}}},
            {"name": "LATENCY", "valueFrom": {"configMapKeyRef": {"name": "knobs", "key": "latency"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "BYTES", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {"name": "URL", "value": "http://$(IP):$(PORT)/$$(IP)"},
        ]))
        .unwrap();
        let values: Vec<&str> = env.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            values,
            [
                "10.244.0.2",
                "10.244.0.2,fd10:244::2",
                "cart",
                "5",
                "2",
                "67108864",
                "http://10.244.0.2:$(PORT)/$(IP)"
            ]
        );
    }

    #[test]
    fn a_reference_to_nothing_says_which_variable_wanted_it() {
        let error = resolve(json!([
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "knobs", "key": "speed"}}}
        ]))
        .unwrap_err();
        assert_eq!(error, "env X: ConfigMap knobs has no speed");
    }
}
