//! Routes in the order in which they are tried: the most specific match first.

use std::cmp::Reverse;

use serde_json::Value;

use super::Policies;
use crate::merge::{self, Layer, Source};
use crate::resource::{GrpcMatch, HttpMatch, ObjectName, Outbound, RoutePolicy, RouteSelector};
use crate::snapshot::{PathMatch, Route, RouteMatch};

/// A route as one policy has it, and its place there.
type Said<'a> = (ObjectName, usize, &'a RoutePolicy);

/// The routes of all policies that apply. Equal matches become one route whose values merge.
pub(super) fn compile(
    policies: &Policies<'_>,
    from: &mut Vec<(String, Source)>,
    fields: &mut Vec<(String, Value)>,
) -> Vec<Route> {
    let mut grouped: Vec<(RouteMatch, Vec<Said<'_>>)> = Vec::new();
    for (policy, place, route) in policies.routes() {
        let matches = route_match(&route.matches);
        match grouped.iter_mut().find(|(known, _)| *known == matches) {
            Some((_, layers)) => layers.push((policy, place, route)),
            None => grouped.push((matches, vec![(policy, place, route)])),
        }
    }
    grouped.sort_by(|(a, _), (b, _)| {
        specificity(a)
            .cmp(&specificity(b))
            .then_with(|| name(a).cmp(&name(b)))
    });
    let base = policies.outbound();
    (grouped.into_iter().enumerate())
        .map(|(place, (matches, said))| {
            let mut layers: Vec<Layer<'_, Outbound>> = base.clone();
            layers.extend(said.iter().filter_map(|(policy, place, route)| {
                Some((
                    Source::Route(policy.clone(), *place),
                    route.outbound.as_ref()?,
                ))
            }));
            let outbound = merge::outbound(&layers, &format!("routes[{place}]."));
            // The strongest of those who said it names it.
            if let Some((policy, index, _)) = said.last() {
                let field = format!("routes[{place}].match");
                fields.push((field.clone(), name(&matches).into()));
                from.push((field, Source::Route(policy.clone(), *index)));
            }
            from.extend(outbound.from);
            fields.extend(outbound.fields);
            Route {
                name: name(&matches),
                idempotent: said
                    .iter()
                    .rev()
                    .find_map(|(.., route)| route.idempotent)
                    .unwrap_or_default(),
                matches,
                outbound: outbound.value,
            }
        })
        .collect()
}

pub(crate) fn route_match(said: &RouteSelector) -> RouteMatch {
    match said {
        RouteSelector::Grpc(GrpcMatch { service, method }) => RouteMatch::Grpc {
            service: service.clone(),
            method: method.clone(),
        },
        RouteSelector::Http(HttpMatch {
            method,
            path,
            path_prefix,
        }) => RouteMatch::Http {
            method: method.clone(),
            path: match (path, path_prefix) {
                (Some(path), _) => PathMatch::Exact(path.clone()),
                (None, prefix) => {
                    PathMatch::Prefix(whole_segments(prefix.as_deref().unwrap_or("/")))
                }
            },
        },
    }
}

/// `/a/` and `/a` are the same prefix.
fn whole_segments(prefix: &str) -> String {
    match prefix.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// Smaller is tried earlier: gRPC before HTTP, an exact path before a prefix, a long prefix before a short one,
/// and what names a method before what does not.
fn specificity(matches: &RouteMatch) -> (u8, Reverse<usize>, bool) {
    match matches {
        RouteMatch::Grpc { method, .. } => (0, Reverse(0), method.is_none()),
        RouteMatch::Http {
            method,
            path: PathMatch::Exact(_),
        } => (1, Reverse(0), method.is_none()),
        RouteMatch::Http {
            method,
            path: PathMatch::Prefix(prefix),
        } => (2, Reverse(prefix.len()), method.is_none()),
    }
}

/// `boutique.v1.Payment/Authorize`, `GET /quotes/*`, `/health`.
fn name(matches: &RouteMatch) -> String {
    match matches {
        RouteMatch::Grpc { service, method } => {
            format!("{service}/{}", method.as_deref().unwrap_or("*"))
        }
        RouteMatch::Http { method, path } => {
            let path = match path {
                PathMatch::Exact(path) => path.clone(),
                PathMatch::Prefix(prefix) => format!("{}/*", prefix.trim_end_matches('/')),
            };
            method
                .as_ref()
                .map_or_else(|| path.clone(), |method| format!("{method} {path}"))
        }
    }
}
