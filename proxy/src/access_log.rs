//! The access log: one line a request, off unless asked for.
//!
//! Lines go through a bounded channel to a thread of their own: a slow reader of our standard output delays no request;
//! what does not fit is counted in the next line that does.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::SystemTime;

use http::Response;
use serde::Serialize;
use tokio::time::Instant;
use weir_config::snapshot::AccessLog as Format;

use crate::body::{Body, says_status};
use crate::error::Error;
use crate::policy::outcome::Outcome;
use crate::request::{Protocol, Request};
use crate::telemetry::Direction;

const LINES_WAITING_MAX: usize = 4096;
/// Longer paths are cut: a line must not be as long as a caller likes.
const PATH_BYTES_MAX: usize = 1024;

#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

struct Shared {
    format: AtomicU8,
    direction: Direction,
    lines: SyncSender<String>,
    lost: AtomicU64,
}

/// What is noted when a request comes, filled in when it is answered.
#[derive(Clone)]
pub struct Entry {
    method: String,
    path: String,
    authority: String,
    protocol: Protocol,
    caller: Option<Arc<str>>,
    trace: Option<String>,
    status: u16,
    grpc_status: Option<String>,
    flag: Option<&'static str>,
}

#[derive(Serialize)]
struct Line<'a> {
    time_ms: u128,
    direction: &'a str,
    service: &'a str,
    route: &'a str,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    protocol: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<&'a str>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'a str>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    lines_lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AccessLog {
    pub fn new(direction: Direction, format: Format) -> Self {
        let (lines, receiver) = sync_channel::<String>(LINES_WAITING_MAX);
        let log = Self(Arc::new(Shared {
            format: AtomicU8::new(0),
            direction,
            lines,
            lost: AtomicU64::new(0),
        }));
        log.set_format(format);
        std::thread::Builder::new()
            .name(format!("access-log-{}", direction.as_str()))
            .stack_size(64 * 1024)
            .spawn(move || {
                while let Ok(line) = receiver.recv() {
                    // Nobody reads: the next line may fare better.
                    let _ = std::io::stdout().lock().write_all(line.as_bytes());
                }
            })
            .expect("a thread can be started");
        log
    }

    pub fn set_format(&self, format: Format) {
        let number = match format {
            Format::Disabled => 0,
            Format::Json => 1,
            Format::Text => 2,
        };
        self.0.format.store(number, Ordering::Relaxed);
    }

    pub fn is_enabled(&self) -> bool {
        self.0.format.load(Ordering::Relaxed) != 0
    }

    pub fn write(
        &self,
        entry: Option<Box<Entry>>,
        service: &str,
        route: &str,
        outcome: Outcome,
        received: Instant,
    ) {
        let Some(entry) = entry else { return };
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let line = Line {
            time_ms: time.as_millis(),
            direction: self.0.direction.as_str(),
            service,
            route,
            method: &entry.method,
            authority: &entry.authority,
            path: &entry.path,
            protocol: match entry.protocol {
                Protocol::Http1 => "HTTP/1.1",
                Protocol::Http2 => "HTTP/2",
            },
            status: entry.status,
            grpc_status: entry.grpc_status.as_deref(),
            outcome: match outcome {
                Outcome::Success => "success",
                Outcome::Failure(_) => "failure",
                Outcome::Cancelled => "cancelled",
            },
            flag: entry.flag,
            duration_ms: received.elapsed().as_secs_f64() * 1e3,
            caller: entry.caller.as_deref(),
            traceparent: entry.trace.as_deref(),
            lines_lost: self.0.lost.swap(0, Ordering::Relaxed),
        };
        let text = if self.0.format.load(Ordering::Relaxed) == 1 {
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        } else {
            format!(
                "{} {} {} {} {}{} {} {:.3}ms {}\n",
                line.time_ms,
                line.direction,
                line.service,
                line.method,
                line.authority,
                line.path.escape_debug(),
                line.status,
                line.duration_ms,
                line.flag.unwrap_or("-"),
            )
        };
        if self.0.lines.try_send(text).is_err() {
            self.0
                .lost
                .fetch_add(1 + line.lines_lost, Ordering::Relaxed);
        }
    }
}

impl Entry {
    pub fn of(request: &Request) -> Self {
        let header = |name: &str| {
            request
                .head
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let uri = &request.head.uri;
        Self {
            method: request.head.method.to_string(),
            path: uri.path().chars().take(PATH_BYTES_MAX).collect(),
            authority: uri
                .authority()
                .map(|authority| authority.as_str())
                .or(header("host"))
                .unwrap_or("")
                .to_owned(),
            protocol: request.context.protocol,
            caller: request.context.caller.clone(),
            trace: header("traceparent").map(str::to_owned),
            status: 0,
            grpc_status: None,
            flag: None,
        }
    }

    pub fn answered(&mut self, response: &Response<Body>) {
        self.status = response.status().as_u16();
        self.grpc_status = says_status(response)
            .get(&crate::head::GRPC_STATUS)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
    }

    pub fn failed(&mut self, error: &Error) {
        let facts = error.facts();
        self.status = facts.http.as_u16();
        self.flag = Some(facts.flag);
    }
}
