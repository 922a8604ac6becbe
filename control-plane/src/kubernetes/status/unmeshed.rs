//! The words for pods before which no sidecar stands.

use weir_config::Kind;
use weir_config::compile::Unmeshed;
use weir_config::resource::ObjectName;

/// More are only counted: who starts them anew finds the rest by `kubectl get pods`.
const NAMED_MAX: usize = 3;

/// `kind`: of the policy that does not hold there.
pub(super) fn words(unmeshed: &Unmeshed, kind: Kind) -> String {
    let Unmeshed { pods, of } = unmeshed;
    let so = match kind {
        Kind::AuthorizationPolicy => "anybody is let in there",
        _ => "what is said inbound does not hold there",
    };
    let named: Vec<String> = (pods.iter().take(NAMED_MAX))
        .map(ObjectName::to_string)
        .collect();
    let named = named.join(", ");
    let more = match pods.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "no sidecar stands before {} of {of} pods, and {so}: {named}{more}",
        pods.len()
    )
}
