//! Which of the headers that a sidecar reads a request has: one look at the names that are there.
//!
//! A request may carry a dozen headers that mean something to us and mostly carries none of them. Each look-up in vain
//! hashes the name; all together they were a twentieth of what an HTTP/1.1 request costs.

use http::HeaderMap;

use crate::request::is_grpc;

/// `true` is a reason to look: a header of another name may look alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Its content is gRPC's; this is certain.
    pub grpc: bool,
    pub upgrade: bool,
    /// What a sidecar adds, or somebody who passes for one.
    pub own: bool,
    /// `traceparent` or `x-request-id`.
    pub id: bool,
    /// How long the caller waits, in any of the ways in which that is said.
    pub timeout: bool,
    pub idempotency_key: bool,
    /// `transfer-encoding`.
    pub coding: bool,
    pub previous_attempts: bool,
}

impl Mentions {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let mut content = false;
        for name in headers.keys().map(|name| name.as_str().as_bytes()) {
            // Length and first letter tell nearly all names apart.
            match (name.len(), name.first()) {
                (12, Some(b'c')) => content = true,
                (7, Some(b'u')) => found.upgrade = true,
                (11, Some(b't')) | (12, Some(b'x')) => found.id = true,
                (12, Some(b'g')) | (20 | 30, Some(b'x')) => found.timeout = true,
                (15, Some(b'i')) => found.idempotency_key = true,
                (17, Some(b't')) => found.coding = true,
                (26, Some(b'g')) => found.previous_attempts = true,
                _ => {}
            }
            found.own |= name.starts_with(crate::head::OWN_PREFIX.as_bytes());
        }
        found.grpc = content && is_grpc(headers);
        found
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::head;

    /// Planted: a name left out, and a caller's word is not heard.
    #[test]
    fn each_header_that_is_read_is_seen_and_ordinary_ones_are_not() {
        type Mark = fn(&mut Mentions);
        let cases: [(HeaderName, Mark); 11] = [
            (TRANSFER_ENCODING, |seen| seen.coding = true),
            (UPGRADE, |seen| seen.upgrade = true),
            (head::ATTEMPT.clone(), |seen| seen.own = true),
            (head::ORIGINAL_PROTOCOL, |seen| seen.own = true),
            (head::TRACEPARENT.clone(), |seen| seen.id = true),
            (head::REQUEST_ID.clone(), |seen| seen.id = true),
            (head::GRPC_TIMEOUT.clone(), |seen| seen.timeout = true),
            (head::REQUEST_TIMEOUT_MS.clone(), |seen| seen.timeout = true),
            (head::EXPECTED_TIMEOUT_MS.clone(), |seen| {
                seen.timeout = true
            }),
            (head::IDEMPOTENCY_KEY.clone(), |seen| {
                seen.idempotency_key = true
            }),
            (head::GRPC_PREVIOUS_ATTEMPTS.clone(), |seen| {
                seen.previous_attempts = true
            }),
        ];
        for (name, mark) in cases {
            let mut expected = Mentions::default();
            mark(&mut expected);
            let headers = [(name.clone(), HeaderValue::from_static("1"))];
            assert_eq!(
                Mentions::of(&headers.into_iter().collect()),
                expected,
                "{name}"
            );
        }
        let ordinary = ["host", "user-agent", "accept", "te", "content-length"];
        let value = |name| (HeaderName::from_static(name), HeaderValue::from_static("1"));
        let headers = ordinary.into_iter().map(value).collect();
        assert_eq!(Mentions::of(&headers), Mentions::default());
    }

    #[test]
    fn grpc_is_what_says_so_of_its_content() {
        for (content, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/json", false),
        ] {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(content))];
            assert_eq!(Mentions::of(&headers.into_iter().collect()).grpc, grpc);
        }
    }
}
