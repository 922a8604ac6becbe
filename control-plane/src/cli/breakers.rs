//! `weir breakers`: who holds what open.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::json;
use weir_config::pb;

use super::client::{connect, failure, tell_of, unasked};
use super::table::Table;
use super::{Failure, Output, print};
use crate::journal::now_ms;
use crate::time::{ago, rfc3339};

const WATCH_EVERY: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Show circuit breakers and endpoint gates, one row a caller
///
/// A breaker guards a whole service (ENDPOINT is -), a gate one of its endpoints. Closed passes calls, Open refuses
/// them, HalfOpen lets a few through to find out, Ramping takes an endpoint back slowly. What is forced stays as it is,
/// whatever calls come to; what is observed refuses nobody, for its policy says mode: Observe.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Also those that are closed
    #[arg(short, long)]
    all: bool,

    /// Shows it again every second
    #[arg(short, long)]
    watch: bool,

    /// Only of this service, as namespace/name or namespace/name:port
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Hold all callers' breakers of a service open or closed for a while, or let go of them
    ///
    /// It holds for services without a breaker too, for all their routes, and over what policies say. It ends by itself,
    /// also when the control plane is gone. Of several replicas of the control plane any may be asked: the others know
    /// within seconds, and let go of it as soon.
    Force {
        /// namespace/name, or namespace/name:port for one port of several
        service: String,

        /// open refuses every call, closed passes every call, auto leaves it to what calls come to
        #[arg(value_enum)]
        to: To,

        /// Until it ends: 30s, 10m, at most 24h
        #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = span)]
        span: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    Open,
    Closed,
    Auto,
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<weir_config::units::Duration>()
        .map(weir_config::units::Duration::get)
}

async fn force(
    control_plane: &str,
    service: String,
    to: To,
    span: Duration,
) -> Result<(), Failure> {
    let (wanted, for_ms) = match to {
        To::Auto => (pb::Force::Auto, 0),
        To::Open => (pb::Force::Open, span.as_millis()),
        To::Closed => (pb::Force::Closed, span.as_millis()),
    };
    let request = pb::ForceBreakerRequest {
        service,
        to: wanted.into(),
        for_ms: u64::try_from(for_ms).unwrap_or(u64::MAX),
    };
    let mut client = connect(control_plane).await?;
    let answer = client.force_breaker(request).await.map_err(failure)?;
    let answer = answer.into_inner();
    let what = match to {
        To::Auto => "no longer forced".to_owned(),
        To::Open => format!("forced open until {}", rfc3339(answer.until_ms)),
        To::Closed => format!("forced closed until {}", rfc3339(answer.until_ms)),
    };
    for note in &answer.notes {
        eprintln!("note: {note}");
    }
    let lines = answer.services.iter();
    print(
        &lines
            .map(|service| format!("{service} {what}\n"))
            .collect::<String>(),
    )
}

pub(super) async fn run(control_plane: &str, arguments: Arguments) -> Result<(), Failure> {
    if let Some(Command::Force { service, to, span }) = arguments.command {
        return force(control_plane, service, to, span).await;
    }
    let mut client = connect(control_plane).await?;
    let mut shown = String::new();
    loop {
        let response = client
            .breakers(pb::BreakersRequest {})
            .await
            .map_err(failure)?;
        let unasked = unasked(&response);
        let rows: Vec<_> = response
            .into_inner()
            .breakers
            .into_iter()
            .filter(|row| arguments.wants(row))
            .collect();
        let text = match arguments.output {
            Output::Json => json_lines(&rows),
            Output::Text => table(&rows),
        };
        if !arguments.watch {
            tell_of(&unasked);
            return print(&text);
        }
        if std::io::stdout().is_terminal() {
            print(&format!("{CLEAR_SCREEN}{text}"))?;
            tell_of(&unasked);
        } else if text != shown {
            tell_of(&unasked);
            print(&text)?;
            shown = text;
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

impl Arguments {
    fn wants(&self, row: &pb::BreakerStatus) -> bool {
        let of_service = |wanted: &String| {
            let service = row.service.split(' ').next().unwrap_or_default();
            service == wanted
                || service
                    .rsplit_once(':')
                    .is_some_and(|(name, _)| name == wanted)
        };
        (self.all || row.state != "Closed" || row.forced)
            && self.service.as_ref().is_none_or(of_service)
    }
}

fn table(rows: &[pb::BreakerStatus]) -> String {
    let mut table = Table::new(&["SERVICE", "ENDPOINT", "STATE", "SINCE", "CALLER", "REASON"]);
    for row in rows {
        table.row([
            row.service.clone(),
            row.endpoint.clone(),
            match (row.forced, row.observed) {
                (_, true) => format!("{} (observed)", row.state),
                (true, false) => format!("{} (forced)", row.state),
                (false, false) => row.state.clone(),
            },
            ago(row.since_ms, now_ms()),
            row.caller.clone(),
            row.reason.clone(),
        ]);
    }
    if table.is_empty() {
        "every breaker and gate is closed\n".to_owned()
    } else {
        table.render()
    }
}

fn json_lines(rows: &[pb::BreakerStatus]) -> String {
    let line = |row: &pb::BreakerStatus| {
        json!({
            "service": row.service,
            "endpoint": row.endpoint,
            "state": row.state,
            "forced": row.forced,
            "observed": row.observed,
            "since": rfc3339(row.since_ms),
            "sinceMs": row.since_ms,
            "caller": row.caller,
            "reason": row.reason,
        })
    };
    rows.iter().map(|row| format!("{}\n", line(row))).collect()
}
