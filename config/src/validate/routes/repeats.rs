//! Retries and hedges of calls that may not be repeated.

use crate::resource::{Outbound, ResiliencePolicy, RetryCause, RoutePolicy, RouteSelector};
use crate::units::Count;
use crate::validate::Contradiction;

/// Methods that RFC 9110 does not call idempotent, and that people use.
const NOT_IDEMPOTENT: [&str; 3] = ["POST", "PATCH", "CONNECT"];
/// What retries are on when nobody says so, in the words of a policy.
const BY_DEFAULT: [RetryCause; 2] = [RetryCause::Unprocessed, RetryCause::Unavailable];
const SAY_WHICH: &str = "write idempotent: true for this route if a repeat does no harm (it only reads, or has an \
                         idempotency key),\nor idempotent: false if it is to be tried again only when it provably \
                         reached nobody";

/// Another try may do the thing twice, so sidecars do not try again what may have been processed, unless somebody
/// who knows the service says that this does no harm. Retries that are asked for and never happen are a surprise.
pub(super) fn check(
    policy: &ResiliencePolicy,
    index: usize,
    route: &RoutePolicy,
    found: &mut Vec<Contradiction>,
) {
    check_hedging(policy, index, route, found);
    let own = Asked::by(route.outbound.as_ref());
    let base = Asked::by(policy.spec.outbound.as_ref());
    let attempts = own.attempts.or(base.attempts);
    let causes = own.causes.or(base.causes).unwrap_or(&BY_DEFAULT);
    let cause = causes
        .iter()
        .find(|cause| **cause != RetryCause::Unprocessed);
    let (Some(cause), Some(calls)) = (cause, calls_that_may_not_repeat(&route.matches)) else {
        return;
    };
    if attempts == Some(1) {
        return;
    }
    let path = format!("spec.routes[{index}]");
    let is_grpc = matches!(route.matches, RouteSelector::Grpc(_));
    let contradiction = match route.idempotent {
        None if own.causes.is_some() || own.attempts.is_some() => {
            Contradiction::error(format!("{path}.match"), never_again(&calls, *cause)).help(SAY_WHICH)
        }
        // What is asked for all calls need not hold for this one, but it may well be meant to.
        None if base.causes.is_some() && is_grpc => {
            Contradiction::warning(format!("{path}.match"), never_again(&calls, *cause)).help(SAY_WHICH)
        }
        Some(false) if own.causes.is_some() => Contradiction::error(
            format!("{path}.idempotent"),
            format!("a route that is not idempotent is never tried again on `{cause:?}`"),
        )
        .help("write retryOn: [Unprocessed] for this route, or idempotent: true if a repeat does no harm"),
        None | Some(_) => return,
    };
    let asked_at = match (own.causes, own.attempts) {
        (Some(_), _) => format!("{path}.outbound.retries.retryOn"),
        (None, Some(_)) => format!("{path}.outbound.retries.attempts"),
        (None, None) => "spec.outbound.retries.retryOn".to_owned(),
    };
    let mut contradiction = contradiction.also(asked_at, "retries are asked for here");
    contradiction.looked_at.extend([
        format!("{path}.idempotent"),
        format!("{path}.outbound.retries"),
        "spec.outbound.retries".to_owned(),
    ]);
    found.push(contradiction);
}

/// A hedge is a repeat of something that is still being done.
fn check_hedging(
    policy: &ResiliencePolicy,
    index: usize,
    route: &RoutePolicy,
    found: &mut Vec<Contradiction>,
) {
    let hedged = |block: Option<&Outbound>| block.is_some_and(|block| block.hedging.is_some());
    let path = format!("spec.routes[{index}]");
    if !hedged(route.outbound.as_ref()) {
        return;
    }
    let asked_at = format!("{path}.outbound.hedging");
    let mut contradiction = match (route.idempotent, calls_that_may_not_repeat(&route.matches)) {
        (Some(false), _) => Contradiction::error(
            format!("{path}.idempotent"),
            "a route that is not idempotent is never hedged",
        )
        .help("take the hedging out, or write idempotent: true if a repeat does no harm"),
        (None, Some(_)) => Contradiction::error(
            format!("{path}.match"),
            "these calls are not hedged: nothing says that making one twice does no harm",
        )
        .help("write idempotent: true for this route if a repeat does no harm (it only reads, or has an idempotency key)"),
        (Some(true), _) | (None, None) => return,
    };
    contradiction = contradiction.also(asked_at, "hedging is asked for here");
    contradiction.looked_at.push(format!("{path}.idempotent"));
    if hedged(policy.spec.outbound.as_ref()) {
        contradiction
            .looked_at
            .push("spec.outbound.hedging".to_owned());
    }
    found.push(contradiction);
}

fn never_again(calls: &str, cause: RetryCause) -> String {
    format!(
        "{calls} on `{cause:?}`: it may have been processed already, and nothing says that a repeat does no harm"
    )
}

/// The retries that one block asks for.
struct Asked<'a> {
    attempts: Option<u32>,
    causes: Option<&'a [RetryCause]>,
}

impl<'a> Asked<'a> {
    fn by(block: Option<&'a Outbound>) -> Self {
        let retries = block.and_then(|block| block.retries.as_ref());
        Self {
            attempts: retries.and_then(|retries| retries.attempts).map(Count::get),
            causes: retries.and_then(|retries| retries.retry_on.as_deref()),
        }
    }
}

/// What a route's calls are called, when their match does not say that they may be repeated: gRPC never does, HTTP by
/// its method.
fn calls_that_may_not_repeat(matches: &RouteSelector) -> Option<String> {
    match matches {
        RouteSelector::Grpc(grpc) => Some(match &grpc.method {
            Some(method) => format!("`{method}` is not tried again"),
            None => format!("no method of `{}` is tried again", grpc.service),
        }),
        RouteSelector::Http(http) => {
            let method = http
                .method
                .as_deref()
                .filter(|method| NOT_IDEMPOTENT.contains(method))?;
            Some(format!("`{method}` is not tried again"))
        }
    }
}
