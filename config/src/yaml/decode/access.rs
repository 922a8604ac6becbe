//! serde's view of a tree.

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::error::{Error, Fault, Wanted, instead_of_map, map_with, one_of};
use super::invented::Invented;
use super::repair::Repairs;
use super::variant::{Variant, Word};
use crate::suggest;
use crate::yaml::scalar::{self, Plain};
use crate::yaml::tree::{NodeId, Step, Tree, Value};

#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'de> {
    pub(super) tree: &'de Tree,
    pub(super) repairs: &'de Repairs,
    pub(super) node: NodeId,
}

impl<'de> NodeDeserializer<'de> {
    pub(super) fn new(tree: &'de Tree, repairs: &'de Repairs, node: NodeId) -> Self {
        Self {
            tree,
            repairs,
            node,
        }
    }

    fn value(self) -> &'de Value {
        &self.tree.node(self.node).value
    }

    fn plain(self) -> Option<Plain<'de>> {
        match self.value() {
            Value::Scalar { text, plain: true } => Some(scalar::resolve(text)),
            _ => None,
        }
    }

    /// What stands here, for a sentence that says it should not.
    fn unexpected(self) -> Unexpected<'de> {
        match self.value() {
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
            Value::Scalar { text, plain: false } => Unexpected::Str(text),
            Value::Scalar { text, plain: true } => match scalar::resolve(text) {
                Plain::Null => Unexpected::Unit,
                Plain::Bool(it) => Unexpected::Bool(it),
                Plain::Text(_) => Unexpected::Str(text),
                // As it stands there: `1.10`, not 1.1.
                Plain::Int(_) | Plain::Float(_) | Plain::Trap(_) => Unexpected::Other(text),
            },
        }
    }

    fn children(self) -> impl Iterator<Item = NodeId> + use<'de> {
        let repairs = self.repairs;
        self.value()
            .children()
            .iter()
            .copied()
            .filter(move |child| repairs.has(*child))
    }

    fn scalar<V: Visitor<'de>>(
        self,
        visitor: V,
        wanted: Wanted,
        text: &'de str,
        plain: bool,
    ) -> Result<V::Value, Error> {
        if !plain {
            return visitor.visit_borrowed_str(text);
        }
        match scalar::resolve(text) {
            Plain::Null => visitor.visit_unit(),
            Plain::Bool(it) => visitor.visit_bool(it),
            Plain::Int(it) => match (u64::try_from(it), i64::try_from(it)) {
                (Ok(it), _) => visitor.visit_u64(it),
                (_, Ok(it)) => visitor.visit_i64(it),
                _ => Err(Error::new(format!(
                    "expected a number that a computer can count to, found {text}"
                ))),
            },
            Plain::Float(it) => visitor.visit_f64(it),
            Plain::Text(it) => visitor.visit_borrowed_str(it),
            Plain::Trap(trap) => Err(Error::trap(trap, wanted)),
        }
    }

    fn visit<V: Visitor<'de>>(self, visitor: V, wanted: Wanted) -> Result<V::Value, Error> {
        match self.value() {
            Value::Scalar { text, plain } => self.scalar(visitor, wanted, text, *plain),
            Value::List(_) => visitor.visit_seq(Items {
                of: self,
                children: self.children(),
            }),
            Value::Map(_) => visitor.visit_map(Fields::new(self)),
        }
        .map_err(|error| error.at(self.node))
    }

    /// `{a: b}` rather than lines.
    fn is_in_braces(self) -> bool {
        let first = self.value().children().first();
        first.is_none_or(|first| {
            self.tree.node(self.node).span.start < self.tree.key_caret(*first).start
        })
    }

    fn trap<T>(self, wanted: Wanted) -> Result<T, Error> {
        match self.plain() {
            Some(Plain::Trap(trap)) => Err(Error::trap(trap, wanted).at(self.node)),
            _ => Err(self.expected("text")),
        }
    }

    /// Empty now, but not as it was written.
    fn is_emptied(self) -> bool {
        !self.value().children().is_empty() && self.children().next().is_none()
    }

    pub(super) fn expected(self, what: &str) -> Error {
        Error::invalid_type(self.unexpected(), &what).at(self.node)
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Wanted::Anything)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Wanted::Value)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Wanted::Value)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Wanted::Value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(Plain::Trap(_)) = self.plain()
            && let Value::Scalar { text, .. } = self.value()
        {
            // Quotes are advice only where the text would be taken.
            return match visitor.visit_borrowed_str::<Error>(text) {
                Ok(_) => self.trap(Wanted::Text),
                Err(error) => Err(error.at(self.node)),
            };
        }
        self.visit(visitor, Wanted::Text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Value::Scalar { text, plain: true } = self.value()
            && let Plain::Bool(_) | Plain::Int(_) | Plain::Float(_) = scalar::resolve(text)
        {
            return Err(self
                .expected("text")
                .help(format!("write \"{text}\", in quotes")));
        }
        self.visit(visitor, Wanted::Text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain() {
            Some(Plain::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value() {
            Value::Map(_) => self.deserialize_any(visitor),
            Value::Scalar { text, .. } => {
                let error = self.expected(&map_with(fields));
                Err(match instead_of_map(text, fields) {
                    Some(help) => error.help(help),
                    None => error,
                })
            }
            Value::List(_) => Err(self.expected(&map_with(fields))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.expected("a map of fields")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::List(_) => self.deserialize_any(visitor),
            Value::Map(_) => Err(self.expected("a list").help(match self.is_in_braces() {
                true => "put it in brackets: [{…}]",
                false => "begin each of its items with `- `",
            })),
            Value::Scalar { text, plain } => {
                let error = self.expected("a list");
                if let Some(Plain::Null) = self.plain() {
                    return Err(error);
                }
                // What is to be written in its place must be taken then.
                let alone = visitor.visit_seq(Items {
                    of: self,
                    children: std::iter::once(self.node),
                });
                Err(match (alone, plain) {
                    (Ok(_), true) => error.help(format!("write it as [{text}]")),
                    (Ok(_), false) => error.help(format!("write it as [{text:?}]")),
                    (Err(item), _) => match item.wanted() {
                        Some(wanted) => error.help(format!("each of its items is {wanted}")),
                        None => error,
                    },
                })
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match self.value() {
            Value::Scalar { text, .. } => match self.plain() {
                Some(Plain::Text(_)) | None => visitor.visit_enum(Word { text, variants }),
                Some(Plain::Trap(trap)) => Err(Error::trap(trap, Wanted::OneOf(variants))),
                Some(_) => {
                    let error = self.expected(&one_of(variants));
                    Err(match suggest::same(text, variants) {
                        Some(meant) => error.help(format!("did you mean `{meant}`?")),
                        None => error,
                    })
                }
            },
            // Words, of which none is a field.
            Value::Map(_)
                if variants
                    .iter()
                    .all(|word| word.starts_with(char::is_uppercase)) =>
            {
                Err(self.expected(&one_of(variants)))
            }
            Value::Map(_) => match self.children().collect::<Vec<_>>().as_slice() {
                [only] => visitor.visit_enum(Variant {
                    of: self,
                    child: *only,
                    variants,
                }),
                [] if self.is_emptied() => Err(Error::new("").fault(Fault::Consequence)),
                // The words of the API server's rule.
                _ => Err(Error::new(format!(
                    "expected a map with one field: {}",
                    variants.join(" or ")
                ))),
            },
            Value::List(_) => Err(self.expected(&one_of(variants))),
        };
        result.map_err(|error| error.at(self.node))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error| error.at(self.node))
    }

    /// What nobody reads cannot be wrong.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de, I> {
    of: NodeDeserializer<'de>,
    children: I,
}

impl<'de, I: Iterator<Item = NodeId>> SeqAccess<'de> for Items<'de, I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(child) = self.children.next() else {
            return Ok(None);
        };
        seed.deserialize(NodeDeserializer {
            node: child,
            ..self.of
        })
        .map(Some)
        .map_err(|error| error.at(child))
    }
}

/// The fields of a map, then those that had to be made up.
struct Fields<'de> {
    of: NodeDeserializer<'de>,
    children: Vec<NodeId>,
    next: usize,
}

impl<'de> Fields<'de> {
    fn new(of: NodeDeserializer<'de>) -> Self {
        let mut seen = std::collections::HashSet::new();
        // A key that is written twice has been reported; the first counts here.
        let children = of
            .children()
            .filter(|child| seen.insert(of.tree.key(*child)))
            .collect();
        Self {
            of,
            children,
            next: 0,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let invented = self.of.repairs.invented(self.of.node);
        let key = match self.children.get(self.next) {
            Some(child) => {
                let key = Key {
                    tree: self.of.tree,
                    node: *child,
                };
                seed.deserialize(key)
                    .map_err(|error| error.fault(Fault::Key).at(*child))
            }
            None => match invented.get(self.next - self.children.len()) {
                Some(name) => seed.deserialize((*name).into_deserializer()),
                None => return Ok(None),
            },
        };
        self.next += 1;
        key.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.children.get(self.next - 1) {
            Some(child) => seed
                .deserialize(NodeDeserializer {
                    node: *child,
                    ..self.of
                })
                .map_err(|error| error.at(*child)),
            None => seed
                .deserialize(Invented)
                .map_err(|error| error.fault(Fault::Consequence).at(self.of.node)),
        }
    }
}

/// A field's name.
pub(super) struct Key<'de> {
    pub(super) tree: &'de Tree,
    pub(super) node: NodeId,
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Step::Key { name, plain, .. } = &self.tree.node(self.node).step else {
            return Err(Error::new("expected a field's name"));
        };
        match scalar::boolean_of_yaml_1_1(name).filter(|_| *plain) {
            Some(meaning) => Err(Error::new(format!(
                "unquoted `{name}` is a name to YAML 1.2, but kubectl (YAML 1.1) reads {meaning}"
            ))
            .help(format!("write \"{name}\" in quotes"))),
            None => visitor.visit_borrowed_str(name),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier
    }
}
