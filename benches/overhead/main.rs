//! `cargo bench --bench overhead`: what a hop through Weir costs, beside no proxy, a bare relay, Envoy, HAProxy and nginx.
//!
//! ```text
//!   tools      build Weir, install the peers
//!   sandbox    a network and a process table of our own
//!   subject    start every subject: weir, envoy, haproxy, nginx, relay, peers
//!   rounds     interleaved: every subject, every shape, in a new order each round ── engine: the load and the backend
//!   memory     resident memory, start to ready
//!   target     what issue 3 asks for, met or missed
//!   table, json, svg
//! ```
//!
//! `-- instructions` is the gate: instructions a request, under callgrind. Everything is explained in benches/README.md.

#![allow(unreachable_pub)] // the modules of a program are its own
#![cfg_attr(test, allow(dead_code, unused_imports))] // the tests inside them run in tests/overhead.rs

mod arguments;
mod certificates;
mod connection;
mod engine;
mod envoy;
mod haproxy;
mod hpack;
mod http1;
mod http2;
mod instructions;
mod json;
mod lineup;
mod memory;
mod mesh;
mod nginx;
mod peers;
mod process;
mod relay;
mod rounds;
mod run;
mod sandbox;
mod shape;
mod stage;
mod statistic;
mod subject;
mod svg;
mod syscalls;
mod table;
mod target;
mod tools;
mod weir;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use arguments::{Arguments, Command};
use engine::{Engine, Trouble};
use lineup::Lineup;
use table::Report;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.command.clone() {
        Some(Command::Instructions { write, profile, .. }) => instructions::require()
            .and_then(|()| inside(&arguments))
            .and_then(|()| instructions::run(write, profile.as_deref(), interrupted())),
        Some(Command::Syscalls { .. }) => syscalls::require()
            .and_then(|()| inside(&arguments))
            .and_then(|()| syscalls::run(interrupted())),
        None => inside(&arguments).and_then(|()| overhead(&arguments)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Interrupted) => ExitCode::from(130),
        Err(trouble) => {
            eprintln!("overhead: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Builds and installs outside, where there is a network; returns inside, where there is none.
fn inside(arguments: &Arguments) -> Result<(), Trouble> {
    let explain = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Trouble::Io(what, error)
    };
    if !sandbox::is_inside() {
        if arguments.command.is_none() {
            tools::require_release().map_err(explain("building"))?;
        }
        tools::build().map_err(explain("building"))?;
        let is_gate = matches!(arguments.command, Some(Command::Instructions { .. }));
        if !is_gate || tools::is_release().map_err(explain("building"))? {
            tools::build_alone(relay::PACKAGE).map_err(explain("building"))?;
        }
        if !arguments.offline && arguments.command.is_none() {
            tools::install_peers();
        }
        if arguments.command.is_none()
            && arguments.effort().variants
            && let Err(error) = tools::build_image()
        {
            eprintln!("not built: the sidecar of the images: {error}");
        }
    }
    sandbox::enter().map_err(explain("no sandbox"))?;
    process::pin(process::DRIVER_CORE).map_err(explain("pinning to a core"))
}

fn overhead(arguments: &Arguments) -> Result<(), Trouble> {
    let effort = arguments.effort();
    let mut engine = Engine::new(interrupted())?;
    let mut report = Report::new(arguments, &effort);
    let measured = measure(arguments, &effort, &mut engine, &mut report);
    if matches!(measured, Ok(()) | Err(Trouble::Interrupted)) {
        table::print(&report);
        let written = write(arguments, &report);
        written.map_err(|error| Trouble::Io("writing the results".into(), error))?;
    }
    measured
}

fn measure(
    arguments: &Arguments,
    effort: &arguments::Effort,
    engine: &mut Engine,
    report: &mut Report,
) -> Result<(), Trouble> {
    let lineup = Lineup::new(arguments, effort)?;
    let world = lineup.world()?;
    let effort = lineup.effort(effort);
    let subjects = lineup.start(&world, engine, report)?;
    let usage = process::Usage::now();
    let ran = rounds::run(&subjects, &effort, engine, &mut report.results);
    report.foreign = Some(usage.foreign());
    ran?;
    memory::after_load(&subjects, report);
    drop(subjects);
    memory::run(&lineup, &world, engine, report)?;
    if effort.variants {
        let scaled = lineup.start_scaled(&world, engine, report)?;
        rounds::run(
            &scaled,
            &lineup::scaled_effort(&effort),
            engine,
            &mut report.results,
        )?;
    }
    Ok(())
}

fn write(arguments: &Arguments, report: &Report) -> io::Result<()> {
    if let Some(path) = &arguments.json {
        std::fs::write(path, json::render(report))?;
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg::render(report))?;
    }
    Ok(())
}

/// Set by Ctrl-C or SIGTERM; the load looks at it all the time.
fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = flag.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime can be made").block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate()).expect("signals can be had");
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        shared.store(true, Ordering::Relaxed);
    });
    flag
}
