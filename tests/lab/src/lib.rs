//! The pod runner.
