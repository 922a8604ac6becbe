//! What a Rust service of the shop has besides its own job: knobs for faults, health, an orderly end.

pub mod chaos;
pub mod drain;
pub mod environment;
pub mod listener;
pub mod pb;
pub mod server;
