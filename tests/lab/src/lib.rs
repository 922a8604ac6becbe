//! The pod runner: takes Kubernetes YAML, sends each pod through the real injector, and runs the
//! patched pod as processes in network namespaces, with the real init binary and sidecar.
//!
//! ```text
//!   outer ──▶ inner ──▶ supervisor ──▶ pod ──▶ container ──▶ sandbox
//!   starts    pid 1     controllers    kubelet  one process   namespaces, mounts, user
//!     ▲         │            │
//!     │lifeline │            ├──▶ network, ruleset    virtual addresses, faults
//!     └─────────┘            ├──▶ cluster             YAML for the control plane
//!                            └──▶ cni, api            where nodes write the pods' rules
//!   client ──control socket──▶ server ──▶ supervisor
//! ```
//!
//! Everything a run makes lives in namespaces that end with its first process. There is no
//! clean-up to forget. [`Lab`] is the way in for tests and programs, `weir-lab` for people.

pub mod address;
pub mod api;
pub mod build;
pub mod chaos;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod cni;
pub mod container;
pub mod control;
pub mod credulous;
pub mod environment;
pub mod error;
pub mod image;
pub mod inner;
pub mod lab;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod mount;
pub mod network;
pub mod node;
pub mod outer;
pub mod pod;
pub mod probe;
pub mod prober;
pub mod publish;
pub mod ruleset;
pub mod run;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod shop;
pub mod spec;
pub mod supervisor;
pub mod target;
pub mod toolbox;
pub mod volume;
pub mod wire;

pub use error::{Error, Result};
pub use inner::run_if_asked;
pub use lab::{Builder, Lab, Output};
