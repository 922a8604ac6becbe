//! The control plane: sources, certificates, push, injector and journal.
//!
//! ```text
//!   files ─▶ source ─▶ mesh ─▶ push ─▶ sidecars            weir ─▶ operator ─▶ journal
//!                       ▲        │                                     ├─▶ proxies
//!            names ─────┘        └─ facts ─▶ journal, breakers         └─▶ breakers
//!                              sidecars ─▶ identity ─▶ authority
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`control_plane`] | what starts, in which order, and how it ends |
//! | [`source`] | directories of YAML: a file is taken whole or not at all |
//! | [`kubernetes`] | what it does on Kubernetes and nowhere else |
//! | [`names`] | endpoints that are DNS names, kept resolved |
//! | [`mesh`] | what is known, who wants which part, what is new for whom |
//! | [`push`] | the stream of each sidecar, from Hello to its end |
//! | [`authority`], [`trust`] | the mesh's CA, and its trust over time |
//! | [`identity`], [`csr`], [`tokens`], [`spiffe`] | who gets a certificate, and as whom |
//! | [`socket`], [`tls`] | where it listens, what is shown and whom is believed |
//! | [`shares`], [`rate`] | how much of something each may have, at a time and over time |
//! | [`journal`] | what happened, in order, for good |
//! | [`proxies`], [`breakers`] | current state, as the sidecars told it |
//! | `sweep` | what is forgotten by itself |
//! | [`forced`] | breakers that an operator holds, and when that ends |
//! | [`questions`] | asking all sidecars something |
//! | [`operator`], [`cli`] | what operators ask, and the command line that asks it |
//! | [`injector`] | a pod without a sidecar to the same pod with one |
//! | [`webhook`] | what the API server asks before it admits a pod or a policy |

pub mod authority;
pub mod breakers;
pub mod cli;
pub mod control_plane;
pub mod csr;
pub mod forced;
pub mod identity;
pub mod injector;
pub mod journal;
pub mod kubernetes;
pub mod mesh;
pub mod names;
pub mod operator;
pub mod proxies;
pub mod push;
pub mod questions;
pub mod rate;
pub mod shares;
pub mod socket;
pub mod source;
pub mod spiffe;
mod sweep;
pub mod time;
pub mod tls;
pub mod tokens;
pub mod trust;
pub mod version;
pub mod webhook;
