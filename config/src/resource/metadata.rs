//! What every resource says of itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::null::or_empty;

/// The part of Kubernetes' ObjectMeta that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(
        default,
        deserialize_with = "or_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "or_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339 in UTC, as the API server writes it; such texts sort by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    #[serde(
        default,
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    pub kind: String,
    pub name: String,
}

/// `namespace/name`, or the name alone for what has no namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl Metadata {
    /// Where kubectl would put it: `default` when nothing is said.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace(), &self.name)
    }

    /// Sorts the oldest first; what has no age (a file) comes after what has one, then by name.
    pub(crate) fn seniority(&self) -> (bool, &str, &str, &str) {
        let created = self.creation_timestamp.as_deref();
        (
            created.is_none(),
            created.unwrap_or_default(),
            self.namespace(),
            &self.name,
        )
    }
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// For our own kinds: all that ObjectMeta has, and nothing else, so that `namepsace` is a mistake and not the
/// namespace `default`.
pub(super) fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Strict {
        name: String,
        namespace: Option<String>,
        #[serde(default, deserialize_with = "or_empty")]
        labels: BTreeMap<String, String>,
        #[serde(default, deserialize_with = "or_empty")]
        annotations: BTreeMap<String, String>,
        creation_timestamp: Option<String>,
        deletion_timestamp: Option<String>,
        generation: Option<i64>,
        #[serde(default, deserialize_with = "or_empty")]
        owner_references: Vec<OwnerReference>,
        #[serde(default, rename = "generateName")]
        _generate_name: IgnoredAny,
        #[serde(default, rename = "uid")]
        _uid: IgnoredAny,
        #[serde(default, rename = "resourceVersion")]
        _resource_version: IgnoredAny,
        #[serde(default, rename = "selfLink")]
        _self_link: IgnoredAny,
        #[serde(default, rename = "deletionGracePeriodSeconds")]
        _deletion_grace_period_seconds: IgnoredAny,
        #[serde(default, rename = "finalizers")]
        _finalizers: IgnoredAny,
        #[serde(default, rename = "managedFields")]
        _managed_fields: IgnoredAny,
    }
    let strict = Strict::deserialize(deserializer)?;
    Ok(Metadata {
        name: strict.name,
        namespace: strict.namespace,
        labels: strict.labels,
        annotations: strict.annotations,
        creation_timestamp: strict.creation_timestamp,
        deletion_timestamp: strict.deletion_timestamp,
        generation: strict.generation,
        owner_references: strict.owner_references,
    })
}
