//! Filters: one of each kind, where it makes sense, and none that touches what sidecars say to each other.

use super::matches::is_header_name;
use super::{Contradiction, at_most, check_backend, unsupported};
use crate::path;
use crate::resource::{
    FilterType, HeaderChanges, HttpRouteRule, PathMatchType, PathRewrite, PathRewriteType,
    Redirect, RouteFilter,
};

/// Of filters, of headers in one list, and of codes: the standard's bound.
pub(super) const LIST_MAX: usize = 16;
const VALUE_BYTES_MAX: usize = 4096;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Where filters stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    HttpRule,
    GrpcRule,
    Backend,
}

/// Of the connection and not of the message (RFC 9110 section 7.6.1), who is called and how long a body is, what
/// says how a gRPC call went, how long a caller waits, and what a sidecar has to say of a failure.
const RESERVED: [&str; 20] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "content-length",
    "grpc-status",
    "grpc-message",
    "grpc-timeout",
    "grpc-previous-rpc-attempts",
    "grpc-retry-pushback-ms",
    "x-request-timeout-ms",
    "x-envoy-expected-rq-timeout-ms",
    "weir-proxy-error",
];

pub(super) fn check(
    filters: &[RouteFilter],
    path: &str,
    place: Place,
    found: &mut Vec<Contradiction>,
) {
    at_most(path, "filters", filters.len(), LIST_MAX, found);
    let filters = &filters[..filters.len().min(LIST_MAX)];
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !is_supported(filter, &path, place, found) {
            continue;
        }
        let same = |other: &RouteFilter| other.filter_type == filter.filter_type;
        if filter.filter_type != FilterType::RequestMirror && filters[..index].iter().any(same) {
            let message = "there is an earlier filter of this type";
            found.push(
                Contradiction::error(format!("{path}.type"), message)
                    .help("write both in one filter"),
            );
        }
        check_fields(filter, &path, found);
        check_content(filter, &path, found);
    }
    let has = |wanted: FilterType| filters.iter().any(|filter| filter.filter_type == wanted);
    if has(FilterType::RequestRedirect) && has(FilterType::UrlRewrite) {
        found.push(
            Contradiction::error(path, "a call is either redirected or rewritten")
                .help("leave one of the two filters out"),
        );
    }
}

fn is_supported(
    filter: &RouteFilter,
    path: &str,
    place: Place,
    found: &mut Vec<Contradiction>,
) -> bool {
    let is_known = !matches!(
        filter.filter_type,
        FilterType::ExtensionRef | FilterType::Cors | FilterType::ExternalAuth
    );
    let changes_headers = matches!(
        filter.filter_type,
        FilterType::RequestHeaderModifier | FilterType::ResponseHeaderModifier
    );
    let fits = match place {
        Place::HttpRule => is_known,
        Place::GrpcRule => changes_headers || filter.filter_type == FilterType::RequestMirror,
        Place::Backend => changes_headers,
    };
    if !fits {
        let name = serde_json::to_value(filter.filter_type).unwrap_or_default();
        let name = name.as_str().unwrap_or_default();
        let (here, instead) = match place {
            Place::HttpRule => ("", "take it out: nothing here would act on it"),
            Place::GrpcRule => (" in a GRPCRoute", "take it out, or write an HTTPRoute"),
            Place::Backend => (" of one backend", "write it among the filters of the rule"),
        };
        let message = format!("`{name}`{here} is not supported by this version of Weir");
        found.push(Contradiction::error(format!("{path}.type"), message).help(instead));
    }
    fits
}

/// The field of its type, and no other.
fn check_fields(filter: &RouteFilter, path: &str, found: &mut Vec<Contradiction>) {
    let fields = [
        (
            FilterType::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (
            FilterType::RequestRedirect,
            "requestRedirect",
            filter.request_redirect.is_some(),
        ),
        (
            FilterType::UrlRewrite,
            "urlRewrite",
            filter.url_rewrite.is_some(),
        ),
        (
            FilterType::RequestMirror,
            "requestMirror",
            filter.request_mirror.is_some(),
        ),
    ];
    for (of, field, said) in fields {
        if of == filter.filter_type && !said {
            let message = format!("`{field}` is missing, which this type is about");
            found.push(
                Contradiction::error(format!("{path}.type"), message)
                    .help(format!("write {field}: {{…}} beside it")),
            );
        }
        if of != filter.filter_type && said {
            let message = format!("`{field}` is not what this filter's type is about");
            found.push(
                Contradiction::error(format!("{path}.{field}"), message)
                    .help("write it in a filter of its own type"),
            );
        }
    }
    for (field, said) in [
        ("extensionRef", filter.extension_ref),
        ("cors", filter.cors),
        ("externalAuth", filter.external_auth),
    ] {
        if said.is_some() {
            found.push(unsupported(&format!("{path}.{field}")));
        }
    }
}

fn check_content(filter: &RouteFilter, path: &str, found: &mut Vec<Contradiction>) {
    for (field, changes) in [
        ("requestHeaderModifier", &filter.request_header_modifier),
        ("responseHeaderModifier", &filter.response_header_modifier),
    ] {
        if let Some(changes) = changes {
            check_headers(changes, &format!("{path}.{field}"), found);
        }
    }
    if let Some(redirect) = &filter.request_redirect {
        check_redirect(redirect, &format!("{path}.requestRedirect"), found);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let path = format!("{path}.urlRewrite");
        check_host(rewrite.hostname.as_deref(), &path, found);
        check_rewrite(rewrite.path.as_ref(), &path, found);
    }
    if let Some(mirror) = &filter.request_mirror {
        let path = format!("{path}.requestMirror");
        check_backend(&mirror.backend_ref, &format!("{path}.backendRef"), found);
        if mirror.percent.is_some() && mirror.fraction.is_some() {
            let message = "a share is a percentage or a fraction";
            found.push(
                Contradiction::error(format!("{path}.fraction"), message)
                    .help("leave one of the two out"),
            );
        }
        if let Some(fraction) = mirror.fraction
            && fraction.numerator.get() > fraction.denominator.map_or(100, |it| it.get())
        {
            let message = "a share is at most the whole";
            found.push(
                Contradiction::error(format!("{path}.fraction.numerator"), message)
                    .help("write no more than the denominator, which is 100 when it is not said"),
            );
        }
    }
}

fn check_headers(changes: &HeaderChanges, path: &str, found: &mut Vec<Contradiction>) {
    for (list, headers) in [("set", &changes.set), ("add", &changes.add)] {
        let list = format!("{path}.{list}");
        at_most(&list, "headers", headers.len(), LIST_MAX, found);
        for (index, header) in headers.iter().enumerate().take(LIST_MAX) {
            let path = format!("{list}[{index}]");
            check_header_name(&header.name, &format!("{path}.name"), found);
            let visible = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
            let fits = header.value.len() <= VALUE_BYTES_MAX;
            if !fits || !header.value.bytes().all(visible) || header.value.trim() != header.value {
                let message = "expected a header's value: visible ASCII, no spaces around it, at most 4096 characters";
                found.push(Contradiction::error(format!("{path}.value"), message));
            }
        }
    }
    let list = format!("{path}.remove");
    at_most(&list, "headers", changes.remove.len(), LIST_MAX, found);
    for (index, name) in changes.remove.iter().enumerate().take(LIST_MAX) {
        check_header_name(name, &format!("{list}[{index}]"), found);
    }
}

fn check_header_name(name: &str, path: &str, found: &mut Vec<Contradiction>) {
    let lower = name.to_ascii_lowercase();
    if !is_header_name(name) {
        let message = format!("{name:?} is no name of a header");
        found.push(
            Contradiction::error(path, message)
                .help("letters, digits and hyphens; names with a colon are HTTP/2's own"),
        );
    } else if RESERVED.contains(&lower.as_str()) || lower.starts_with("x-weir-") {
        let message = format!("`{lower}` is not a route's to change");
        let help = match lower.as_str() {
            "host" => "write a filter of type URLRewrite with `hostname`",
            _ => "it belongs to the connection, to gRPC, or to what sidecars tell each other",
        };
        found.push(Contradiction::error(path, message).help(help));
    }
}

fn check_redirect(redirect: &Redirect, path: &str, found: &mut Vec<Contradiction>) {
    check_host(redirect.hostname.as_deref(), path, found);
    check_rewrite(redirect.path.as_ref(), path, found);
    if let Some(scheme) = redirect.scheme.as_deref()
        && !["http", "https"].contains(&scheme)
    {
        let message = format!("expected http or https, found {scheme:?}");
        found.push(Contradiction::error(format!("{path}.scheme"), message));
    }
    if let Some(code) = redirect.status_code
        && !REDIRECTS.contains(&code)
    {
        let message = format!("expected 301, 302, 303, 307 or 308, found {code}");
        found.push(Contradiction::error(format!("{path}.statusCode"), message));
    }
    if redirect.port == Some(0) {
        let message = "expected a port from 1 to 65535, found 0";
        found.push(Contradiction::error(format!("{path}.port"), message));
    }
    let nowhere = redirect.hostname.is_none()
        && redirect.path.is_none()
        && redirect.port.is_none()
        && redirect.scheme.is_none();
    if nowhere {
        found.push(
            Contradiction::error(path, "it leads back to where the call came from, for ever")
                .help("write a scheme, a hostname, a port or a path"),
        );
    }
}

fn check_host(host: Option<&str>, path: &str, found: &mut Vec<Contradiction>) {
    let Some(host) = host else { return };
    if !super::super::names::is_subdomain(host) {
        let message = format!("expected a host name without a port, found {host:?}");
        found.push(Contradiction::error(format!("{path}.hostname"), message));
    }
}

fn check_rewrite(rewrite: Option<&PathRewrite>, path: &str, found: &mut Vec<Contradiction>) {
    let Some(rewrite) = rewrite else { return };
    let path = format!("{path}.path");
    let fields = [
        (
            PathRewriteType::ReplaceFullPath,
            "replaceFullPath",
            &rewrite.replace_full_path,
        ),
        (
            PathRewriteType::ReplacePrefixMatch,
            "replacePrefixMatch",
            &rewrite.replace_prefix_match,
        ),
    ];
    for (of, field, said) in fields {
        match said {
            None if of == rewrite.rewrite_type => {
                let message = format!("`{field}` is missing, which this type is about");
                found.push(Contradiction::error(format!("{path}.type"), message));
            }
            Some(_) if of != rewrite.rewrite_type => {
                let message = format!("`{field}` is not what this type is about");
                found.push(
                    Contradiction::error(format!("{path}.{field}"), message)
                        .help(format!("leave it out, or write type: {}", capital(field))),
                );
            }
            Some(said) if !is_plain_path(said, of) => {
                let message = format!("expected a path as it is sent, found {said:?}");
                found.push(
                    Contradiction::error(format!("{path}.{field}"), message)
                        .help("with a slash first, without query, spaces, // and /../"),
                );
            }
            _ => {}
        }
    }
}

fn capital(field: &str) -> String {
    field.replacen('r', "R", 1)
}

/// What a request's line may hold, and what every server reads alike. An empty text takes a prefix away.
fn is_plain_path(said: &str, of: PathRewriteType) -> bool {
    if said.is_empty() {
        return of == PathRewriteType::ReplacePrefixMatch;
    }
    said.len() <= 1024
        && said
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\"<>`".contains(&byte))
        && path::canonical(said).is_some()
}

/// Of a prefix there is one only where every match has the same.
pub(super) fn check_prefix(rule: &HttpRouteRule, path: &str, found: &mut Vec<Contradiction>) {
    let rewrites = |rewrite: Option<&PathRewrite>| {
        rewrite.is_some_and(|it| it.rewrite_type == PathRewriteType::ReplacePrefixMatch)
    };
    let one_prefix = match rule.matches.as_slice() {
        [] => true,
        [one] => {
            (one.path.as_ref()).is_none_or(|path| path.match_type() == PathMatchType::PathPrefix)
        }
        _ => false,
    };
    for (index, filter) in rule.filters.iter().enumerate().take(LIST_MAX) {
        let parts = [
            (
                "requestRedirect",
                filter.request_redirect.as_ref().map(|it| it.path.as_ref()),
            ),
            (
                "urlRewrite",
                filter.url_rewrite.as_ref().map(|it| it.path.as_ref()),
            ),
        ];
        for (field, rewrite) in parts {
            if rewrites(rewrite.flatten()) && !one_prefix {
                let path = format!("{path}.filters[{index}].{field}.path.type");
                let message =
                    "a prefix can be replaced where a rule has one match, of type PathPrefix";
                found
                    .push(Contradiction::error(path, message).help("write a rule for each prefix"));
            }
        }
    }
}
