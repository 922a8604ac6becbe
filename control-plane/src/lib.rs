//! The control plane: sources, certificates, push, injector and journal.

pub mod authority;
pub mod breakers;
pub mod cli;
pub mod control_plane;
pub mod csr;
pub mod identity;
pub mod injector;
pub mod journal;
pub mod mesh;
pub mod names;
pub mod operator;
pub mod proxies;
pub mod push;
pub mod rate;
pub mod source;
pub mod spiffe;
pub mod time;
pub mod tls;
pub mod tokens;
pub mod version;
