//! `weir breakers`: who holds what open.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::json;
use weir_config::pb;

use super::client::{connect, failure};
use super::table::Table;
use super::{Failure, Output, print};
use crate::journal::now_ms;
use crate::time::{ago, rfc3339};

const WATCH_EVERY: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Show circuit breakers and endpoint gates, one row a caller
///
/// A breaker guards a whole service (ENDPOINT is -), a gate one of its endpoints. Closed passes calls, Open refuses
/// them, HalfOpen lets a few through to find out, Ramping takes an endpoint back slowly.
#[derive(clap::Args)]
pub(super) struct Arguments {
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

pub(super) async fn run(control_plane: &str, arguments: Arguments) -> Result<(), Failure> {
    let mut client = connect(control_plane).await?;
    let mut shown = String::new();
    loop {
        let response = client
            .breakers(pb::BreakersRequest {})
            .await
            .map_err(failure)?
            .into_inner();
        let rows: Vec<_> = response
            .breakers
            .into_iter()
            .filter(|row| arguments.wants(row))
            .collect();
        let text = match arguments.output {
            Output::Json => json_lines(&rows),
            Output::Text => table(&rows),
        };
        if !arguments.watch {
            return print(&text);
        }
        if std::io::stdout().is_terminal() {
            print(&format!("{CLEAR_SCREEN}{text}"))?;
        } else if text != shown {
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
        (self.all || row.state != "Closed") && self.service.as_ref().is_none_or(of_service)
    }
}

fn table(rows: &[pb::BreakerStatus]) -> String {
    let mut table = Table::new(&["SERVICE", "ENDPOINT", "STATE", "SINCE", "CALLER", "REASON"]);
    for row in rows {
        table.row([
            row.service.clone(),
            row.endpoint.clone(),
            row.state.clone(),
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
            "since": rfc3339(row.since_ms),
            "sinceMs": row.since_ms,
            "caller": row.caller,
            "reason": row.reason,
        })
    };
    rows.iter().map(|row| format!("{}\n", line(row))).collect()
}
