//! Which rule a call meets, and what is done to it there.

use proptest::prelude::*;
use weir_config::parse;
use weir_config::snapshot::{PathCondition, TextCondition, Timeout, ValueCondition};

use super::*;

/// `/two/` was taken for `/two` (httproute-exact-path-matching of the standard's conformance tests).
#[test]
fn an_exact_path_keeps_its_slash_and_a_prefix_has_none() {
    let said = |kind: &str, value: &str| {
        let path = format!("path: {{type: {kind}, value: {value}}}");
        let rules = format!("[{{matches: [{{{path}}}], backendRefs: [{{name: next, port: 80}}]}}]");
        let route = route("cart", "boutique", "2026-01-01T00:00:00Z", &rules);
        let routing = routing(&index(&format!("{SERVICES}{route}")));
        routing[0].matches[0].path.clone()
    };
    let exact = |path: &str| PathCondition::Exact(path.to_owned());
    assert_eq!(said("Exact", "/two"), exact("/two"));
    assert_eq!(said("Exact", "/%74wo/"), exact("/two/"));
    assert_eq!(said("Exact", "/"), exact("/"));
    let prefix = PathCondition::Prefix("/two".to_owned());
    assert_eq!(said("PathPrefix", "/two/"), prefix);
    assert_eq!(said("PathPrefix", "/"), PathCondition::Any);
}

/// The API server takes both, for its key knows small letters from capitals, and the standard says which one counts.
#[test]
fn of_a_header_that_is_set_twice_the_first_counts() {
    let filter = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Env, value: a}, {name: x-env, value: b}], \
                  add: [{name: x-seen, value: c}, {name: X-Seen, value: d}]}}";
    let rules = format!("[{{filters: [{filter}], backendRefs: [{{name: next, port: 80}}]}}]");
    let yaml = route("r", "boutique", "2026-11-01T00:00:00Z", &rules);
    let index = index(&format!("{SERVICES}{yaml}"));
    let changes = &routing(&index)[0].rules[0].request;
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    assert_eq!(changes.set, pair("x-env", "a"));
    assert_eq!(changes.add, pair("x-seen", "c"));
}

#[test]
fn timeouts_and_retries_are_what_the_route_says() {
    let rules = "[{timeouts: {request: 0h0m0s, backendRequest: 100ms200ms}, retry: {attempts: 2, codes: [503], backoff: 10ms0s10ms}, backendRefs: [{name: next, port: 80}]}]";
    let yaml = route("cart", "boutique", "2026-01-01T00:00:00Z", rules);
    let routing = routing(&index(&format!("{SERVICES}{yaml}")));
    let rule = &routing[0].rules[0];
    assert_eq!(rule.deadline, Some(Timeout::Unlimited));
    let one = rule.per_try_timeout.and_then(Timeout::get);
    assert_eq!(one.expect("a duration").as_millis(), 300);
    let retry = rule.retry.as_ref().expect("a retry");
    assert_eq!((retry.attempts, &retry.codes[..]), (Some(3), &[503][..]));
    assert_eq!(retry.backoff.expect("a duration").as_millis(), 20);
}

/// Path, whether a method is named, headers, query parameters.
type Said = (u8, usize, bool, usize, usize);

fn said() -> impl Strategy<Value = Said> {
    (0u8..4, 1usize..4, any::<bool>(), 0usize..3, 0usize..3)
}

fn yaml_of(&(class, length, method, headers, params): &Said) -> String {
    let path = "/a".repeat(length);
    let path = match class {
        0 => format!("path: {{type: Exact, value: {path}}}, "),
        1 => format!("path: {{type: RegularExpression, value: {path}}}, "),
        2 => format!("path: {{type: PathPrefix, value: {path}}}, "),
        _ => String::new(),
    };
    let method = if method { "method: GET, " } else { "" };
    let list = |count: usize| {
        let items = (0..count).map(|it| format!("{{name: n{it}, value: v}}"));
        items.collect::<Vec<_>>().join(", ")
    };
    let (headers, params) = (list(headers), list(params));
    format!("{{{path}{method}headers: [{headers}], queryParams: [{params}]}}")
}

/// The words of the standard, one after the other; `true`: `a` is tried before `b`.
fn before(a: &Said, b: &Said) -> Option<bool> {
    let rank = |class: u8| if class == 3 { 2 } else { class };
    let length = |it: &Said| if it.0 == 3 { 1 } else { it.1 * 2 };
    if rank(a.0) != rank(b.0) {
        return Some(rank(a.0) < rank(b.0));
    }
    if length(a) != length(b) {
        return Some(length(a) > length(b));
    }
    if a.2 != b.2 {
        return Some(a.2);
    }
    if a.3 != b.3 {
        return Some(a.3 > b.3);
    }
    (a.4 != b.4).then_some(a.4 > b.4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a sort that reads like the standard: of all matches of several routes, by a bubble at a time.
    #[test]
    fn matches_are_tried_in_the_order_of_the_standard(
        routes in proptest::collection::vec((0u8..3, proptest::collection::vec(said(), 1..4)), 1..4),
    ) {
        let mut yaml = SERVICES.to_owned();
        // What is compared: the match, its route's age and name, its rule.
        let mut naive: Vec<(Said, (u8, String), usize)> = Vec::new();
        for (number, (age, matches)) in routes.iter().enumerate() {
            let rules: Vec<String> = matches.iter().map(|it| {
                format!("{{matches: [{}], backendRefs: [{{name: next, port: 80}}]}}", yaml_of(it))
            }).collect();
            let name = format!("r{number}");
            let created = format!("2026-01-0{}T00:00:00Z", age + 1);
            yaml += &route(&name, "boutique", &created, &format!("[{}]", rules.join(", ")));
            for (place, it) in matches.iter().enumerate() {
                naive.push((*it, (*age, name.clone()), place));
            }
        }
        let wrong = |a: &(Said, (u8, String), usize), b: &(Said, (u8, String), usize)| {
            match before(&a.0, &b.0) {
                Some(before) => !before,
                None if a.1 != b.1 => a.1 > b.1,
                None => a.2 > b.2,
            }
        };
        for end in (1..naive.len()).rev() {
            for at in 0..end {
                if wrong(&naive[at], &naive[at + 1]) {
                    naive.swap(at, at + 1);
                }
            }
        }
        let routing = routing(&index(&yaml));
        let found: Vec<String> = order(&routing[0]).into_iter().map(|(name, _)| name).collect();
        let expected: Vec<String> = naive.iter()
            .map(|(_, (_, name), place)| format!("HTTPRoute boutique/{name} rules[{place}]"))
            .collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn of_grpc_routes_the_most_exact_match_comes_first() {
    let grpc = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc, namespace: boutique}
spec:
  parentRefs: [{group: \"\", kind: Service, name: cart}]
  rules:
  - backendRefs: [{name: next, port: 80}]
  - matches: [{method: {service: a.B}}]
  - matches: [{method: {service: a.B, method: C}}, {method: {service: 'a[.]B', method: C, type: RegularExpression}}]
---
";
    let routing = routing(&index(&format!("{SERVICES}{grpc}")));
    let names: Vec<String> = order(&routing[0])
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let grpc = |place: usize| format!("GRPCRoute boutique/grpc rules[{place}]");
    assert_eq!(names, [grpc(2), grpc(1), grpc(2), grpc(0)]);
}

/// The API server's bound, which no rule is above by itself.
#[test]
fn a_route_with_more_matches_than_the_standard_allows_is_refused() {
    let one = "{path: {value: /a}}";
    let rules = |last: usize| {
        let rule = |n| {
            format!(
                "{{matches: [{}], backendRefs: [{{name: next, port: 80}}]}}",
                vec![one; n].join(", ")
            )
        };
        let rules = [rule(64), rule(63), rule(last)];
        route(
            "many",
            "boutique",
            "2026-01-01T00:00:00Z",
            &format!("[{}]", rules.join(", ")),
        )
    };
    // A rule without matches has one, too.
    for (last, is_sound) in [(0, true), (1, true), (2, false)] {
        let found = parse("mesh.yaml", &rules(last));
        assert_eq!(found.is_ok(), is_sound, "{last}");
    }
}

#[test]
fn a_route_with_more_patterns_than_a_sidecar_holds_is_refused() {
    let refused = |patterns: usize| {
        let pattern = |n: usize| format!("{{type: RegularExpression, name: h{n}, value: a}}");
        let headers = |count: usize| (0..count).map(pattern).collect::<Vec<_>>().join(", ");
        let of = |count: usize| format!("{{headers: [{}]}}", headers(count));
        let mut matches = vec![of(16); patterns / 16];
        matches.push(of(patterns % 16));
        let rules = format!(
            "[{{matches: [{}], backendRefs: [{{name: next, port: 80}}]}}]",
            matches.join(", ")
        );
        parse(
            "r.yaml",
            &route("r", "boutique", "2026-01-01T00:00:00Z", &rules),
        )
        .err()
    };
    assert_eq!(refused(256), None);
    let told = refused(257).expect("one too many");
    assert_eq!(told[0].path, "spec.rules");
    assert!(told[0].message.contains("found 257"), "{told:#?}");
}

/// Such a route was refused. What must be ignored is no header more, either, when routes are put in order.
#[test]
fn of_a_name_that_is_matched_twice_the_first_counts() {
    let to_next = "backendRefs: [{name: next, port: 80}]";
    let twice = "headers: [{name: Foo, value: a}, {name: foo, value: b}], queryParams: [{name: q, value: a}, {name: q, value: b}, {name: Q, value: c}]";
    let more = "headers: [{name: bar, value: a}], queryParams: [{name: q, value: a}, {name: r, value: a}, {name: s, value: a}]";
    let rules =
        format!("[{{matches: [{{{twice}}}], {to_next}}}, {{matches: [{{{more}}}], {to_next}}}]");
    let http = route("r", "boutique", "2026-01-01T00:00:00Z", &rules);
    let grpc = grpc_route(
        "g",
        "canary",
        "[{matches: [{headers: [{name: Foo, value: a}, {name: FOO, value: b}]}], backendRefs: [{name: cart, namespace: boutique, port: 80}]}]",
    );
    let yaml = format!("{SERVICES}{http}{grpc}");
    let warnings = parse("r.yaml", &yaml).expect("in order").into_iter();
    let warnings: Vec<String> = warnings
        .flat_map(|it| it.warnings)
        .map(|it| it.path)
        .collect();
    assert_eq!(
        warnings,
        [
            "spec.rules[0].matches[0].headers[1].name",
            "spec.rules[0].matches[0].queryParams[1].name",
            "spec.rules[0].matches[0].headers[1].name",
        ]
    );
    let routing = routing(&index(&yaml));
    let said = |name: &str, value: &str| (name.to_owned(), TextCondition::Exact(value.to_owned()));
    let of = |values: &[ValueCondition]| {
        let pairs = values.iter().map(|it| (it.name.clone(), it.value.clone()));
        pairs.collect::<Vec<_>>()
    };
    let [most, twice] = &routing[0].matches[..] else {
        panic!("two matches: {:#?}", routing[0].matches)
    };
    assert_eq!(of(&routing[1].matches[0].headers), [said("foo", "a")]);
    assert_eq!(of(&most.headers), [said("bar", "a")], "of more parameters");
    assert_eq!(of(&twice.headers), [said("foo", "a")]);
    assert_eq!(of(&twice.query), [said("q", "a"), said("Q", "c")]);
}

/// Of one filter: the paths of what is wrong with it.
fn mistakes(filter: &str) -> Vec<String> {
    let rules = format!("[{{filters: [{filter}], backendRefs: [{{name: next, port: 80}}]}}]");
    let found = parse(
        "r.yaml",
        &route("r", "boutique", "2026-01-01T00:00:00Z", &rules),
    );
    let found = found.err().unwrap_or_default().into_iter();
    found.map(|it| it.path).collect()
}

/// Sidecars take `HTTP2-Settings` off with the others (RFC 7540 section 3.2.1), and a route could put it back.
#[test]
fn no_header_of_the_connection_is_a_routes_to_change() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
    ] {
        let changes = format!(
            "{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: {name}, value: a}}]}}}}"
        );
        let path = "spec.rules[0].filters[0].requestHeaderModifier.add[0].name";
        assert_eq!(mistakes(&changes), [path], "{name}");
    }
}

/// No path can be sent with it, so calls went on unchanged, and redirects were answered 400.
#[test]
fn a_path_that_no_call_can_have_is_no_replacement() {
    let rewrite = |path: &str| {
        mistakes(&format!(
            "{{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: '{path}'}}}}}}"
        ))
    };
    assert!(rewrite("/a%60b").is_empty());
    let path = "spec.rules[0].filters[0].urlRewrite.path.replaceFullPath";
    assert_eq!(rewrite("/a`b"), [path]);
}
