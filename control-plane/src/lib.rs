//! The control plane: sources, certificates, push, injector and journal.

pub mod authority;
pub mod csr;
pub mod injector;
pub mod journal;
pub mod spiffe;
pub mod time;
