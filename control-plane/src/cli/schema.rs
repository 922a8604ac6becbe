//! `weir schema`: what an editor needs to complete and check our kinds.

use weir_config::{Kind, schema};

use super::{Failure, print};

/// Print the JSON schema of a kind, for editors
#[derive(clap::Args)]
#[command(
    after_help = "Example (VS Code's YAML extension, first line of a policy file):
  # yaml-language-server: $schema=./resiliencepolicy.schema.json"
)]
pub(super) struct Arguments {
    #[arg(ignore_case = true, value_parser = clap::builder::PossibleValuesParser::new(schema::KINDS.map(Kind::name)))]
    kind: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let named = |kind: &Kind| kind.name().eq_ignore_ascii_case(&arguments.kind);
    let kind = schema::KINDS.into_iter().find(named);
    let schema = kind.and_then(schema::json_schema);
    let schema = schema.ok_or_else(|| Failure::Usage(format!("no kind {}", arguments.kind)))?;
    print(&format!("{schema:#}\n"))
}
