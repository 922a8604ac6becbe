//! Which route of a service a request belongs to. Pure.
//!
//! Routes come most specific first from the compiler, so the first that matches applies.

use http::Method;
use weir_config::snapshot::{PathMatch, RouteMatch};

/// A route's condition, ready for the request path: no allocation and no parsing when it is asked.
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
                    PathMatch::Exact(path) => Path::Exact(path.clone()),
                    PathMatch::Prefix(path) => Path::Prefix(path.trim_end_matches('/').to_owned()),
                },
                grpc: false,
            },
        }
    }

    pub fn matches(&self, method: &Method, path: &str, grpc: bool) -> bool {
        (!self.grpc || grpc)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && match &self.path {
                Path::Exact(wanted) => path == wanted,
                Path::Prefix(wanted) => path
                    .strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            }
    }
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
