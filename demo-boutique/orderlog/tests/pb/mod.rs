//! Generated from demo-boutique/proto: the log, and those beside it that the test of the whole speaks with.
//! `UPDATE=1 cargo test -p boutique-orderlog --test generated` writes it again after the protos changed.

/// As the packages are nested: the code of one refers to the other by its place.
#[allow(
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    missing_docs,
    dead_code
)]
#[path = "."]
mod boutique {
    #[rustfmt::skip]
    #[path = "boutique.v1.rs"]
    pub(crate) mod v1;
    #[path = "."]
    pub(crate) mod events {
        #[rustfmt::skip]
        #[path = "boutique.events.v1.rs"]
        pub(crate) mod v1;
    }
}

pub(crate) use boutique::events::v1 as events;
pub(crate) use boutique::v1 as shop;
