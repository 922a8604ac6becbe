//! YAML with the place of every value.
//!
//! [`documents`] turns the parser's events into a [`tree`] a document, bounded in size and depth; [`scalar`] says what an
//! unquoted word means, and where YAML 1.1 (kubectl) would disagree; [`decode`] is a serde deserializer over that
//! tree whose mistakes know their place, and which finds all of them by taking each out and going on.

pub(crate) mod decode;
pub(crate) mod documents;
pub(crate) mod scalar;
mod syntax;
pub(crate) mod tree;
