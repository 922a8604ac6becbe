#![doc = include_str!("../README.md")]

pub mod access_log;
pub mod admin;
pub mod affinity;
pub mod app;
pub mod backend;
pub mod balance;
pub mod body;
pub mod cni;
pub mod connection;
pub mod connector;
pub mod control_plane;
pub mod detect;
pub mod discovery;
pub mod drain;
pub mod endpoint;
pub mod endpoints;
pub mod error;
pub mod exchange;
pub mod facts;
pub mod head;
pub mod http;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod interim;
pub mod layer;
pub mod learnt;
pub mod listener;
pub mod member;
pub mod mentions;
pub mod mesh;
pub mod pipeline;
pub mod policy;
pub mod pool;
pub mod prober;
pub mod push;
pub mod question;
pub mod race;
pub mod recorder;
pub mod redirect;
pub mod replay;
pub mod request;
pub mod rewind;
pub mod router;
pub mod rules;
pub mod settings;
pub mod socket;
pub mod tally;
pub mod tcp;
pub mod telemetry;
pub mod trace;

/// What files that `tests/loom` compiles against loom's use of the standard library's.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}
