//! Generated from demo-boutique/proto, committed so that a build needs neither protoc nor a build script.
//! `UPDATE=1 cargo test -p boutique-orderlog --test generated` writes it again after the protos changed.

/// As the packages are nested: the code of one refers to the other by its place.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
#[path = "."]
mod boutique {
    #[rustfmt::skip]
    #[path = "boutique.v1.rs"]
    pub(super) mod v1;
    #[path = "."]
    pub(super) mod events {
        #[rustfmt::skip]
        #[path = "boutique.events.v1.rs"]
        pub(in crate::pb) mod v1;
    }
}

pub use boutique::events::v1::*;
pub use boutique::v1::Money;
