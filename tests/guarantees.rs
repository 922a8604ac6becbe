//! The tests of the bench's own parts: a bench without a harness has no place for them.

#![allow(dead_code, unreachable_pub)] // the bench uses all of it

#[path = "../benches/guarantees/archive.rs"]
mod archive;
#[path = "../benches/guarantees/arguments.rs"]
mod arguments;
#[path = "../benches/guarantees/backpressure.rs"]
mod backpressure;
#[path = "../benches/guarantees/blackhole.rs"]
mod blackhole;
#[path = "../benches/guarantees/chain.rs"]
mod chain;
#[path = "../benches/guarantees/client.rs"]
mod client;
#[path = "../benches/guarantees/driver.rs"]
mod driver;
#[path = "../benches/guarantees/envoy.rs"]
mod envoy;
#[path = "../benches/guarantees/evidence.rs"]
mod evidence;
#[path = "../benches/guarantees/figure.rs"]
mod figure;
#[path = "../benches/guarantees/judge.rs"]
mod judge;
#[path = "../benches/overhead/mesh.rs"]
mod mesh;
#[path = "../benches/guarantees/misses.rs"]
mod misses;
#[path = "../benches/guarantees/outage.rs"]
mod outage;
#[path = "../benches/guarantees/plan.rs"]
mod plan;
#[path = "../benches/overhead/process.rs"]
mod process;
#[path = "../benches/guarantees/processor.rs"]
mod processor;
#[path = "../benches/guarantees/replica.rs"]
mod replica;
#[path = "../benches/guarantees/rolling.rs"]
mod rolling;
#[path = "../benches/guarantees/rounds.rs"]
mod rounds;
#[path = "../benches/overhead/sandbox.rs"]
mod sandbox;
#[path = "../benches/guarantees/schedule.rs"]
mod schedule;
#[path = "../benches/guarantees/station.rs"]
mod station;
#[path = "../benches/guarantees/subject.rs"]
mod subject;
#[path = "../benches/guarantees/table.rs"]
mod table;
#[path = "../benches/overhead/tools.rs"]
mod tools;
#[path = "../benches/guarantees/trouble.rs"]
mod trouble;
#[path = "../benches/guarantees/weir.rs"]
mod weir;
