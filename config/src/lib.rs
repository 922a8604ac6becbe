//! The vocabulary of Weir: what a user may write, what a sidecar is told, and the words between them.
//!
//! | module | holds |
//! |---|---|
//! | [`units`] | values that cannot be wrong: durations, percentages, counts |
//! | [`resource`] | the kinds a user writes or Kubernetes keeps, as they stand in YAML |
//! | [`diagnostic`] | every mistake of a file, each with its place and what to write instead |
//! | [`snapshot`] | what those compile to: complete, immutable, ready for the request path |
//! | [`pb`] | the push protocol `weir.mesh.v1` between control plane and sidecars |
//!
//! Nothing here does I/O. After [`parse`](fn@parse) nobody checks a percentage or a dangling name again.

pub mod pb;
pub mod snapshot;
pub mod units;
