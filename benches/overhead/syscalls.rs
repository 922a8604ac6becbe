//! System calls a request: the sidecar under `strace -c`, by the same difference as the instructions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::engine::{Engine, Trouble};
use crate::shape::Shape;
use crate::stage::Stage;
use crate::subject::Kind;

const STRACE: &str = "/usr/bin/strace";
const SHAPES: [Shape; 6] = [
    Shape::Http1,
    Shape::Http2,
    Shape::GrpcSmall,
    Shape::GrpcLarge,
    Shape::GrpcStream,
    Shape::TcpRequest,
];
const REQUESTS: u64 = 1000;
/// Rarer ones have to do with time passing, not with requests.
const SHOWN: f64 = 0.02;

type Calls = BTreeMap<String, u64>;

/// Asked before minutes of building.
pub fn require() -> Result<(), Trouble> {
    match Path::new(STRACE).exists() {
        true => Ok(()),
        false => Err(Trouble::Failed(
            "strace is missing: apt-get install strace".into(),
        )),
    }
}

pub fn run(interrupted: Arc<AtomicBool>) -> Result<(), Trouble> {
    let mut engine = Engine::new(interrupted)?;
    let mut stage = Stage::new()?;
    for (kind, name) in [(Kind::Relay, "bare relay"), (Kind::Weir, "weir")] {
        println!("{name}");
        for shape in SHAPES {
            let mut count = |requests| count(&kind, shape, requests, &mut stage, &mut engine);
            let (once, twice) = (count(REQUESTS)?, count(2 * REQUESTS)?);
            println!("  {}", render(shape, &once, &twice));
        }
    }
    Ok(())
}

fn count(
    kind: &Kind,
    shape: Shape,
    requests: u64,
    stage: &mut Stage,
    engine: &mut Engine,
) -> Result<Calls, Trouble> {
    let out = stage.world.folder.join("strace.txt");
    let wrapper = [STRACE, "-c", "-f", "-o", &out.display().to_string()];
    let wrapper = wrapper.map(str::to_owned).into();
    stage.live(kind.clone(), wrapper, shape, requests, engine)?;
    let text = std::fs::read_to_string(&out)
        .map_err(|error| Trouble::Io(out.display().to_string(), error))?;
    Ok(parse(&text))
}

/// Lines of "% time, seconds, usecs/call, calls, errors (or nothing), syscall".
fn parse(summary: &str) -> Calls {
    let call = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
    };
    summary.lines().filter_map(call).collect()
}

fn render(shape: Shape, once: &Calls, twice: &Calls) -> String {
    let a_request = |(name, calls): (&String, &u64)| {
        let before = once.get(name).copied().unwrap_or(0);
        let calls = calls.saturating_sub(before) as f64 / REQUESTS as f64;
        (calls > SHOWN).then(|| (calls, name.clone()))
    };
    let mut calls: Vec<(f64, String)> = twice.iter().filter_map(a_request).collect();
    calls.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all: f64 = calls.iter().map(|(calls, _)| calls).sum();
    let each: Vec<String> = calls
        .iter()
        .map(|(calls, name)| format!("{name} {calls:.2}"))
        .collect();
    format!("{shape:<12} {all:>6.2} a request: {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_straces_table_and_counted_by_request() {
        let table = |reads: u32| {
            format!(
                "% time     seconds  usecs/call     calls    errors syscall\n\
                 ------ ----------- ----------- --------- --------- ----------------\n \
                 60.00    0.1          1      {reads}       12 recvfrom\n \
                 40.00    0.1          1      7           brk\n\
                 100.00   0.2          1      {reads}       12 total\n"
            )
        };
        let (once, twice) = (parse(&table(2100)), parse(&table(4100)));
        assert_eq!(once["recvfrom"], 2100);
        assert_eq!(
            render(Shape::Http1, &once, &twice),
            "http1          2.00 a request: recvfrom 2.00"
        );
    }
}
