//! `rateLimit:` of the `inbound:` block: how often the service lets itself be called.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, MapAccess};
use serde::{Deserialize, Deserializer, Serialize};

use crate::units::{Count, Token};

/// So many requests in every second; what comes on top is answered 429, or RESOURCE_EXHAUSTED, with the time after
/// which it is worth coming back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    pub requests_per_second: Count<1, 1_000_000>,
    /// Requests that may come at once after a pause. Absent: as many as a second allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Count<1, 1_000_000>>,
    /// Whose requests are counted together: Total, Caller, Method or Header. Absent: Total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<RateLimitKey>,
    /// Which header, with `per: Header`. Callers choose its value as they like: no protection from who lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Token>,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum RateLimitKey {
    /// Everybody's.
    #[default]
    Total,
    /// Those of each caller, as proven by mutual TLS; callers without it share one limit.
    Caller,
    /// Those of each gRPC method, or of each HTTP method.
    Method,
    /// Those with the same value of the header that `header` names.
    Header,
}

impl RateLimitKey {
    const WORDS: [&str; 4] = ["Total", "Caller", "Method", "Header"];
}

/// `per: {header: NAME}` was a way to write it until the API server had to understand it, too.
impl<'de> Deserialize<'de> for RateLimitKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl<'de> de::Visitor<'de> for Word {
            type Value = RateLimitKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Total`, `Caller`, `Method` or `Header`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RateLimitKey, E> {
                match word {
                    "Total" => Ok(RateLimitKey::Total),
                    "Caller" => Ok(RateLimitKey::Caller),
                    "Method" => Ok(RateLimitKey::Method),
                    "Header" => Ok(RateLimitKey::Header),
                    _ => Err(E::unknown_variant(word, &RateLimitKey::WORDS)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RateLimitKey, A::Error> {
                let entry: Option<(String, String)> = map.next_entry().unwrap_or_default();
                let name = entry.map_or_else(|| "x-tenant".to_owned(), |(_, name)| name);
                Err(de::Error::custom(format!(
                    "expected `Total`, `Caller`, `Method` or `Header`, found a map\n\
                     write the header's name beside it: {{per: Header, header: {name}}}"
                )))
            }
        }
        deserializer.deserialize_any(Word)
    }
}
