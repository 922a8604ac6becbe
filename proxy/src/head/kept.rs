//! A head that is kept because its request may have to be sent again.
//!
//! Most copies are never looked at, so one costs as little as can be: the fields lie one after the other in a single
//! allocation, where a clone builds a map and counts a reference for each name and value.

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Uri, Version};

/// A head, from which any number of equal ones can be made.
pub struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    fields: Vec<u8>,
    /// How many they are.
    count: usize,
}

/// Before each field: the length of its name, that of its value, and whether the value may be compressed.
const PREFIX: usize = 4 + 4 + 1;

impl Kept {
    pub fn of(head: &Parts) -> Self {
        let headers = &head.headers;
        let length =
            |(name, value): (&HeaderName, &HeaderValue)| PREFIX + name.as_str().len() + value.len();
        let mut fields = Vec::with_capacity(headers.iter().map(length).sum());
        for (name, value) in headers {
            let (name, bytes) = (name.as_str().as_bytes(), value.as_bytes());
            fields.extend_from_slice(&length_of(name).to_ne_bytes());
            fields.extend_from_slice(&length_of(bytes).to_ne_bytes());
            fields.push(value.is_sensitive().into());
            fields.extend_from_slice(name);
            fields.extend_from_slice(bytes);
        }
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            extensions: head.extensions.clone(),
            fields,
            count: headers.len(),
        }
    }

    pub fn head(&self) -> Parts {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.extensions = self.extensions.clone();
        head.headers = HeaderMap::with_capacity(self.count);
        let mut left = &self.fields[..];
        while !left.is_empty() {
            let name = take_length(&mut left);
            let value = take_length(&mut left);
            let sensitive = take(&mut left, 1) == [1];
            let name = HeaderName::from_bytes(take(&mut left, name));
            let value = HeaderValue::from_bytes(take(&mut left, value));
            let (name, mut value) = (name.expect("it was one"), value.expect("it was one"));
            value.set_sensitive(sensitive);
            head.headers.append(name, value);
        }
        head
    }
}

/// Heads are limited to far less where they are read (`http.rs`, `http2.rs`).
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB")
}

fn take_length(left: &mut &[u8]) -> usize {
    let length = take(left, 4).try_into().expect("four bytes");
    u32::from_ne_bytes(length) as usize
}

fn take<'a>(left: &mut &'a [u8], length: usize) -> &'a [u8] {
    left.split_off(..length)
        .expect("it was written before its lengths were read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_from_it_is_what_was_kept() {
        let request = http::Request::put("http://shop/cart?x=%20")
            .version(Version::HTTP_2)
            .header("content-type", "application/json")
            .header("x-two", "first")
            .header("x-empty", "")
            .header(
                "x-two",
                HeaderValue::from_bytes(b"caf\xe9\t!").expect("obs-text"),
            )
            .extension(7_u8);
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        let mut secret = HeaderValue::from_static("s3cret");
        secret.set_sensitive(true);
        head.headers.insert("authorization", secret);
        let kept = Kept::of(&head);
        for _ in 0..2 {
            let again = kept.head();
            assert_eq!(again.method, head.method);
            assert_eq!(again.uri, head.uri);
            assert_eq!(again.version, head.version);
            assert_eq!(again.extensions.get(), Some(&7_u8));
            assert_eq!(again.headers, head.headers);
            let in_turn = |headers: &HeaderMap| -> Vec<HeaderValue> {
                headers.get_all("x-two").iter().cloned().collect()
            };
            assert_eq!(in_turn(&again.headers), in_turn(&head.headers));
            let secrets = again.headers.iter().filter(|(_, it)| it.is_sensitive());
            assert_eq!(
                secrets.map(|(name, _)| name).collect::<Vec<_>>(),
                ["authorization"]
            );
        }
    }

    /// h2 asks the same function as we do here; httparse has a table of its own.
    #[test]
    fn every_byte_that_a_value_may_have_comes_back() {
        let allowed: Vec<u8> = (0..=255)
            .filter(|byte| HeaderValue::from_bytes(&[*byte]).is_ok())
            .collect();
        let value = HeaderValue::from_bytes(&allowed).expect("each is allowed");
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers.insert("x", value);
        assert_eq!(Kept::of(&head).head().headers, head.headers);
        for byte in (0..=255).filter(|byte| !allowed.contains(byte)) {
            let text = [&b"GET / HTTP/1.1\r\nx: a"[..], &[byte], b"z\r\n\r\n"].concat();
            let mut fields = [httparse::EMPTY_HEADER; 1];
            let read = httparse::Request::new(&mut fields).parse(&text);
            assert!(read.is_err(), "{byte} can be read, and not be kept");
        }
    }
}
