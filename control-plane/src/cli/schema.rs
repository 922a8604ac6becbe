//! `weir schema`: what an editor needs to complete and check our kinds.

use serde_json::json;
use weir_config::resource::{
    API_VERSION, AuthorizationPolicySpec, FaultPolicySpec, MeshConfigSpec, ResiliencePolicySpec,
};

use super::{Failure, print};

/// Print the JSON schema of a kind, for editors
#[derive(clap::Args)]
#[command(
    after_help = "Example (VS Code's YAML extension, first line of a policy file):
  # yaml-language-server: $schema=./resiliencepolicy.schema.json"
)]
pub(super) struct Arguments {
    #[arg(value_enum, ignore_case = true)]
    kind: Kind,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    #[value(name = "ResiliencePolicy")]
    ResiliencePolicy,
    #[value(name = "FaultPolicy")]
    FaultPolicy,
    #[value(name = "AuthorizationPolicy")]
    AuthorizationPolicy,
    #[value(name = "MeshConfig")]
    MeshConfig,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (kind, spec) = match arguments.kind {
        Kind::ResiliencePolicy => (
            "ResiliencePolicy",
            schemars::schema_for!(ResiliencePolicySpec),
        ),
        Kind::FaultPolicy => ("FaultPolicy", schemars::schema_for!(FaultPolicySpec)),
        Kind::AuthorizationPolicy => (
            "AuthorizationPolicy",
            schemars::schema_for!(AuthorizationPolicySpec),
        ),
        Kind::MeshConfig => ("MeshConfig", schemars::schema_for!(MeshConfigSpec)),
    };
    let mut spec = spec.to_value();
    let definitions = spec.as_object_mut().and_then(|spec| {
        spec.shift_remove("$schema");
        spec.shift_remove("$defs")
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "const": kind },
            "metadata": { "type": "object", "required": ["name"] },
            "spec": spec,
            "status": { "type": "object" },
        },
        "additionalProperties": false,
        "$defs": definitions.unwrap_or_else(|| json!({})),
    });
    print(&format!("{schema:#}\n"))
}
