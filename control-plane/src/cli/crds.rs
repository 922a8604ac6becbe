//! `weir crds`: our kinds, as an API server must know them before the first policy.

use weir_config::crd;

use super::{Failure, print};

/// Print the CustomResourceDefinitions of our kinds; needs no control plane
///
/// The same as charts/weir-crds installs, made from the types that read policies.
#[derive(clap::Args)]
#[command(after_help = "Example:
  weir crds | kubectl apply --server-side -f -")]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    print(&text())
}

/// One document for each kind.
pub(super) fn text() -> String {
    let mut text = String::new();
    for definition in crd::all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition).expect("plain data"));
    }
    text
}
