use proptest::prelude::*;

use super::*;

const CHECKOUT: &str = "spiffe://weir.local/ns/boutique/sa/checkout";
const OTHER: &str = "spiffe://weir.local/ns/attic/sa/checkout";

fn http(method: Option<&str>, path: PathMatch) -> RouteMatch {
    RouteMatch::Http {
        method: method.map(str::to_owned),
        path,
    }
}

fn below(path: &str) -> RouteMatch {
    http(None, PathMatch::Prefix(path.into()))
}

fn peer(namespace: Option<&str>, service_account: Option<&str>) -> snapshot::Peer {
    snapshot::Peer {
        identity: None,
        namespace: namespace.map(str::to_owned),
        service_account: service_account.map(str::to_owned),
    }
}

fn identity(identity: &str) -> snapshot::Peer {
    snapshot::Peer {
        identity: Some(identity.into()),
        ..peer(None, None)
    }
}

fn rule(from: Option<Vec<snapshot::Peer>>, to: Option<Vec<RouteMatch>>) -> snapshot::AccessRule {
    snapshot::AccessRule {
        policy: "boutique/policy".into(),
        from,
        to,
    }
}

fn rules(
    deny: Vec<snapshot::AccessRule>,
    allow: Option<Vec<snapshot::AccessRule>>,
) -> snapshot::AccessRules {
    snapshot::AccessRules { deny, allow }
}

fn authorizer(enforced: snapshot::AccessRules) -> Authorizer {
    Authorizer::new(&snapshot::Authorization {
        enforced,
        audited: None,
    })
}

fn reason(
    authorizer: &Authorizer,
    caller: Option<&str>,
    method: &Method,
    path: &str,
) -> &'static str {
    told(authorizer.admit(Question {
        caller,
        call: Some((method, path)),
    }))
}

fn told(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::WouldBeDenied(_) => "would be denied",
        Verdict::Denied(denied) => denied.reason,
    }
}

#[test]
fn who_is_allowed_is_who_has_proven_to_be_that() {
    let get = |from: snapshot::Peer, caller| {
        let authorizer = authorizer(rules(Vec::new(), Some(vec![rule(Some(vec![from]), None)])));
        reason(&authorizer, caller, &Method::GET, "/")
    };
    for (from, caller, verdict) in [
        (identity(CHECKOUT), Some(CHECKOUT), "allowed"),
        (identity(CHECKOUT), Some(OTHER), "allowed-by-nobody"),
        (
            identity(CHECKOUT),
            Some("spiffe://weir.local/ns/boutique/sa/checkout2"),
            "allowed-by-nobody",
        ),
        (peer(Some("boutique"), None), Some(CHECKOUT), "allowed"),
        (
            peer(Some("boutique"), None),
            Some(OTHER),
            "allowed-by-nobody",
        ),
        (peer(None, Some("checkout")), Some(OTHER), "allowed"),
        (
            peer(Some("boutique"), Some("cart")),
            Some(CHECKOUT),
            "allowed-by-nobody",
        ),
        (identity(CHECKOUT), None, "cannot-decide"),
        (peer(Some("boutique"), None), None, "cannot-decide"),
        (
            peer(Some("boutique"), None),
            Some("spiffe://weir.local/ns/boutique/sa/checkout/x"),
            "cannot-decide",
        ),
        (
            peer(Some("boutique"), None),
            Some("spiffe://weir.local/x/ns/boutique/sa"),
            "cannot-decide",
        ),
    ] {
        assert_eq!(get(from.clone(), caller), verdict, "{from:?} {caller:?}");
    }
}

#[test]
fn a_rule_that_denies_is_stronger_and_one_that_may_be_meant_denies_too() {
    let deny = rule(
        Some(vec![peer(Some("attic"), None)]),
        Some(vec![below("/admin")]),
    );
    let authorizer = authorizer(rules(vec![deny], Some(vec![rule(None, None)])));
    for (caller, path, verdict) in [
        (Some(OTHER), "/admin/users", "denied-by-rule"),
        (Some(OTHER), "/%61dmin/", "denied-by-rule"),
        (Some(OTHER), "/administrator", "allowed"),
        (Some(CHECKOUT), "/admin", "allowed"),
        (Some(CHECKOUT), "//admin", "allowed"),
        (Some(OTHER), "//admin", "cannot-decide"),
        (Some(OTHER), "/x/..;/admin", "cannot-decide"),
        (Some(OTHER), "/%2fadmin", "cannot-decide"),
        (Some(OTHER), "*", "cannot-decide"),
        (None, "/admin", "cannot-decide"),
        (None, "/", "allowed"),
    ] {
        let found = reason(&authorizer, caller, &Method::GET, path);
        assert_eq!(found, verdict, "{caller:?} {path}");
    }
}

#[test]
fn methods_are_told_apart_but_head_is_a_get_to_whoever_denies_it() {
    let spelt = |text: &str| text.parse::<Method>().expect("a token");
    let reads = || {
        vec![rule(
            None,
            Some(vec![http(Some("GET"), PathMatch::Exact("/a".into()))]),
        )]
    };
    let (denies, allows) = (
        authorizer(rules(reads(), None)),
        authorizer(rules(Vec::new(), Some(reads()))),
    );
    for (method, denied, allowed) in [
        (Method::GET, "denied-by-rule", "allowed"),
        (Method::HEAD, "denied-by-rule", "allowed-by-nobody"),
        (Method::POST, "allowed", "allowed-by-nobody"),
        // No spelling is a way around a rule that denies, or a way through one that allows.
        (spelt("get"), "denied-by-rule", "allowed-by-nobody"),
        (spelt("Head"), "denied-by-rule", "allowed-by-nobody"),
        (spelt("post"), "allowed", "allowed-by-nobody"),
    ] {
        assert_eq!(reason(&denies, None, &method, "/a"), denied, "{method}");
        assert_eq!(reason(&allows, None, &method, "/a"), allowed, "{method}");
    }
    assert_eq!(
        reason(&denies, None, &Method::POST, "/a//"),
        "allowed",
        "another method"
    );
}

#[test]
fn a_grpc_method_is_its_path_whatever_the_call_says_it_is() {
    let call = |method: Option<&str>| RouteMatch::Grpc {
        service: "boutique.v1.Payment".into(),
        method: method.map(str::to_owned),
    };
    let one = authorizer(rules(
        vec![rule(None, Some(vec![call(Some("Refund"))]))],
        None,
    ));
    let all = authorizer(rules(vec![rule(None, Some(vec![call(None)]))], None));
    for (path, by_one, by_all) in [
        (
            "/boutique.v1.Payment/Refund",
            "denied-by-rule",
            "denied-by-rule",
        ),
        (
            "/boutique.v1.Payment/%52efund",
            "denied-by-rule",
            "denied-by-rule",
        ),
        (
            "/boutique.v1.Payment/RefundAll",
            "allowed",
            "denied-by-rule",
        ),
        ("/boutique.v1.Payments/Refund", "allowed", "allowed"),
    ] {
        assert_eq!(reason(&one, None, &Method::POST, path), by_one, "{path}");
        assert_eq!(reason(&all, None, &Method::POST, path), by_all, "{path}");
    }
}

#[test]
fn bytes_are_allowed_by_who_sends_them_alone() {
    let bytes =
        |authorizer: &Authorizer, caller| told(authorizer.admit(Question { caller, call: None }));
    let from = || Some(vec![identity(CHECKOUT)]);
    let allows = |to| authorizer(rules(Vec::new(), Some(vec![rule(from(), to)])));
    let denies = |to| authorizer(rules(vec![rule(from(), to)], None));
    assert_eq!(bytes(&allows(None), Some(CHECKOUT)), "allowed");
    assert_eq!(bytes(&allows(None), Some(OTHER)), "allowed-by-nobody");
    assert_eq!(
        bytes(&allows(Some(vec![below("/")])), Some(CHECKOUT)),
        "cannot-decide"
    );
    assert_eq!(
        bytes(&denies(Some(vec![below("/a")])), Some(CHECKOUT)),
        "cannot-decide"
    );
    assert_eq!(
        bytes(&denies(Some(vec![below("/a")])), Some(OTHER)),
        "allowed"
    );
    assert_eq!(
        bytes(&denies(None), None),
        "cannot-decide",
        "a stranger may be the one"
    );
}

#[test]
fn an_audit_tells_what_would_be_denied_and_lets_it_pass() {
    let deny_all = || rules(vec![rule(None, None)], None);
    let audits = |enforced| {
        Authorizer::new(&snapshot::Authorization {
            enforced,
            audited: Some(deny_all()),
        })
    };
    assert_eq!(
        reason(&audits(rules(Vec::new(), None)), None, &Method::GET, "/"),
        "would be denied"
    );
    assert_eq!(
        reason(&audits(deny_all()), None, &Method::GET, "/"),
        "denied-by-rule"
    );
    let nobody = authorizer(rules(Vec::new(), Some(Vec::new())));
    assert_eq!(
        reason(&nobody, Some(CHECKOUT), &Method::GET, "/"),
        "allowed-by-nobody"
    );
}

#[test]
fn a_rule_that_cannot_be_read_denies_and_allows_nobody() {
    let broken = || vec![rule(None, Some(vec![below("/a/../b")]))];
    let denies = authorizer(rules(broken(), None));
    let allows = authorizer(rules(Vec::new(), Some(broken())));
    assert_eq!(reason(&denies, None, &Method::GET, "/c"), "cannot-decide");
    assert_eq!(
        reason(&allows, None, &Method::GET, "/a/../b"),
        "cannot-decide"
    );
}

proptest! {
    /// However a path is spelt, whoever may not see /admin does not see what a server may read as that, and whoever may
    /// see nothing but /shop sees nothing that a server may read as something else.
    #[test]
    fn no_spelling_is_a_way_around(path in "(/|a|d|m|i|n|admin|shop|\\.|\\.\\.|%2[eEfF]|%5[cC]|%25|%6[149dDeE]|;|\\\\){1,10}") {
        let path = format!("/{path}");
        let text = |text: &str| String::from_utf8_lossy(&percent_decoded(text)).into_owned();
        let (once, twice) = (text(&path), text(&text(&path)));
        let readings: Vec<String> = [path.clone(), once, twice].iter().map(|read| normalised(read)).collect();
        let is_below = |read: &String, top: &str| read == top || read.starts_with(&format!("{top}/"));
        let denies = authorizer(rules(vec![rule(None, Some(vec![below("/admin")]))], None));
        if reason(&denies, None, &Method::GET, &path) == "allowed" {
            prop_assert!(!readings.iter().skip(1).any(|read| is_below(read, "/admin")), "{path} {readings:?}");
        }
        let allows = authorizer(rules(Vec::new(), Some(vec![rule(None, Some(vec![below("/shop")]))])));
        if reason(&allows, None, &Method::GET, &path) == "allowed" {
            prop_assert!(readings.iter().skip(1).all(|read| is_below(read, "/shop")), "{path} {readings:?}");
        }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => (decoded.push(byte), rest = &tail[2..]).1,
            None => (decoded.push(*first), rest = tail).1,
        }
    }
    decoded
}

/// As the most willing of servers does it.
fn normalised(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}
