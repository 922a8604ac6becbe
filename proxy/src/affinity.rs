//! Which calls belong together: the key that a policy names, read from the request.

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use weir_config::snapshot::{ConsistentHash, HashBy};

use crate::head;
use crate::policy::ring;

pub struct Affinity {
    by: By,
    /// Of the average load, what one endpoint may have.
    pub bound: f64,
}

enum By {
    Header(HeaderName),
    Cookie(String),
    SourceIdentity,
    Path,
}

impl Affinity {
    pub fn new(config: &ConsistentHash) -> Self {
        let by = match &config.by {
            HashBy::Header(name) => {
                let name = HeaderName::from_bytes(name.as_str().as_bytes());
                By::Header(name.expect("a token is the name of a header"))
            }
            HashBy::Cookie(name) => By::Cookie(name.as_str().to_owned()),
            HashBy::SourceIdentity => By::SourceIdentity,
            HashBy::Path => By::Path,
        };
        Self {
            by,
            bound: f64::from(config.bounded_load.get()) / 100.0,
        }
    }

    /// `None`: the call does not have what it is to be told apart by. `head`: none for bytes that nobody looks at.
    /// `own`: who this workload is.
    pub fn key(&self, head: Option<&Parts>, own: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match &self.by {
            By::Header(name) => Some(ring::hash(head::values(head?, name).next()?)),
            By::Cookie(name) => cookie(&head?.headers, name.as_bytes()).map(ring::hash),
            By::Path => Some(ring::hash(head?.uri.path().as_bytes())),
            By::SourceIdentity => own(),
        }
    }
}

/// RFC 6265 section 5.4; HTTP/2 may send each pair in a field of its own (RFC 9113 section 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value).filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use weir_config::units::Token;

    use super::*;

    fn affinity(by: HashBy) -> Affinity {
        Affinity::new(&ConsistentHash {
            by,
            bounded_load: ConsistentHash::BOUNDED_LOAD,
        })
    }

    fn head(request: http::request::Builder) -> Parts {
        request.body(()).expect("a request").into_parts().0
    }

    fn token(text: &str) -> Token {
        Token::try_from(text).expect("a token")
    }

    #[test]
    fn calls_are_told_apart_by_the_header_the_cookie_or_the_path_that_the_policy_names() {
        let request = || {
            let request = http::Request::builder().uri("http://cart/items?page=1");
            let request = request.header("x-user", "ada");
            let request = request.header("cookie", "a=1; xsession=no");
            head(request.header("cookie", "session=s1; b=2"))
        };
        for (by, value) in [
            (HashBy::Header(token("X-User")), "ada"),
            (HashBy::Header(token("Host")), "cart"),
            (HashBy::Cookie(token("session")), "s1"),
            (HashBy::Path, "/items"),
        ] {
            let key = affinity(by).key(Some(&request()), || None);
            assert_eq!(key, Some(ring::hash(value.as_bytes())), "{value}");
        }
    }

    #[test]
    fn a_call_without_it_has_no_key() {
        let empty = head(http::Request::builder().header("cookie", "session=; session2=x"));
        for by in [
            HashBy::Header(token("x-user")),
            HashBy::Cookie(token("session")),
        ] {
            assert_eq!(affinity(by).key(Some(&empty), || Some(1)), None);
        }
        assert_eq!(affinity(HashBy::Path).key(None, || Some(1)), None);
        let own = affinity(HashBy::SourceIdentity).key(None, || Some(1));
        assert_eq!(own, Some(1), "bytes have a caller too");
    }
}
