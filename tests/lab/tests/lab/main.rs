//! The lab itself, without sidecars: that it runs pods as a cluster would, and leaves nothing.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and there is no clock to pause"
)]

mod echo;
mod leftovers;
mod life;
mod network;
mod service;
