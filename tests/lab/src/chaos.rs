//! Chaos: something fails in the shop, with the mesh and without, and what visitors got of it is judged and drawn.
//!
//! ```text
//!   scenario (YAML) ──▶ stage ──▶ run ──────────▶ record ──▶ measure ──▶ verdict ──▶ table, pictures
//!   what fails,         the shop   visitors,       requests,  numbers     claims:
//!   what must hold      it needs   actions, looks  facts      of a phase  held or not
//! ```
//!
//! A scenario says what must hold; the engine knows no scenario by name.

pub mod action;
pub mod backlog;
pub mod claim;
pub mod command;
pub mod draw;
pub mod knobs;
pub mod look;
pub mod measure;
pub mod orders;
pub mod provenance;
pub mod record;
pub mod run;
pub mod scenario;
pub mod session;
pub mod shown;
pub mod stage;
pub mod table;
pub mod verdict;

pub use scenario::{Scenario, all, find};
pub use session::{Session, session};
