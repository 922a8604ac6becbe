//! The control plane: sources, certificates, push, injector and journal.

pub mod injector;
