//! The tests of the bench's own parts: a bench without a harness has no place for them.

#![allow(dead_code, unreachable_pub)] // the bench uses all of it

#[path = "../benches/overhead/arguments.rs"]
mod arguments;
#[path = "../benches/overhead/certificates.rs"]
mod certificates;
#[path = "../benches/overhead/connection.rs"]
mod connection;
#[path = "../benches/overhead/engine.rs"]
mod engine;
#[path = "../benches/overhead/envoy.rs"]
mod envoy;
#[path = "../benches/overhead/haproxy.rs"]
mod haproxy;
#[path = "../benches/overhead/hpack.rs"]
mod hpack;
#[path = "../benches/overhead/http1.rs"]
mod http1;
#[path = "../benches/overhead/http2.rs"]
mod http2;
#[path = "../benches/overhead/instructions.rs"]
mod instructions;
#[path = "../benches/overhead/json.rs"]
mod json;
#[path = "../benches/overhead/lineup.rs"]
mod lineup;
#[path = "../benches/overhead/memory.rs"]
mod memory;
#[path = "../benches/overhead/mesh.rs"]
mod mesh;
#[path = "../benches/overhead/nginx.rs"]
mod nginx;
#[path = "../benches/overhead/peers.rs"]
mod peers;
#[path = "../benches/overhead/process.rs"]
mod process;
#[path = "../benches/overhead/relay.rs"]
mod relay;
#[path = "../benches/overhead/rounds.rs"]
mod rounds;
#[path = "../benches/overhead/run.rs"]
mod run;
#[path = "../benches/overhead/sandbox.rs"]
mod sandbox;
#[path = "../benches/overhead/shape.rs"]
mod shape;
#[path = "../benches/overhead/stage.rs"]
mod stage;
#[path = "../benches/overhead/statistic.rs"]
mod statistic;
#[path = "../benches/overhead/subject.rs"]
mod subject;
#[path = "../benches/overhead/svg.rs"]
mod svg;
#[path = "../benches/overhead/syscalls.rs"]
mod syscalls;
#[path = "../benches/overhead/table.rs"]
mod table;
#[path = "../benches/overhead/target.rs"]
mod target;
#[path = "../benches/overhead/tools.rs"]
mod tools;
#[path = "../benches/overhead/weir.rs"]
mod weir;
