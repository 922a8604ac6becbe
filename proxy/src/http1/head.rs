//! Heads as bytes: a request's is written, a response's is read (RFC 9112 sections 2 to 6).

use std::io;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Response, StatusCode, Version, request, response};
use hyper::ext::ReasonPhrase;

use super::invalid;

/// Most responses have fewer fields; the others are parsed once more.
const FIELDS_EXPECTED: usize = 24;
const FIELDS_MAX: usize = 100;
/// The connection's next request is read into the map of this response (hyper), and there we add fields of our own.
const FIELDS_ADDED: usize = 3;

/// Writes all of a head but the empty line that ends it.
pub(super) fn write(head: &request::Parts, out: &mut BytesMut) {
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_fields(&head.headers, out);
}

pub(super) fn write_fields(fields: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in fields {
        write_field(name, value, out);
    }
}

pub(super) fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Where the head that `bytes` begin with ends: behind its empty line. The first `searched` are known not to have one.
pub(super) fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    // The empty line may have begun before.
    let mut at = searched.saturating_sub(2);
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

pub(super) fn parse(bytes: &Bytes) -> io::Result<Response<()>> {
    let mut few = [httparse::EMPTY_HEADER; FIELDS_EXPECTED];
    let mut head = httparse::Response::new(&mut few);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => response(&head, bytes),
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut head = httparse::Response::new(&mut many);
            match head.parse(bytes) {
                Ok(httparse::Status::Complete(_)) => response(&head, bytes),
                _ => Err(invalid("its head is malformed, or has too many fields")),
            }
        }
        _ => Err(invalid("its head is malformed")),
    }
}

fn response(head: &httparse::Response<'_, '_>, bytes: &Bytes) -> io::Result<Response<()>> {
    let malformed = || invalid("its head is malformed");
    let code = head.code.ok_or_else(malformed)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| malformed())?;
    *response.version_mut() = match head.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    *response.headers_mut() = fields(head.headers, bytes)?;
    if let Some(reason) = head.reason
        && !reason.is_empty()
        && response.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(bytes.slice_ref(reason.as_bytes()))
    {
        response.extensions_mut().insert(reason);
    }
    Ok(response)
}

/// The fields of a head or a trailer section, which lie in `bytes`.
pub(super) fn fields(fields: &[httparse::Header<'_>], bytes: &Bytes) -> io::Result<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len() + FIELDS_ADDED);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(invalid("one of its fields is malformed"));
        };
        map.append(name, value);
    }
    Ok(map)
}

/// Which of the fields that say where a response ends, and what becomes of its connection, it has. To look at all of its
/// fields once costs less than to look up each of these, and most responses have one of them.
#[derive(Default)]
pub(super) struct FramingFields {
    pub(super) connection: bool,
    pub(super) coding: bool,
    pub(super) length: bool,
}

impl FramingFields {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in fields.keys() {
            match *name {
                CONNECTION => found.connection = true,
                TRANSFER_ENCODING => found.coding = true,
                CONTENT_LENGTH => found.length = true,
                _ => {}
            }
        }
        found
    }
}

/// RFC 9112 section 9.3.
pub(super) fn keeps_alive(head: &response::Parts, has: &FramingFields) -> bool {
    let says = |token: &str| {
        has.connection
            && head
                .headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    match head.version {
        Version::HTTP_11 => !says("close"),
        _ => says("keep-alive"),
    }
}
