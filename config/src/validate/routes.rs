//! Routes: matches that can be met, no two alike, and no retries of what may not be repeated.

mod repeats;

use super::outbound::{self, Scope};
use super::{Contradiction, ROUTES_MAX};
use crate::compile::route_match;
use crate::merge::{self, Layer, Source};
use crate::resource::{
    GrpcMatch, HttpMatch, Outbound, ResiliencePolicy, RoutePolicy, RouteSelector,
};

/// Of a path, in a sentence.
const SHOWN_MAX: usize = 80;

pub(super) fn check(
    policy: &ResiliencePolicy,
    base: &[Layer<'_, Outbound>],
    found: &mut Vec<Contradiction>,
) {
    let routes = &policy.spec.routes;
    if routes.len() > ROUTES_MAX {
        let message = format!(
            "a policy may have {ROUTES_MAX} routes, found {}",
            routes.len()
        );
        found.push(
            Contradiction::error("spec.routes", message).help(
                "let one match more calls, such as by pathPrefix, or by service without method",
            ),
        );
        return; // comparing thousands with each other is what somebody may be after
    }
    for (index, route) in routes.iter().enumerate() {
        let path = format!("spec.routes[{index}]");
        check_match(&route.matches, &format!("{path}.match"), found);
        if let Some(first) = twin(&routes[..index], route) {
            found.push(
                Contradiction::error(
                    format!("{path}.match"),
                    "an earlier route matches the same calls",
                )
                .also(format!("spec.routes[{first}].match"), "first here")
                .help("write what applies to them in one route"),
            );
        }
        if route.outbound.is_none() && route.idempotent.is_none() {
            found.push(
                Contradiction::warning(&path, "this route changes nothing")
                    .help("it has neither `outbound` nor `idempotent`"),
            );
        }
        if let Some(outbound) = &route.outbound {
            let block = format!("{path}.outbound");
            check_scope(outbound, &block, found);
            outbound::check_block(outbound, &block, found);
            outbound::check_alternate(outbound, &block, Some(policy), found);
            let mut layers = base.to_vec();
            layers.push((
                Source::Route(policy.metadata.object_name(), index),
                outbound,
            ));
            outbound::check_values(&merge::outbound(&layers, ""), Scope::Route(index), found);
        }
        repeats::check(policy, index, route, found);
    }
}

fn twin(earlier: &[RoutePolicy], route: &RoutePolicy) -> Option<usize> {
    let matches = route_match(&route.matches);
    earlier
        .iter()
        .position(|other| route_match(&other.matches) == matches)
}

/// Endpoints, their connections and the retry budget belong to the service: a route cannot have its own.
fn check_scope(outbound: &Outbound, path: &str, found: &mut Vec<Contradiction>) {
    let budget = outbound
        .retries
        .as_ref()
        .is_some_and(|retries| retries.budget.is_some());
    for (field, said) in [
        ("endpointGate", outbound.endpoint_gate.is_some()),
        ("loadBalancing", outbound.load_balancing.is_some()),
        ("limits", outbound.limits.is_some()),
        ("retries.budget", budget),
    ] {
        if said {
            let name = field.rsplit('.').next().unwrap_or(field);
            found.push(
                Contradiction::error(
                    format!("{path}.{field}"),
                    format!("`{name}` holds for the whole service: a route cannot have its own"),
                )
                .help(format!("write it in spec.outbound.{field}")),
            );
        }
    }
}

pub(super) fn check_match(matches: &RouteSelector, path: &str, found: &mut Vec<Contradiction>) {
    match matches {
        RouteSelector::Grpc(grpc) => check_grpc(grpc, &format!("{path}.grpc"), found),
        RouteSelector::Http(http) => check_http(http, &format!("{path}.http"), found),
    }
}

pub(super) fn check_grpc(grpc: &GrpcMatch, path: &str, found: &mut Vec<Contradiction>) {
    if !grpc.service.split('.').all(is_identifier) {
        let message = format!(
            "expected a gRPC service with its package, found {:?}",
            grpc.service
        );
        found.push(
            Contradiction::error(format!("{path}.service"), message)
                .help("as the proto file has it, such as boutique.v1.Payment, without slashes"),
        );
    }
    if let Some(method) = grpc
        .method
        .as_deref()
        .filter(|method| !is_identifier(method))
    {
        let message = format!("expected the name of a gRPC method, found {method:?}");
        found.push(
            Contradiction::error(format!("{path}.method"), message)
                .help("such as Authorize; leave it out for every method of the service"),
        );
    }
}

pub(super) fn check_http(http: &HttpMatch, path: &str, found: &mut Vec<Contradiction>) {
    if http.path.is_some() && http.path_prefix.is_some() {
        found.push(
            Contradiction::error(
                format!("{path}.pathPrefix"),
                "a match has a path or a prefix of it, not both",
            )
            .also(format!("{path}.path"), "the other")
            .help("keep one of them"),
        );
    }
    if *http == HttpMatch::default() {
        found.push(
            Contradiction::error(path, "a match needs a method, a path or a pathPrefix")
                .help("what is for every call is written without a match: in spec.outbound, or with `to` or `match` left out"),
        );
    }
    for (field, said) in [("path", &http.path), ("pathPrefix", &http.path_prefix)] {
        let Some(said) = said else { continue };
        let wrong = |message: &str| {
            let shown: String = said.chars().take(SHOWN_MAX).collect();
            let cut = if shown.len() < said.len() { "…" } else { "" };
            Contradiction::error(
                format!("{path}.{field}"),
                format!("{message}, found {:?}", shown + cut),
            )
        };
        if !said.starts_with('/') {
            let instead = match said.contains(['*', ':', '\\']) {
                true => "write a path such as /orders".to_owned(),
                false => format!("write /{said}"),
            };
            found.push(wrong("a path begins with a slash").help(instead));
        } else if said.contains(['?', '#']) {
            found.push(
                wrong("a path is matched without its query")
                    .help("take out what follows `?` or `#`"),
            );
        } else if said.contains('*') {
            found.push(
                wrong("a path has no wildcards").help("pathPrefix matches everything below a path"),
            );
        } else if said.len() > 1024 || said.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            found.push(wrong(
                "expected a path without blanks of at most 1024 bytes",
            ));
        }
    }
    if let Some(method) = http.method.as_deref().filter(|method| !is_method(method)) {
        let wrong = Contradiction::error(
            format!("{path}.method"),
            format!("expected an HTTP method such as GET, found {method:?}"),
        );
        let upper = method.to_ascii_uppercase();
        found.push(if is_method(&upper) {
            wrong.help(format!("methods are case-sensitive: write {upper}"))
        } else {
            wrong
        });
    }
}

/// As proto files have names.
fn is_identifier(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && word.len() <= 253
}

fn is_method(word: &str) -> bool {
    (1..=32).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte))
}
