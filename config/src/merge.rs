//! Which of several policies a value comes from.
//!
//! Values merge field by field. From weakest to strongest: built-in default, MeshConfig, a policy on the
//! Namespace, on the Service, on a port of the Service, then what those policies say for one route in the same
//! order. Four things merge as a whole, because halves of them mean nothing: `retryOn`, `consistentHash`, `fallback`
//! and the rate limits.

mod block;
mod fallback;
mod inbound;
mod outbound;
mod source;

use serde::Serialize;
use serde_json::Value;

pub(crate) use fallback::alternate;
pub(crate) use inbound::{inbound, priorities, rate_limits};
pub(crate) use outbound::outbound;
pub use source::Source;

/// A value and, for each of its fields, who said so.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective<T> {
    pub value: T,
    /// `outbound.retries.attempts` and the like, in the order of the snapshot.
    pub from: Vec<(String, Source)>,
    /// The same fields, with their values as JSON.
    pub fields: Vec<(String, Value)>,
}

/// One block of a policy that takes part. Later ones are stronger.
pub(crate) type Layer<'a, T> = (Source, &'a T);

/// As many as `outbound` has, about.
const FIELDS: usize = 32;

/// Picks the strongest value said for a field and notes who said it.
struct Merge<'a, T> {
    layers: &'a [Layer<'a, T>],
    /// Stands before each path, such as `routes[2].`.
    prefix: &'a str,
    from: Vec<(String, Source)>,
    fields: Vec<(String, Value)>,
}

impl<'a, T> Merge<'a, T> {
    fn new(layers: &'a [Layer<'a, T>], prefix: &'a str) -> Self {
        Self {
            layers,
            prefix,
            from: Vec::with_capacity(FIELDS),
            fields: Vec::with_capacity(FIELDS),
        }
    }

    fn into_effective<V>(self, value: V) -> Effective<V> {
        Effective {
            value,
            from: self.from,
            fields: self.fields,
        }
    }

    fn said<V: Serialize>(&mut self, path: &str, get: impl Fn(&T) -> Option<V>) -> Option<V> {
        self.said_by(path, |_, block| get(block))
    }

    fn field<V: Serialize>(&mut self, path: &str, default: V, get: impl Fn(&T) -> Option<V>) -> V {
        let value = self
            .strongest(path, |_, block| get(block))
            .unwrap_or(default);
        self.show(&value);
        value
    }

    /// The same, where it matters who says it.
    fn said_by<V: Serialize>(
        &mut self,
        path: &str,
        get: impl Fn(&Source, &T) -> Option<V>,
    ) -> Option<V> {
        let value = self.strongest(path, get);
        self.show(&value);
        value
    }

    fn strongest<V>(&mut self, path: &str, get: impl Fn(&Source, &T) -> Option<V>) -> Option<V> {
        let said = (self.layers.iter().rev())
            .find_map(|(source, block)| Some((source.clone(), get(source, block)?)));
        let (source, value) = said.map_or((Source::BuiltIn, None), |(source, value)| {
            (source, Some(value))
        });
        self.from.push((format!("{}{path}", self.prefix), source));
        value
    }

    /// Of the field that was looked for last.
    fn show(&mut self, value: &impl Serialize) {
        if let Some((path, _)) = self.from.last() {
            let value = serde_json::to_value(value).expect("a field is plain data");
            self.fields.push((path.clone(), value));
        }
    }
}
