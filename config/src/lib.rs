//! The vocabulary of Weir: what a user may write, what a sidecar is told, and the words between them.
//!
//! | module | holds |
//! |---|---|
//! | [`units`] | values that cannot be wrong: durations, percentages, counts |
//! | [`resource`] | the kinds a user writes or Kubernetes keeps, as they stand in YAML |
//! | [`diagnostic`] | every mistake of a file, each with its place and what to write instead |
//! | [`index`] | everything the sources have said, kept so that questions are cheap |
//! | [`merge`] | which of several policies a value comes from |
//! | [`protocol`] | what a Service says is spoken on a port |
//! | [`path`](mod@path) | what a path is compared by when it is decided who may call it |
//! | [`pattern`] | patterns of the Gateway API, of the whole text and bounded |
//! | [`compile`] | resources to snapshots, pure |
//! | [`schema`] | the same kinds as JSON Schema, for editors and for the API server |
//! | [`crd`] | as CustomResourceDefinitions, with the rules that an API server evaluates |
//! | [`snapshot`] | what those compile to: complete, immutable, ready for the request path |
//! | [`pb`] | the push protocol `weir.mesh.v1` between control plane and sidecars |
//!
//! Nothing here does I/O. After [`parse`](fn@parse) nobody checks a percentage or a dangling name again.

pub mod compile;
pub mod crd;
pub mod diagnostic;
pub mod index;
pub mod merge;
mod parse;
pub mod path;
pub mod pattern;
pub mod pb;
pub mod protocol;
pub mod record;
pub mod resource;
pub mod schema;
pub mod snapshot;
mod source;
mod suggest;
pub mod units;
mod validate;
mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use parse::{Located, Reading, parse, read, read_bytes, yaml_text};
pub use resource::{Kind, Resource, ResourceRef};
