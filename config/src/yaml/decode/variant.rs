//! serde's view of a value that is one of several: a word, or a map with one field.

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, VariantAccess, Visitor};

use super::access::{Key, NodeDeserializer};
use super::error::{Error, Fault, listed, quoted};
use crate::yaml::tree::NodeId;

/// An enum written as one word.
pub(super) struct Word<'de> {
    pub(super) text: &'de str,
    pub(super) variants: &'static [&'static str],
}

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let variant = seed.deserialize(de::value::BorrowedStrDeserializer::new(self.text))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(self.wants_a_map())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(self.wants_a_map())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(self.wants_a_map())
    }
}

impl Word<'_> {
    fn wants_a_map(&self) -> Error {
        let expected = listed(self.variants, "or");
        Error::new(format!(
            "expected a map with {expected}, found {}",
            quoted(self.text)
        ))
    }
}

/// An enum written as a map with one field.
pub(super) struct Variant<'de> {
    pub(super) of: NodeDeserializer<'de>,
    pub(super) child: NodeId,
    pub(super) variants: &'static [&'static str],
}

impl<'de> Variant<'de> {
    fn inner(&self) -> NodeDeserializer<'de> {
        NodeDeserializer {
            node: self.child,
            ..self.of
        }
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let key = Key {
            tree: self.of.tree,
            node: self.child,
        };
        let variant = seed
            .deserialize(key)
            .map_err(|error| error.fault(Fault::Key).at(self.child))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(self.of.expected(&listed(self.variants, "or")))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.inner())
            .map_err(|error| error.at(self.child))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.inner().deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.inner().deserialize_struct("", fields, visitor)
    }
}
