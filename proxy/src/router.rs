//! Which route of a service a request belongs to. Pure.
//!
//! Routes come most specific first from the compiler, so the first that matches applies.

use std::borrow::Cow;

use http::Method;
use weir_config::path;
use weir_config::snapshot::{PathMatch, RouteMatch};

/// A route's condition, ready for the request path: no allocation when it is asked for a path without escapes.
#[derive(Clone, Debug)]
pub struct Matcher {
    method: Option<Method>,
    path: Path,
    grpc: bool,
}

#[derive(Clone, Debug)]
enum Path {
    Exact(String),
    /// Without a trailing slash.
    Prefix(String),
}

impl Matcher {
    pub fn new(matches: &RouteMatch) -> Self {
        match matches {
            RouteMatch::Grpc { service, method } => Self {
                method: None,
                path: match method {
                    Some(method) => Path::Exact(format!("/{service}/{method}")),
                    None => Path::Prefix(format!("/{service}")),
                },
                grpc: true,
            },
            RouteMatch::Http { method, path } => Self {
                // A method that HTTP does not allow can match nothing; the parser refuses it anyway.
                method: method.as_ref().and_then(|method| method.parse().ok()),
                path: match path {
                    PathMatch::Exact(path) => Path::Exact(decoded(path).into_owned()),
                    PathMatch::Prefix(path) => {
                        Path::Prefix(decoded(path.trim_end_matches('/')).into_owned())
                    }
                },
                grpc: false,
            },
        }
    }

    pub fn matches(&self, method: &Method, path: &str, grpc: bool) -> bool {
        (!self.grpc || grpc)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path.matches(&decoded(path))
    }
}

impl Path {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(wanted) => path
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// As authorization reads it. A path that servers may read differently meets what is said of just these letters.
fn decoded(path: &str) -> Cow<'_, str> {
    let form = path.contains('%').then(|| path::whole(path)).flatten();
    let text = form.and_then(|form| String::from_utf8(form.into_owned()).ok());
    text.map_or(Cow::Borrowed(path), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(method: Option<&str>) -> Matcher {
        Matcher::new(&RouteMatch::Grpc {
            service: "boutique.v1.Payment".into(),
            method: method.map(str::to_owned),
        })
    }

    #[test]
    fn a_grpc_method_is_one_path() {
        let authorize = grpc(Some("Authorize"));
        assert!(authorize.matches(&Method::POST, "/boutique.v1.Payment/Authorize", true));
        assert!(!authorize.matches(&Method::POST, "/boutique.v1.Payment/AuthorizeAll", true));
        assert!(
            !authorize.matches(&Method::POST, "/boutique.v1.Payment/Authorize", false),
            "not gRPC"
        );
        assert!(grpc(None).matches(&Method::POST, "/boutique.v1.Payment/Refund", true));
        assert!(!grpc(None).matches(&Method::POST, "/boutique.v1.Payments/Refund", true));
    }

    /// Who wrote `/%72eport` was served before the sheddable.
    #[test]
    fn a_path_is_what_it_decodes_to() {
        let http = |path| Matcher::new(&RouteMatch::Http { method: None, path });
        let report = http(PathMatch::Prefix("/report".into()));
        for path in ["/report", "/%72eport", "/repor%74/1"] {
            assert!(report.matches(&Method::GET, path, false), "{path}");
        }
        for path in ["/%72eports", "/report%2F1", "/%2572eport", "/%zzreport"] {
            assert!(!report.matches(&Method::GET, path, false), "{path}");
        }
        let accent = http(PathMatch::Exact("/caf%C3%A9".into()));
        for path in ["/caf%C3%A9", "/caf%c3%a9"] {
            assert!(accent.matches(&Method::GET, path, false), "{path}");
        }
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let quotes = Matcher::new(&RouteMatch::Http {
            method: Some("GET".into()),
            path: PathMatch::Prefix("/quotes/".into()),
        });
        assert!(quotes.matches(&Method::GET, "/quotes", false));
        assert!(quotes.matches(&Method::GET, "/quotes/1", false));
        assert!(!quotes.matches(&Method::GET, "/quotesx", false));
        assert!(!quotes.matches(&Method::POST, "/quotes", false));
        let all = Matcher::new(&RouteMatch::Http {
            method: None,
            path: PathMatch::Prefix("/".into()),
        });
        assert!(all.matches(&Method::PUT, "/anything", false));
    }
}
