//! The inbound sidecar against an app that has more to do than it can: G5 with a sidecar before the app, G6, G6b, G6c and G7 of resilience.md section 12.
//!
//! ```text
//!   sources (a caller, a tier, a pattern) ─▶ weir_proxy::policy::admission ─▶ server: 1000 requests a second
//! ```
//!
//! Everybody waits for a second, or for as long as is said, and goes. What is refused is not repeated.

mod change;
mod overload;
mod priority;
mod world;

use std::ops::Range;

use crate::record::Record;
use crate::server::{Config, Discipline};

/// Mean and worst second of what is completed, of what could be.
fn goodput(record: &Record, seconds: Range<u64>, capacity: f64) -> (f64, f64) {
    let all = record.seconds(seconds);
    let each = || all.iter().map(|second| second.completed as f64 / capacity);
    (
        each().sum::<f64>() / all.len() as f64,
        each().fold(f64::INFINITY, f64::min),
    )
}

fn server(discipline: Discipline) -> Config {
    Config {
        discipline,
        ..Config::default()
    }
}
