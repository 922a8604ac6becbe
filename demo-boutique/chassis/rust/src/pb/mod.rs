//! Generated from demo-boutique/proto, committed so that a build needs neither protoc nor a build script.
//! `UPDATE=1 cargo test -p boutique-chassis --test generated` writes it again after the protos changed.

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
#[rustfmt::skip]
#[path = "boutique.v1.rs"]
mod generated;

pub use generated::*;
