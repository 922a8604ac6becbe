//! The push protocol `weir.mesh.v1`, generated from `proto/`.
//!
//! The generated file is committed, so that building needs no `protoc` and no build script;
//! `tests/generated.rs` fails when it no longer matches (run it with `UPDATE=1` to write it anew).

#![allow(clippy::all, unreachable_pub, missing_docs)]

include!("pb/weir.mesh.v1.rs");
