//! The vocabulary of Weir.
