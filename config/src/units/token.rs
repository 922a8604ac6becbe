//! The name of a header or a cookie.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A token (RFC 9110 section 5.6.2): what a header field or a cookie may be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Token(String);

/// Longer names than this are nobody's.
const LENGTH_MAX: usize = 128;

impl Token {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&str> for Token {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_token) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "expected a name of 1 to {LENGTH_MAX} letters, digits and dashes such as x-user, found {text:?}"
            ))
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name such as x-user")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Token, E> {
                Token::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Token {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Token".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": LENGTH_MAX,
            "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_the_name_of_a_header_is_refused() {
        assert!(Token::try_from("x-user").is_ok());
        let long = "a".repeat(LENGTH_MAX + 1);
        for text in ["", "x user", "x:user", "grün", "a\r\nb", &long] {
            assert!(Token::try_from(text).is_err(), "{text:?}");
        }
    }
}
