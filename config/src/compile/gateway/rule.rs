//! One rule of a route: what it matches, and what it does.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::index::Index;
use crate::path;
use crate::resource::{
    self, BackendRef, GatewayRoute, GrpcRouteRule, HttpRouteMatch, HttpRouteRule, ObjectName,
    PathMatchType, PathRewrite, PathRewriteType, RouteFilter, RouteTimeout, ValueMatch,
    ValueMatchType,
};
use crate::snapshot::{
    HeaderChanges, Mirror, PathChange, PathCondition, Redirect, Rewrite, Rule, RuleBackend,
    RuleMatch, RuleRetry, ServiceKey, TextCondition, Timeout, ValueCondition,
};

const FOUND: u16 = 302;

/// Knows whom the references of one route mean for calls to one of its parents.
pub(super) struct Compiler<'a, Route> {
    pub(super) index: &'a Index,
    pub(super) route: &'a Route,
    pub(super) parent: &'a ObjectName,
}

impl<Route: GatewayRoute> Compiler<'_, Route> {
    pub(super) fn http(&self, said: &HttpRouteRule) -> Rule {
        let prefix = said.matches.iter().find_map(prefix_of);
        let mut rule = self.rule(&said.filters, &said.backend_refs, prefix.as_deref());
        let timeouts = said.timeouts.unwrap_or_default();
        rule.deadline = timeouts.request.map(timeout);
        rule.per_try_timeout = timeouts.backend_request.map(timeout);
        rule.retry = said.retry.as_ref().map(|retry| RuleRetry {
            attempts: retry.attempts.map(|attempts| attempts.get() + 1),
            codes: (retry.codes.iter())
                .filter_map(|code| u16::try_from(code.get()).ok())
                .collect(),
            backoff: retry.backoff.map(|it| it.0),
        });
        rule
    }

    pub(super) fn grpc(&self, said: &GrpcRouteRule) -> Rule {
        self.rule(&said.filters, &said.backend_refs, None)
    }

    fn rule(&self, filters: &[RouteFilter], backends: &[BackendRef], prefix: Option<&str>) -> Rule {
        let (request, response) = header_changes(filters);
        let change = |path: &PathRewrite| path_change(path, prefix.unwrap_or("/"));
        let rewrite = filters
            .iter()
            .find_map(|filter| filter.url_rewrite.as_ref());
        let redirect = filters
            .iter()
            .find_map(|filter| filter.request_redirect.as_ref());
        Rule {
            name: String::new(),
            request,
            response,
            rewrite: rewrite.map(|said| Rewrite {
                hostname: said.hostname.clone(),
                path: said.path.as_ref().and_then(change),
            }),
            redirect: redirect.map(|said| Redirect {
                scheme: said.scheme.clone(),
                hostname: said.hostname.clone(),
                path: said.path.as_ref().and_then(change),
                port: said.port,
                status: said.status_code.unwrap_or(FOUND),
            }),
            mirrors: filters
                .iter()
                .filter_map(|filter| self.mirror(filter))
                .collect(),
            backends: backends.iter().map(|said| self.backend(said)).collect(),
            deadline: None,
            per_try_timeout: None,
            retry: None,
        }
    }

    fn backend(&self, said: &BackendRef) -> RuleBackend {
        let (request, response) = header_changes(&said.filters);
        RuleBackend {
            to: self.resolve(said),
            weight: said.weight(),
            request,
            response,
        }
    }

    /// `None`: it is none, or there is nobody to send copies to, which its status says.
    fn mirror(&self, filter: &RouteFilter) -> Option<Mirror> {
        let said = filter.request_mirror.as_ref()?;
        let (numerator, denominator) = match (said.percent, said.fraction) {
            (Some(percent), _) => (u32::from(percent.get()), 100),
            (None, Some(fraction)) => (
                fraction.numerator.get(),
                fraction.denominator.map_or(100, |it| it.get()),
            ),
            (None, None) => (1, 1),
        };
        Some(Mirror {
            to: self.resolve(&said.backend_ref)?,
            numerator,
            denominator,
        })
    }

    fn resolve(&self, said: &BackendRef) -> Option<ServiceKey> {
        let parent = Some(self.parent);
        self.index.resolve(self.route, parent, said).ok()
    }
}

pub(super) fn http_matches(said: &HttpRouteRule, rule: usize) -> Vec<RuleMatch> {
    let matches = |it: &HttpRouteMatch| RuleMatch {
        rule,
        path: http_path(it),
        method: it.method.clone(),
        headers: it.headers().map(header).collect(),
        query: it.query_params().map(value).collect(),
    };
    match said.matches.as_slice() {
        [] => vec![matches(&HttpRouteMatch::default())],
        all => all.iter().map(matches).collect(),
    }
}

pub(super) fn grpc_matches(said: &GrpcRouteRule, rule: usize) -> Vec<RuleMatch> {
    let any = |headers| RuleMatch {
        rule,
        path: PathCondition::Grpc {
            service: None,
            method: None,
        },
        method: None,
        headers,
        query: Vec::new(),
    };
    if said.matches.is_empty() {
        return vec![any(Vec::new())];
    }
    let matches = said.matches.iter().map(|it| {
        let mut found = any(it.headers().map(header).collect());
        if let Some(said) = &it.method {
            let kind = said.match_type.unwrap_or_default();
            let part =
                |part: &Option<String>| part.as_deref().map(|part| text_condition(kind, part));
            found.path = PathCondition::Grpc {
                service: part(&said.service),
                method: part(&said.method),
            };
        }
        found
    });
    matches.collect()
}

fn http_path(said: &HttpRouteMatch) -> PathCondition {
    let Some(path) = &said.path else {
        return PathCondition::Any;
    };
    match path.match_type() {
        PathMatchType::Exact => {
            let value = path.value();
            PathCondition::Exact(text(path::whole(value)).unwrap_or_else(|| value.to_owned()))
        }
        PathMatchType::RegularExpression => PathCondition::Regex(path.value().to_owned()),
        PathMatchType::PathPrefix => match canonical(path.value()).as_str() {
            "/" => PathCondition::Any,
            prefix => PathCondition::Prefix(prefix.to_owned()),
        },
    }
}

/// As it is compared. Validation lets nothing through that has no such form.
fn canonical(path: &str) -> String {
    text(path::canonical(path)).unwrap_or_else(|| path.to_owned())
}

fn text(form: Option<Cow<'_, [u8]>>) -> Option<String> {
    String::from_utf8(form?.into_owned()).ok()
}

fn prefix_of(said: &HttpRouteMatch) -> Option<String> {
    let path = said.path.as_ref()?;
    (path.match_type() == PathMatchType::PathPrefix).then(|| canonical(path.value()))
}

fn path_change(said: &PathRewrite, prefix: &str) -> Option<PathChange> {
    let to = said.replacement()?.to_owned();
    Some(match said.rewrite_type {
        PathRewriteType::ReplaceFullPath => PathChange::Full(to),
        PathRewriteType::ReplacePrefixMatch => PathChange::Prefix {
            of: prefix.to_owned(),
            to,
        },
    })
}

fn header(said: &ValueMatch) -> ValueCondition {
    ValueCondition {
        name: said.name.to_ascii_lowercase(),
        ..value(said)
    }
}

fn value(said: &ValueMatch) -> ValueCondition {
    ValueCondition {
        name: said.name.clone(),
        value: text_condition(said.match_type.unwrap_or_default(), &said.value),
    }
}

fn text_condition(kind: ValueMatchType, text: &str) -> TextCondition {
    match kind {
        ValueMatchType::Exact => TextCondition::Exact(text.to_owned()),
        ValueMatchType::RegularExpression => TextCondition::Regex(text.to_owned()),
    }
}

fn header_changes(filters: &[RouteFilter]) -> (HeaderChanges, HeaderChanges) {
    let request = filters
        .iter()
        .find_map(|filter| filter.request_header_modifier.as_ref());
    let response = filters
        .iter()
        .find_map(|filter| filter.response_header_modifier.as_ref());
    let changes = |said: Option<&resource::HeaderChanges>| {
        said.map_or_else(HeaderChanges::default, |said| HeaderChanges {
            set: pairs(&said.set),
            add: pairs(&said.add),
            remove: said
                .remove
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        })
    };
    (changes(request), changes(response))
}

/// Of a name that is there twice, in whatever letters, the first counts.
fn pairs(headers: &[resource::Header]) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let pair = |header: &resource::Header| (header.name.to_ascii_lowercase(), header.value.clone());
    let pairs = headers.iter().map(pair);
    pairs
        .filter(|(name, _)| seen.insert(name.clone()))
        .collect()
}

fn timeout(said: RouteTimeout) -> Timeout {
    said.0.map_or(Timeout::Unlimited, Timeout::After)
}
