use proptest::prelude::*;

use super::*;

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn any(path: PathCondition) -> RuleMatch {
    RuleMatch {
        rule: 0,
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn exact(name: &str, value: &str) -> ValueCondition {
    ValueCondition {
        name: name.into(),
        value: TextCondition::Exact(value.into()),
    }
}

fn like(name: &str, value: &str) -> ValueCondition {
    ValueCondition {
        name: name.into(),
        value: TextCondition::Regex(value.into()),
    }
}

fn matches(said: &RuleMatch, head: &Parts, grpc: bool) -> bool {
    let rules = Rules::new(std::slice::from_ref(said)).expect("it can be matched");
    rules.find(head, grpc).is_some()
}

#[test]
fn paths_are_compared_in_one_form() {
    let path = |condition: PathCondition, uri: &str| {
        matches(&any(condition), &head("GET", uri, &[]), false)
    };
    let exact = || PathCondition::Exact("/cart".into());
    let prefix = || PathCondition::Prefix("/cart".into());
    let pattern = || PathCondition::Regex("/cart/[0-9]+".into());
    let slash = || PathCondition::Exact("/cart/".into());
    let slash_pattern = || PathCondition::Regex("/(cart|docs)/".into());
    for (uri, is_exact, is_below, is_like) in [
        ("/cart", true, true, false),
        ("/cart/", false, true, false),
        ("/%63art/", false, true, false),
        ("/cart/1/", false, true, false),
        ("/%63art?x=1", true, true, false),
        ("/cart/1", false, true, true),
        ("/cart/1/2", false, true, false),
        ("/cartoon", false, false, false),
        ("/a/cart/1", false, false, false),
        // What servers read differently is nobody's path.
        ("//cart", false, false, false),
        ("/cart/../cart", false, false, false),
        ("/cart;x/1", false, false, false),
    ] {
        assert_eq!(path(exact(), uri), is_exact, "exact {uri}");
        assert_eq!(path(prefix(), uri), is_below, "prefix {uri}");
        assert_eq!(path(pattern(), uri), is_like, "pattern {uri}");
        assert!(path(PathCondition::Any, uri), "any {uri}");
        let with_slash = ["/cart/", "/%63art/"].contains(&uri);
        assert_eq!(path(slash(), uri), with_slash, "exact with a slash {uri}");
        assert_eq!(
            path(slash_pattern(), uri),
            with_slash,
            "pattern with a slash {uri}"
        );
    }
}

#[test]
fn a_method_a_header_and_a_parameter_must_all_hold() {
    let said = RuleMatch {
        method: Some("POST".into()),
        headers: vec![exact("x-canary", "1"), like("x-version", "v[0-9]")],
        query: vec![exact("user", "a b"), like("n", "[0-9]*")],
        ..any(PathCondition::Any)
    };
    let headers = [("x-canary", "1"), ("x-version", "old"), ("x-version", "v2")];
    let with = |method, uri, headers: &[_]| matches(&said, &head(method, uri, headers), false);
    assert!(with("POST", "/?n=12&user=a+b", &headers));
    assert!(with("POST", "/?us%65r=a%20b&n", &headers), "an empty value");
    assert!(!with("GET", "/?n=12&user=a+b", &headers));
    assert!(
        !with("POST", "/?n=12&user=c&user=a+b", &headers),
        "the first counts"
    );
    assert!(!with("POST", "/?n=x&user=a+b", &headers));
    assert!(!with("POST", "/", &headers));
    assert!(
        !with("POST", "/?n=12&user=a+b", &headers[..2]),
        "all of the value"
    );
    assert!(!with("POST", "/?n=12&user=a+b", &headers[1..]));
}

/// `%+5` was read as the byte 5, for numbers may have a sign.
#[test]
fn what_is_no_escape_in_a_query_stays_as_it_is() {
    for (sent, read) in [
        ("%+5", "% 5"),
        ("%", "%"),
        ("%4", "%4"),
        ("%zz", "%zz"),
        ("%4a%4A", "JJ"),
    ] {
        let said = RuleMatch {
            query: vec![exact("q", read)],
            ..any(PathCondition::Any)
        };
        let head = head("GET", &format!("/?q={sent}"), &[]);
        assert!(matches(&said, &head, false), "{sent}");
    }
}

#[test]
fn the_host_is_the_authority_where_there_is_no_header() {
    let said = RuleMatch {
        headers: vec![exact("host", "cart:80")],
        ..any(PathCondition::Any)
    };
    assert!(matches(
        &said,
        &head("GET", "/", &[("host", "cart:80")]),
        false
    ));
    assert!(matches(&said, &head("GET", "http://cart:80/", &[]), false));
    assert!(!matches(
        &said,
        &head("GET", "http://other:80/", &[]),
        false
    ));
}

#[test]
fn a_grpc_call_is_a_service_and_a_method() {
    let grpc = |service: Option<&str>, method: Option<&str>| {
        let text = |it: Option<&str>| it.map(|it| TextCondition::Exact(it.into()));
        any(PathCondition::Grpc {
            service: text(service),
            method: text(method),
        })
    };
    let get = head("POST", "/boutique.v1.Cart/Get", &[]);
    for (service, method, is) in [
        (Some("boutique.v1.Cart"), Some("Get"), true),
        (Some("boutique.v1.Cart"), None, true),
        (None, Some("Get"), true),
        (None, None, true),
        (Some("boutique.v1.Car"), None, false),
        (None, Some("GetAll"), false),
    ] {
        let said = grpc(service, method);
        assert_eq!(matches(&said, &get, true), is, "{said:?}");
        assert!(!matches(&said, &get, false), "it is no gRPC");
    }
    let like = any(PathCondition::Grpc {
        service: Some(TextCondition::Regex("boutique[.].*".into())),
        method: None,
    });
    assert!(matches(&like, &get, true));
    assert!(!matches(&like, &head("POST", "/other.Cart/Get", &[]), true));
    let slash = head("POST", "/boutique.v1.Cart/Get/", &[]);
    assert!(matches(&grpc(None, Some("Get")), &slash, true));
}

#[test]
fn the_first_that_matches_applies() {
    let said = [
        RuleMatch {
            rule: 7,
            ..any(PathCondition::Exact("/a".into()))
        },
        RuleMatch {
            rule: 3,
            ..any(PathCondition::Prefix("/a".into()))
        },
    ];
    let rules = Rules::new(&said).expect("in order");
    let find = |uri| rules.find(&head("GET", uri, &[]), false);
    assert_eq!(
        (find("/a"), find("/a/b"), find("/b")),
        (Some(7), Some(3), None)
    );
}

proptest! {
    /// Over all random numbers of one round, each is picked exactly as often as its weight says.
    #[test]
    fn each_is_picked_as_often_as_its_weight_says(weights in proptest::collection::vec(0u32..20, 0..6), round in 0u64..1000) {
        let total: u64 = weights.iter().map(|it| u64::from(*it)).sum();
        let mut picked = vec![0u32; weights.len()];
        for random in 0..total {
            let place = pick(weights.iter().copied(), round * total + random);
            picked[place.expect("there is one")] += 1;
        }
        if total == 0 {
            prop_assert_eq!(pick(weights.iter().copied(), round), None);
        }
        prop_assert_eq!(picked, weights);
    }
}

/// One object of a few hundred KiB took hundreds of MiB in the sidecars of all who call the service.
#[test]
fn more_patterns_than_a_sidecar_is_to_hold_are_refused() {
    let pattern = any(PathCondition::Regex("/a{1900}".into()));
    let with_header = RuleMatch {
        headers: vec![like("x", "b+"), exact("y", "c")],
        ..any(PathCondition::Grpc {
            service: Some(TextCondition::Regex("s+".into())),
            method: None,
        })
    };
    assert_eq!((pattern.patterns(), with_header.patterns()), (1, 2));
    let of = |count| vec![pattern.clone(); count];
    assert!(Rules::new(&of(PATTERNS_MAX)).is_ok());
    let refused = Rules::new(&of(PATTERNS_MAX + 1)).expect_err("too many");
    assert_eq!(refused, "257 patterns in routes, at most 256 are taken");
}
