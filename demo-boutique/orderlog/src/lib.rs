//! The boutique's log of facts: append-only, the only truth about orders. It knows nothing of the mesh.
//!
//! ```text
//! Append ─▶ queue ─▶ one writer: all that wait, in one transaction, synced ─▶ answers, and a new head
//!                                                                                   │
//! Read, Subscribe ◀─ one fact at a time, when the subscriber has room for it ◀───────┘
//! ```
//!
//! A subscriber has a place in the log and nothing else: no queue, no task. Its stream looks into the log
//! when HTTP/2 asks for the next message, so a slow subscriber costs what an idle one costs.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `PORT` | 7300 | where `boutique.events.v1.OrderLog` and `grpc.health.v1.Health` are served, all interfaces |
//! | `LOG_FILE` | `orderlog.redb` | the log |
//! | `LOG_ORDERS_MAX` | 50000 | no more orders than these are taken; what becomes of them is written down all the same |
//! | `LOG_MIB_MAX` | 1024 | the same, once the file is larger than this |
//! | `DRAIN_DELAY_MS` | 500 | after SIGTERM: not serving according to health, yet still accepting |
//! | `DRAIN_SECONDS` | 10 | after that: how long calls in flight may take to finish; streams are ended before |
//! | `CHAOS_PORT` | 9730 | where `boutique.v1.Chaos` is served, loopback only; 0 is nowhere |
//! | `LATENCY_MS` `ERROR_PCT` `ERROR_CODE` `SLOTS` `SERVICE_MS` `FREEZE` | 0 | the knobs of `chaos.proto` to start with |

pub mod append;
pub mod credit;
pub mod log;
pub mod pb;
pub mod server;
pub mod service;
pub mod settings;
pub mod store;
mod stream;
