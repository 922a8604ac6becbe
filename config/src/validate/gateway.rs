//! Routes of the Gateway API: what the standard demands, and what of it this version does not do, by name.

mod filters;
mod matches;

use super::Contradiction;
use super::names::is_label;
use crate::pattern::PATTERNS_MAX;
use crate::resource::{
    BackendRef, GrpcRoute, GrpcRouteRule, HttpRoute, HttpRouteRule, ParentRef, RouteFilter,
    RouteRule, RouteSpec,
};
use crate::suggest;

/// What people write for the group that has no name; such a route would be nobody's.
const CORE: [&str; 3] = ["core", "v1", "core/v1"];

/// The bounds of the standard.
const PARENTS_MAX: usize = 32;
const RULES_MAX: usize = 16;
const BACKENDS_MAX: usize = 16;
/// Of all rules together.
const MATCHES_MAX: usize = 128;

pub(super) fn check_http(route: &HttpRoute, found: &mut Vec<Contradiction>) {
    check(&route.spec, check_http_rule, found);
}

pub(super) fn check_grpc(route: &GrpcRoute, found: &mut Vec<Contradiction>) {
    check(&route.spec, check_grpc_rule, found);
}

fn check<R: RouteRule>(
    spec: &RouteSpec<R>,
    check_rule: impl Fn(&R, &str, &mut Vec<Contradiction>),
    found: &mut Vec<Contradiction>,
) {
    check_parents(&spec.parent_refs, found);
    if !spec.hostnames.is_empty() {
        found.push(
            Contradiction::warning("spec.hostnames", "hostnames mean nothing for a Service")
                .help("its callers have chosen it by its address; match the header `host` to tell names apart"),
        );
    }
    if spec.use_default_gateways.is_some() {
        found.push(unsupported("spec.useDefaultGateways"));
    }
    if spec.rules.is_empty() {
        let message = "a route without rules answers every call 404";
        found.push(
            Contradiction::error("spec.rules", message)
                .help("write a rule, such as {backendRefs: [{name: cart, port: 80}]}"),
        );
    }
    at_most("spec.rules", "rules", spec.rules.len(), RULES_MAX, found);
    let matches: usize = spec.rules.iter().map(R::matches_count).sum();
    let what = "matches in all rules together";
    at_most("spec.rules", what, matches, MATCHES_MAX, found);
    check_patterns(&spec.rules, found);
    check_names(&spec.rules, found);
    for (index, rule) in spec.rules.iter().enumerate().take(RULES_MAX) {
        check_rule(rule, &format!("spec.rules[{index}]"), found);
    }
}

/// A sidecar would take nothing of a Service that has a route with more.
fn check_patterns<R: RouteRule>(rules: &[R], found: &mut Vec<Contradiction>) {
    let patterns: usize = rules.iter().map(R::patterns_count).sum();
    if patterns > PATTERNS_MAX {
        let message = format!(
            "there may be {PATTERNS_MAX} regular expressions in all rules together, found {patterns}"
        );
        found.push(
            Contradiction::error("spec.rules", message)
                .help("all routes of a Service share them: write one for several values"),
        );
    }
}

fn check_names<R: RouteRule>(rules: &[R], found: &mut Vec<Contradiction>) {
    let rules = &rules[..rules.len().min(RULES_MAX)];
    for (index, rule) in rules.iter().enumerate() {
        let Some(name) = rule.name() else { continue };
        let same = |other: &R| other.name() == Some(name);
        if let Some(first) = rules[..index].iter().position(same) {
            let path = |index: usize| format!("spec.rules[{index}].name");
            found.push(
                Contradiction::error(path(index), "a rule has a name of its own")
                    .also(path(first), "first here")
                    .help("write another one, or leave it out"),
            );
        }
    }
}

fn check_parents(parents: &[ParentRef], found: &mut Vec<Contradiction>) {
    at_most(
        "spec.parentRefs",
        "parents",
        parents.len(),
        PARENTS_MAX,
        found,
    );
    let services = parents
        .iter()
        .enumerate()
        .filter(|(_, parent)| parent.is_service());
    for (index, parent) in services.take(PARENTS_MAX) {
        let path = format!("spec.parentRefs[{index}]");
        check_name(&parent.name, &format!("{path}.name"), found);
        let earlier = parents[..index].iter().position(|it| is_same(it, parent));
        if let Some(first) = earlier {
            let message = "this parent is there twice";
            found.push(
                Contradiction::error(&path, message)
                    .also(format!("spec.parentRefs[{first}]"), "first here")
                    .help("write another `port` or `sectionName` in each, or one parent for the whole Service"),
            );
        }
        let others = [
            ("namespace", &parent.namespace),
            ("sectionName", &parent.section_name),
        ];
        for (field, name) in others {
            if let Some(name) = name {
                check_name(name, &format!("{path}.{field}"), found);
            }
        }
    }
    for (index, parent) in parents.iter().enumerate().take(PARENTS_MAX) {
        let group = parent.group.as_deref();
        if parent.kind.as_deref() == Some("Service")
            && let Some(core) = group.filter(|group| CORE.contains(group))
        {
            let message = format!("the group of a Service is empty, found {core:?}");
            found.push(
                Contradiction::error(format!("spec.parentRefs[{index}].group"), message)
                    .help("write group: \"\""),
            );
        }
        if parent.kind.as_deref() == Some("Service") && parent.group.is_none() {
            // It would be nobody's route, and nobody would say so.
            let message = "a Service has no group, and without this field it is that of Gateways";
            found.push(
                Contradiction::error(format!("spec.parentRefs[{index}]"), message)
                    .help("write group: \"\""),
            );
        }
        if parent.kind.as_deref() == Some("Service")
            && let Some(group) = &parent.group
            && !parent.is_service()
        {
            let message = format!(
                "a Service of the group {group:?} is passed over: it is not the cluster's own"
            );
            found.push(
                Contradiction::warning(format!("spec.parentRefs[{index}].group"), message)
                    .help("write group: \"\" if that is meant"),
            );
        }
        if let Some(kind) = parent.kind.as_deref()
            && let Some(meant) = suggest::nearest(kind, &["Service"]).filter(|meant| *meant != kind)
        {
            let message = format!("expected `{meant}`, or another kind of parent, found {kind:?}");
            found.push(
                Contradiction::error(format!("spec.parentRefs[{index}].kind"), message)
                    .help(format!("did you mean `{meant}`?")),
            );
        }
    }
}

/// Of the same Service, and not of two ports that are told apart.
fn is_same(one: &ParentRef, other: &ParentRef) -> bool {
    let part = |it: &ParentRef| (it.section_name.clone(), it.port);
    let whole = (None, None);
    let (a, b) = (part(one), part(other));
    one.is_service()
        && other.is_service()
        && one.name == other.name
        && one.namespace == other.namespace
        && (a == b || a == whole || b == whole)
}

fn check_http_rule(rule: &HttpRouteRule, path: &str, found: &mut Vec<Contradiction>) {
    matches::check_http(&rule.matches, path, found);
    let filters = format!("{path}.filters");
    filters::check(&rule.filters, &filters, filters::Place::HttpRule, found);
    filters::check_prefix(rule, path, found);
    let redirects = |filter: &RouteFilter| filter.request_redirect.is_some();
    let redirects = rule.filters.iter().any(redirects);
    check_backends(&rule.backend_refs, path, redirects, found);
    if redirects {
        let mirror = |filter: &RouteFilter| filter.request_mirror.is_some();
        let mirror = rule.filters.iter().position(mirror);
        let without_meaning = [
            mirror.map(|index| format!("filters[{index}]")),
            rule.timeouts.is_some().then(|| "timeouts".to_owned()),
            rule.retry.is_some().then(|| "retry".to_owned()),
        ];
        for field in without_meaning.into_iter().flatten() {
            let message = "a rule that redirects calls nobody: this means nothing";
            found.push(
                Contradiction::warning(format!("{path}.{field}"), message)
                    .help("leave it out, or the redirect"),
            );
        }
    }
    if let Some(timeouts) = rule.timeouts
        && let Some(Some(whole)) = timeouts.request.map(|it| it.0)
        && let Some(Some(one)) = timeouts.backend_request.map(|it| it.0)
        && one > whole
    {
        let message = format!("one try may not take longer than all of them together, {whole}");
        let request = format!("{path}.timeouts.request");
        found.push(
            Contradiction::error(format!("{path}.timeouts.backendRequest"), message)
                .also(request, "this is for all tries")
                .help("write less than that, or leave it out"),
        );
    }
    if let Some(retry) = &rule.retry {
        at_most(
            &format!("{path}.retry.codes"),
            "codes",
            retry.codes.len(),
            filters::LIST_MAX,
            found,
        );
    }
    if rule.session_persistence.is_some() {
        found.push(unsupported(&format!("{path}.sessionPersistence")));
    }
}

fn check_grpc_rule(rule: &GrpcRouteRule, path: &str, found: &mut Vec<Contradiction>) {
    matches::check_grpc(&rule.matches, path, found);
    let filters = format!("{path}.filters");
    filters::check(&rule.filters, &filters, filters::Place::GrpcRule, found);
    check_backends(&rule.backend_refs, path, false, found);
    if rule.session_persistence.is_some() {
        found.push(unsupported(&format!("{path}.sessionPersistence")));
    }
}

fn check_backends(
    backends: &[BackendRef],
    rule: &str,
    redirects: bool,
    found: &mut Vec<Contradiction>,
) {
    let all = format!("{rule}.backendRefs");
    at_most(&all, "backends", backends.len(), BACKENDS_MAX, found);
    if redirects && !backends.is_empty() {
        found.push(
            Contradiction::error(&all, "a rule that redirects calls nobody")
                .help("leave `backendRefs` out, or the redirect"),
        );
    }
    if !redirects && backends.iter().all(|backend| backend.weight() == 0) {
        found.push(
            Contradiction::warning(rule, "calls that match this rule are answered 500")
                .help("it has no `backendRefs`, or none with a weight"),
        );
    }
    for (index, backend) in backends.iter().enumerate().take(BACKENDS_MAX) {
        let path = format!("{all}[{index}]");
        check_backend(backend, &path, found);
        let filters = format!("{path}.filters");
        filters::check(&backend.filters, &filters, filters::Place::Backend, found);
    }
}

/// What is no Service is refused by its status, as the standard wants it.
fn check_backend(backend: &BackendRef, path: &str, found: &mut Vec<Contradiction>) {
    if !backend.is_service() {
        return;
    }
    check_name(&backend.name, &format!("{path}.name"), found);
    if let Some(namespace) = &backend.namespace {
        check_name(namespace, &format!("{path}.namespace"), found);
    }
    match backend.port {
        Some(0) => found.push(
            Contradiction::error(format!("{path}.port"), "expected a port from 1 to 65535")
                .help("the number that the Service has under spec.ports"),
        ),
        None => found.push(
            Contradiction::error(
                format!("{path}.port"),
                "`port` is missing: a Service has several",
            )
            .help("the number that the Service has under spec.ports"),
        ),
        Some(_) => {}
    }
}

fn check_name(name: &str, path: &str, found: &mut Vec<Contradiction>) {
    if !is_label(name) {
        let message = format!("{name:?} is not a name that Kubernetes allows");
        let help = "lower-case letters, digits and hyphens between them; at most 63 characters";
        found.push(Contradiction::error(path, message).help(help));
    }
}

fn at_most(
    path: &str,
    what: &str,
    found_so_many: usize,
    max: usize,
    found: &mut Vec<Contradiction>,
) {
    if found_so_many > max {
        let message = format!("there may be {max} {what}, found {found_so_many}");
        found.push(Contradiction::error(path, message).help("write a second route"));
    }
}

fn unsupported(path: &str) -> Contradiction {
    let field = path.rsplit('.').next().unwrap_or(path);
    let message = format!("`{field}` is not supported by this version of Weir");
    Contradiction::error(path, message).help("take it out: nothing here would act on it")
}
