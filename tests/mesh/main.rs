//! The mesh from end to end: real sidecars, real redirection, a real control plane, and apps that know nothing of them.
//!
//! Each test has a lab of its own (`world.rs`): pods as network namespaces, nothing of it on the machine's own network.
//! One lab runs at a time, so that what is measured is not the neighbour's load.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and there is no clock to pause"
)]

mod admission;
mod authorization;
mod chain;
mod cni;
mod explain;
mod fallback;
mod fault;
mod faulty_shop;
mod fixtures;
mod forced;
mod grpc;
mod hang;
mod hostile;
mod life;
mod load;
mod memory;
mod opaque;
mod orders;
mod overload;
mod places;
mod policy;
mod pressure;
mod routes;
mod shop;
mod shop_faults;
mod stranger;
mod web;
mod world;
