//! The policies in simulated time: the proxy's own code, many sidecars and servers that fail, hours in seconds.
//!
//! ```text
//!   traffic ─▶ sidecars (weir_proxy: balance, gate, retry, budget) ─▶ servers with an exact capacity, and faults
//!                          ▲                                              │
//!                          └──────── engine: what happens next, when ◀────┘──▶ record: who got what, second by second
//! ```
//!
//! Nothing sleeps and nothing is random but a seed: each experiment runs for many seeds and is judged by its worst
//! (`seeds`). A seed that fails says how to see it again:
//!
//! ```text
//!   WEIR_SEED=17 cargo test --test simulation NAME -- --nocapture
//! ```
//!
//! What it cannot tell: what I/O, TLS and a scheduler add. That is what `tests/mesh` and `benches/` are for.

#![expect(
    unreachable_pub,
    reason = "pub says what a module offers to the others; there is nobody outside"
)]

mod admission;
mod balancing;
mod engine;
mod inbound;
mod outliers;
mod plan;
mod record;
mod seeds;
mod server;
mod sidecar;
mod storms;
mod traffic;
mod world;
