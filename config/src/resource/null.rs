//! What an API server makes of a `null`: a list, a map or an object in which nothing is.

use serde::{Deserialize, Deserializer};

/// For fields of Kubernetes' kinds. `kubectl get -o yaml` writes `endpoints: null`, a template of Helm that has nothing to
/// say `labels:` and no more, and both are taken by every API server. In our own `spec` it is a mistake.
pub(super) fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Option::deserialize(deserializer)?;
    Ok(value.unwrap_or_default())
}
