//! The command: arguments → plan → run → summary and exit code.

mod args;
mod screen;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use boutique_load::{Event, Plan, Report, run_until};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Arguments, Format, Output};
use crate::screen::Progress;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;
/// Files that are no connections: the runtime's, the output's.
const OTHER_FILES: u64 = 64;

fn main() -> ExitCode {
    let (plan, output) = match Arguments::parse().plan() {
        Ok(planned) => planned,
        Err(refused) => return complain(EXIT_USAGE, &refused),
    };
    let mut runtime = match output.threads.get() {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    let ran = runtime
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(load(plan, &output)));
    match ran {
        Ok(report) => conclude(&report, &output),
        Err(error) => complain(EXIT_FAILED, &error),
    }
}

fn complain(code: u8, why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("boutique-load: {why}");
    ExitCode::from(code)
}

async fn load(plan: Plan, output: &Output) -> std::io::Result<Report> {
    allow_files(plan.max_in_flight());
    let mut lines = output.jsonl.as_deref().map(create).transpose()?;
    let mut failed = None;
    let progress = Progress::new();
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminates = signal(SignalKind::terminate())?;
    let stop = async {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminates.recv() => {}
        }
        eprintln!("boutique-load: ending; what is in flight may finish, again to end at once");
        tokio::spawn(async move {
            interrupts.recv().await;
            std::process::exit(EXIT_INTERRUPTED.into());
        });
    };
    let on_event = |event: Event<'_>| match event {
        Event::Sample(sample, journeys) => {
            if let Some(file) = &mut lines {
                failed = write_line(file, &sample.line(journeys))
                    .err()
                    .or(failed.take());
            }
        }
        Event::Tick(tick) if !output.quiet => progress.show(tick),
        Event::Tick(_) => {}
    };
    let report = run_until(plan, on_event, stop).await;
    if !output.quiet {
        progress.end();
    }
    if let Some(file) = &mut lines {
        failed = failed.or(file.flush().err());
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

fn create(path: &Path) -> std::io::Result<BufWriter<File>> {
    let named = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    File::create(path).map(BufWriter::new).map_err(named)
}

fn write_line(file: &mut impl Write, line: &impl serde::Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// A connection is a file, and the usual limit of 1024 is a default, not a decision. Where the hard limit
/// is lower still, connections will fail and be counted as such.
fn allow_files(in_flight: usize) {
    let needed = u64::try_from(in_flight)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

fn conclude(report: &Report, output: &Output) -> ExitCode {
    let summary = match output.format {
        Format::Table => screen::table(report),
        Format::Json => format!("{:#}\n", report.to_json(output.interval)),
    };
    // A reader who left, as `head` does, has seen enough.
    let _ = std::io::stdout().write_all(summary.as_bytes());

    let success = report.summary().totals.success_ratio();
    if report.interrupted {
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    if !report.reached() {
        return complain(EXIT_FAILED, &"nothing answered");
    }
    match output.require_success {
        Some(required) if success < required => complain(
            EXIT_FAILED,
            &format!("success ratio {success:.4} is below {required}"),
        ),
        _ => ExitCode::SUCCESS,
    }
}
