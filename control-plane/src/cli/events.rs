//! `weir events`: the journal.

use std::str::FromStr;

use serde_json::{Value, json};
use weir_config::pb;

use super::client::{connect, failure, tell_of, unasked};
use super::{Failure, Output, paint, print};
use crate::journal::KINDS;
use crate::time::rfc3339;

/// What `--follow` shows of the past when nobody says how much.
const LAST_WHEN_FOLLOWING: u32 = 10;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  weir events --last 20
  weir events --follow --kind BreakerOpened --kind BreakerClosed
  weir events --follow --kind ThrottleBegan --kind SaturationBegan      who has too much to do
  weir events --kind PolicyRejected -o json | jq -r '.details.diagnostics[]'")]
pub(super) struct Arguments {
    /// Goes on with what happens from now on; shows the last 10 first unless --last says otherwise
    #[arg(short = 'F', long)]
    follow: bool,

    /// Only the newest N; everything that is kept when absent
    #[arg(long, value_name = "N", value_parser = number::<u32>)]
    last: Option<u32>,

    /// From this number on
    #[arg(long, value_name = "SEQ", conflicts_with = "last", default_value_t = 0, value_parser = number::<u64>)]
    from: u64,

    /// Only this kind; may be given several times
    #[arg(long, value_name = "KIND", ignore_case = true,
          value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    kind: Vec<String>,

    /// text, or json: one object a line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What the standard library says of another text ("invalid digit found in string") is for programmers.
fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "expected a whole number, such as 20".to_owned())
}

pub(super) async fn run(control_plane: &str, arguments: Arguments) -> Result<(), Failure> {
    let last = match arguments.last {
        Some(last) => last,
        None if arguments.follow && arguments.from == 0 => LAST_WHEN_FOLLOWING,
        None => 0,
    };
    let request = pb::EventsRequest {
        from_seq: arguments.from,
        follow: arguments.follow,
        last,
        kinds: arguments.kind,
    };
    let mut client = connect(control_plane).await?;
    let events = client.events(request).await.map_err(failure)?;
    tell_of(&unasked(&events));
    let mut events = events.into_inner();
    while let Some(event) = events.message().await.map_err(failure)? {
        match arguments.output {
            Output::Text => print(&text(&event))?,
            Output::Json => print(&format!("{}\n", json(&event)))?,
        }
    }
    if arguments.follow {
        return Err(Failure::Unreachable(
            "the control plane has stopped".to_owned(),
        ));
    }
    Ok(())
}

fn text(event: &pb::Event) -> String {
    // Padded before it is painted: colours have no width.
    let kind = paint::by_meaning(&format!("{:<21}", event.kind));
    let reporter = match event.reporter.as_str() {
        "" => String::new(),
        reporter if reporter == event.subject => String::new(),
        reporter => format!("  [{reporter}]"),
    };
    format!(
        "{}  {kind}  {:<30}  {}{reporter}\n",
        rfc3339(event.at_ms),
        event.subject,
        event.message
    )
}

fn json(event: &pb::Event) -> Value {
    json!({
        "seq": event.seq,
        "at": rfc3339(event.at_ms),
        "atMs": event.at_ms,
        "kind": event.kind,
        "subject": event.subject,
        "reporter": event.reporter,
        "message": event.message,
        "details": serde_json::from_str(&event.details_json).unwrap_or(Value::Null),
    })
}
