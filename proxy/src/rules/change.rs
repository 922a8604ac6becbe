//! What a rule changes about a message: headers, path, host, or where its caller is sent instead. Pure.

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use weir_config::path;
use weir_config::snapshot;

use crate::head;

/// Applied in this order.
#[derive(Clone, Debug, Default)]
pub struct HeaderChanges {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

#[derive(Clone, Debug)]
pub struct Rewrite {
    authority: Option<Authority>,
    path: Option<snapshot::PathChange>,
}

#[derive(Clone, Debug)]
pub struct Redirect {
    said: snapshot::Redirect,
    status: StatusCode,
    /// Of the service that was called, for what is not said.
    port: u16,
}

impl HeaderChanges {
    /// `Err`: the header that cannot be sent. Validation lets no such thing through, nor a header that is ours.
    pub fn new(said: &snapshot::HeaderChanges) -> Result<Self, String> {
        let name =
            |name: &String| HeaderName::from_bytes(name.as_bytes()).map_err(|_| name.clone());
        let pairs = |pairs: &[(String, String)]| {
            let pair = |(key, value): &(String, String)| {
                let value = HeaderValue::from_str(value).map_err(|_| key.clone())?;
                Ok((name(key)?, value))
            };
            pairs.iter().map(pair).collect::<Result<Vec<_>, String>>()
        };
        Ok(Self {
            set: pairs(&said.set)?,
            add: pairs(&said.add)?,
            remove: said.remove.iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

impl Rewrite {
    pub fn new(said: &snapshot::Rewrite) -> Result<Self, String> {
        let authority = said.hostname.as_deref().map(|host| {
            let parsed = host.parse();
            parsed.map_err(|_| format!("{host} is no host"))
        });
        Ok(Self {
            authority: authority.transpose()?,
            path: said.path.clone(),
        })
    }

    pub fn apply(&self, head: &mut Parts) {
        if let Some(authority) = &self.authority {
            head::set_authority(head, authority);
        }
        if let Some(change) = &self.path
            && let Some(path) = changed(change, &head.uri)
        {
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.path_and_query = Some(path);
            head.uri = Uri::from_parts(parts).expect("a path is all that has changed");
        }
    }
}

impl Redirect {
    pub fn new(said: &snapshot::Redirect, port: u16) -> Result<Self, String> {
        let status = StatusCode::from_u16(said.status).map_err(|error| error.to_string())?;
        Ok(Self {
            said: said.clone(),
            status,
            port,
        })
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Where the caller is to ask instead; `None`: its request does not say where it thought it was.
    pub fn location(&self, head: &Parts) -> Option<HeaderValue> {
        let asked = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => head.headers.get(HOST)?.to_str().ok()?,
        };
        let asked: Authority = asked.parse().ok()?;
        let scheme = self.said.scheme.as_deref();
        let host = self.said.hostname.as_deref().unwrap_or(asked.host());
        let known = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let port = self.said.port.unwrap_or(match scheme {
            Some(scheme) => known(scheme),
            None => asked.port_u16().unwrap_or(self.port),
        });
        let scheme = scheme.unwrap_or("http");
        let changed = self.said.path.as_ref().map(|it| changed(it, &head.uri));
        let path = match changed {
            Some(path) => path?,
            None => head.uri.path_and_query()?.clone(),
        };
        let port = match port == known(scheme) {
            true => String::new(),
            false => format!(":{port}"),
        };
        HeaderValue::try_from(format!("{scheme}://{host}{port}{path}")).ok()
    }
}

/// The query stays. `None`: the path is not below the prefix, which a rule that matches it has ruled out.
fn changed(change: &snapshot::PathChange, uri: &Uri) -> Option<PathAndQuery> {
    let mut path = match change {
        snapshot::PathChange::Full(path) => path.clone(),
        snapshot::PathChange::Prefix { of, to } => {
            let rest = below(of, uri.path())?;
            match format!("{}{rest}", to.trim_end_matches('/')) {
                empty if empty.is_empty() => "/".to_owned(),
                path => path,
            }
        }
    };
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    PathAndQuery::try_from(path).ok()
}

/// What comes after a prefix that is in canonical form: empty, or with a slash first, as it was sent where that is how
/// it was compared, else encoded anew.
fn below(prefix: &str, path: &str) -> Option<String> {
    let prefix = prefix.trim_end_matches('/');
    let is_below = |rest: &&str| rest.is_empty() || rest.starts_with('/');
    if let Some(rest) = path.strip_prefix(prefix).filter(is_below) {
        return Some(rest.to_owned());
    }
    let form = path::canonical(path)?;
    let rest = form.strip_prefix(prefix.as_bytes())?;
    let mut encoded = String::with_capacity(rest.len());
    for byte in rest {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(char::from(*byte)),
            byte if b"/-._~!$&'()*+,=:@".contains(byte) => encoded.push(char::from(*byte)),
            byte => encoded += &format!("%{byte:02X}"),
        }
    }
    if path.ends_with('/') && !encoded.ends_with('/') {
        encoded.push('/');
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use weir_config::snapshot::PathChange;

    use super::*;

    fn head(uri: &str, host: Option<&str>) -> Parts {
        let mut request = http::Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn prefix(of: &str, to: &str) -> PathChange {
        PathChange::Prefix {
            of: of.into(),
            to: to.into(),
        }
    }

    /// The examples of the standard, and paths that are encoded.
    #[test]
    fn a_prefix_is_replaced_by_segments_and_the_rest_stays() {
        for (of, to, uri, expected) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("/foo", "/", "/foo", "/"),
            ("/", "/xyz", "/foo?q=1&r", "/xyz/foo?q=1&r"),
            ("/foo", "/xyz", "/%66oo/b%20c", "/xyz/b%20c"),
            ("/foo", "/xyz", "/foo/b%20c", "/xyz/b%20c"),
            ("/foo", "/xyz", "/%66oo/%3F/", "/xyz/%3F/"),
        ] {
            let rewrite = Rewrite {
                authority: None,
                path: Some(prefix(of, to)),
            };
            let mut head = head(uri, Some("cart"));
            rewrite.apply(&mut head);
            assert_eq!(head.uri, expected, "{of} by {to} in {uri}");
        }
        let full = Rewrite {
            authority: Some(Authority::from_static("other.example")),
            path: Some(PathChange::Full("/all".into())),
        };
        let mut head = head("/foo?q=1", Some("cart"));
        full.apply(&mut head);
        assert_eq!(head.uri, "/all?q=1");
        assert_eq!(head.headers["host"], "other.example");
    }

    #[test]
    fn a_redirect_says_only_what_is_not_known_anyway() {
        let nothing = snapshot::Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: 302,
        };
        let to = |said: snapshot::Redirect, uri: &str, host: Option<&str>| {
            let redirect = Redirect::new(&said, 8080).expect("in order");
            let location = redirect.location(&head(uri, host))?;
            Some(location.to_str().expect("ASCII").to_owned())
        };
        let host = snapshot::Redirect {
            hostname: Some("new.example".into()),
            ..nothing.clone()
        };
        let https = snapshot::Redirect {
            scheme: Some("https".into()),
            ..nothing.clone()
        };
        let port = snapshot::Redirect {
            port: Some(80),
            path: Some(prefix("/a", "/z")),
            ..nothing
        };
        let is =
            |found: Option<String>, expected: &str| assert_eq!(found.as_deref(), Some(expected));
        is(
            to(host.clone(), "/a?b", Some("cart:80")),
            "http://new.example/a?b",
        );
        is(
            to(host.clone(), "/a", Some("cart")),
            "http://new.example:8080/a",
        );
        is(
            to(host.clone(), "http://cart:81/a", None),
            "http://new.example:81/a",
        );
        is(to(https, "/a", Some("cart:8080")), "https://cart/a");
        is(to(port, "/a/b", Some("cart:8080")), "http://cart/z/b");
        assert_eq!(to(host, "/a", None), None, "nobody knows where");
    }

    #[test]
    fn headers_are_set_then_added_then_removed() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let changes = HeaderChanges::new(&snapshot::HeaderChanges {
            set: vec![pair("x-a", "new")],
            add: vec![pair("x-b", "2"), pair("x-c", "3")],
            remove: vec!["x-c".to_owned()],
        });
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "old"), ("x-a", "older"), ("x-b", "1"), ("x-c", "1")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        changes.expect("in order").apply(&mut headers);
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-a"), ["new"]);
        assert_eq!(all("x-b"), ["1", "2"]);
        assert!(all("x-c").is_empty());
    }
}
