//! Routes: matches that can be met, no two alike, and no retries of what may not be repeated.

use super::outbound::{self, Scope};
use super::{Contradiction, ROUTES_MAX};
use crate::compile::route_match;
use crate::merge::{self, Layer, Source};
use crate::resource::{
    GrpcMatch, HttpMatch, Outbound, ResiliencePolicy, RetryCause, RoutePolicy, RouteSelector,
};

/// Methods that RFC 9110 does not call idempotent, and that people use.
const NOT_IDEMPOTENT: [&str; 3] = ["POST", "PATCH", "CONNECT"];

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
        found.push(Contradiction::error("spec.routes", message));
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
            let mut layers = base.to_vec();
            layers.push((
                Source::Route(policy.metadata.object_name(), index),
                outbound,
            ));
            outbound::check_values(&merge::outbound(&layers, ""), Scope::Route(index), found);
        }
        check_repeats(policy, index, route, found);
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

fn check_match(matches: &RouteSelector, path: &str, found: &mut Vec<Contradiction>) {
    match matches {
        RouteSelector::Grpc(grpc) => check_grpc(grpc, &format!("{path}.grpc"), found),
        RouteSelector::Http(http) => check_http(http, &format!("{path}.http"), found),
    }
}

fn check_grpc(grpc: &GrpcMatch, path: &str, found: &mut Vec<Contradiction>) {
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

fn check_http(http: &HttpMatch, path: &str, found: &mut Vec<Contradiction>) {
    if http.path.is_some() && http.path_prefix.is_some() {
        found.push(
            Contradiction::error(
                format!("{path}.pathPrefix"),
                "a match has a path or a prefix of it, not both",
            )
            .also(format!("{path}.path"), "the other"),
        );
    }
    if *http == HttpMatch::default() {
        found.push(
            Contradiction::error(path, "a match needs a method, a path or a pathPrefix")
                .help("what applies to every call is written in spec.outbound"),
        );
    }
    for (field, said) in [("path", &http.path), ("pathPrefix", &http.path_prefix)] {
        let Some(said) = said else { continue };
        let wrong = |message: &str| {
            Contradiction::error(
                format!("{path}.{field}"),
                format!("{message}, found {said:?}"),
            )
        };
        if !said.starts_with('/') {
            found.push(wrong("a path begins with a slash").help(format!("write /{said}")));
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

/// Another try may do the thing twice. Only who knows the service can say that this does no harm.
fn check_repeats(
    policy: &ResiliencePolicy,
    index: usize,
    route: &RoutePolicy,
    found: &mut Vec<Contradiction>,
) {
    let own = route.outbound.as_ref();
    let base = policy.spec.outbound.as_ref();
    let causes = |block: Option<&Outbound>| block?.retries.as_ref()?.retry_on.clone();
    let attempts = |block: Option<&Outbound>| block?.retries.as_ref()?.attempts;
    let said_here =
        causes(own).is_some() || attempts(own).is_some_and(|attempts| attempts.get() > 1);

    let Some((method, may_repeat)) = repeatability(&route.matches) else {
        return;
    };
    let once = attempts(own)
        .or_else(|| attempts(base))
        .is_some_and(|attempts| attempts.get() == 1);
    let Some(cause) = (causes(own).or_else(|| causes(base)).into_iter().flatten())
        .find(|cause| *cause != RetryCause::Unprocessed)
        .filter(|_| !once)
    else {
        return;
    };
    let (path, retry_on) = (format!("spec.routes[{index}]"), "outbound.retries.retryOn");
    let place = if causes(own).is_some() {
        format!("{path}.{retry_on}")
    } else {
        format!("spec.{retry_on}")
    };
    let mut contradiction = match route.idempotent {
        Some(true) => return,
        Some(false) if !said_here => return,
        Some(false) => Contradiction::error(
            format!("{path}.idempotent"),
            format!("this route is not idempotent, so it is never tried again on `{cause:?}`"),
        )
        .help("write retryOn: [Unprocessed] for this route, or idempotent: true if a repeat does no harm"),
        // What the service's other calls retry on is no word about this route, if its method says enough.
        None if may_repeat == Repeat::NotByMethod && !said_here => return,
        None => Contradiction::error(
            format!("{path}.match"),
            format!("trying {method} again on `{cause:?}` may do it twice: such a call can have been processed already"),
        )
        .help(
            "write idempotent: true for this route if a repeat does no harm (it has an idempotency key, it only \
             reads);\nwrite idempotent: false to have it tried again only when it provably reached nobody",
        ),
    };
    contradiction.looked_at.extend([
        format!("{path}.idempotent"),
        format!("{path}.outbound.retries"),
        "spec.outbound.retries".to_owned(),
    ]);
    found.push(contradiction.also(place, "retries here"));
}

#[derive(PartialEq, Eq)]
enum Repeat {
    /// gRPC: nothing in the request says whether it may be repeated.
    Unknown,
    /// HTTP: the method says that it may not.
    NotByMethod,
}

/// What the calls are called, when their match does not say that they may be repeated.
fn repeatability(matches: &RouteSelector) -> Option<(String, Repeat)> {
    match matches {
        RouteSelector::Grpc(grpc) => {
            let method = grpc.method.as_deref().unwrap_or("any method of it");
            Some((method.to_owned(), Repeat::Unknown))
        }
        RouteSelector::Http(http) => {
            let method = http
                .method
                .as_deref()
                .filter(|method| NOT_IDEMPOTENT.contains(method))?;
            Some((method.to_owned(), Repeat::NotByMethod))
        }
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
