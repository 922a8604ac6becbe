//! The boutique's shopping cart: an ordinary gRPC service that knows nothing of the mesh.
//!
//! It keeps one hash per user in Redis, so that a mesh has an opaque TCP leg to carry; without
//! `REDIS_ADDR` it keeps the carts in memory and loses them when it ends. It is a drop-in for Online
//! Boutique's cart service: same port, same environment, and the alias `/hipstershop.CartService/*`.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `PORT` | 7070 | where `boutique.v1.Cart`, its alias and `grpc.health.v1.Health` are served, all interfaces |
//! | `REDIS_ADDR` | empty | `host:port` of Redis; empty keeps carts in memory |
//! | `REDIS_TIMEOUT_MS` | 1500 | for a connect, and again for an answer |
//! | `DRAIN_DELAY_MS` | 500 | after SIGTERM: not serving according to health, yet still accepting |
//! | `DRAIN_SECONDS` | 10 | after that: how long calls in flight may take to finish |
//! | `CHAOS_PORT` | 9770 | where `boutique.v1.Chaos` is served, loopback only; 0 is nowhere |
//! | `LATENCY_MS` `ERROR_PCT` `ERROR_CODE` `SLOTS` `SERVICE_MS` `FREEZE` | 0 | the knobs of `chaos.proto` to start with |
//!
//! A second signal ends the process at once. `traceparent` is accepted and named in the log of a failed call.

pub mod pb;
pub mod server;
pub mod service;
pub mod settings;
pub mod store;
