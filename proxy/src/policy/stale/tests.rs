use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const ROOMY: Bounds = Bounds {
    answers: 100,
    bytes: 1024 * 1024,
};

fn request(path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = http::Request::get(path).header("host", "quotes");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("a request").into_parts().0
}

fn said(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a name");
        map.append(name, value.parse().expect("a value"));
    }
    map
}

fn url(head: &Parts) -> Url {
    Url::of("a/b:1", head).expect("it has a host")
}

/// Asked for, answered, and asked for again after a while.
fn again(
    first: &Parts,
    answer: &[(&str, &str)],
    second: &Parts,
    after: Duration,
) -> Option<Duration> {
    let (mut stale, now) = (Stale::new(ROOMY), Instant::now());
    let answer = said(answer);
    let terms = Terms::of(first, StatusCode::OK, &answer)?;
    stale.keep(url(first), terms, answer, Bytes::from_static(b"page"), now);
    let found = stale.find(&url(second), &second.headers, HOUR, now + after)?;
    assert_eq!(found.body, "page");
    Some(found.age)
}

#[test]
fn an_answer_is_given_again_until_it_is_as_old_as_the_policy_or_itself_allows() {
    let get = request("/quotes", &[]);
    let secs = Duration::from_secs;
    for (control, oldest) in [
        ("", 3600),
        ("max-age=5", 3600),
        ("public, stale-if-error=30", 30),
        ("max-age=60, stale-if-error=30", 90),
        ("Max-Age=60, Stale-If-Error=\"30\"", 90),
        ("stale-if-error=999999", 3600),
        ("stale-if-error=0", 0),
        ("stale-if-error=soon", 0),
        ("s-maxage=20, stale-if-error=600", 20),
    ] {
        let answer = [("cache-control", control)];
        let age = |after| again(&get, &answer, &get, after);
        assert_eq!(age(secs(oldest)), Some(secs(oldest)), "{control}");
        assert_eq!(age(secs(oldest + 1)), None, "{control}");
    }
    let old = [("cache-control", "stale-if-error=30"), ("age", "25")];
    assert_eq!(again(&get, &old, &get, secs(5)), Some(secs(30)));
    assert_eq!(again(&get, &old, &get, secs(6)), None);
}

#[test]
fn what_is_private_secret_or_must_be_fresh_is_not_kept() {
    let get = request("/quotes", &[]);
    for answer in [
        ("cache-control", "no-store"),
        ("cache-control", "max-age=60, private"),
        ("cache-control", "private=\"set-cookie\", public"),
        ("cache-control", "No-Cache"),
        ("cache-control", "max-age=9, must-revalidate"),
        ("cache-control", "proxy-revalidate"),
        ("set-cookie", "session=1"),
        ("vary", "*"),
        ("vary", "accept, *"),
    ] {
        assert_eq!(
            Terms::of(&get, StatusCode::OK, &said(&[answer])),
            None,
            "{answer:?}"
        );
    }
    let kept =
        |request: &Parts, status: StatusCode| Terms::of(request, status, &said(&[])).is_some();
    assert!(kept(&get, StatusCode::OK));
    for status in [204, 206, 301, 404, 500] {
        let status = StatusCode::from_u16(status).expect("a status");
        assert!(!kept(&get, status), "{status}");
    }
    let mut post = request("/quotes", &[]);
    post.method = Method::POST;
    assert!(!kept(&post, StatusCode::OK));
    assert!(!kept(
        &request("/quotes", &[("cache-control", "no-store")]),
        StatusCode::OK
    ));
    let unreadable = HeaderValue::from_bytes(b"max-age=9, \xff").expect("opaque bytes");
    let unreadable = HeaderMap::from_iter([(CACHE_CONTROL, unreadable)]);
    assert_eq!(Terms::of(&get, StatusCode::OK, &unreadable), None);
}

#[test]
fn what_somebody_got_with_credentials_is_nobody_elses_unless_it_says_so() {
    let open = request("/quotes", &[]);
    let public = [("cache-control", "public")];
    for credentials in [("authorization", "Bearer 1"), ("cookie", "session=1")] {
        let own = request("/quotes", &[credentials]);
        assert_eq!(Terms::of(&own, StatusCode::OK, &said(&[])), None);
        assert!(again(&own, &public, &open, HOUR).is_some());
        assert!(again(&open, &public, &own, HOUR).is_some());
        assert!(
            again(&open, &[], &own, HOUR).is_none(),
            "the page of strangers is not that of somebody who is known"
        );
    }
}

#[test]
fn answers_are_told_apart_by_url_and_by_what_vary_names() {
    let plain = request("/quotes?a=1", &[("accept-language", "de")]);
    assert!(again(&plain, &[], &plain, HOUR).is_some());
    for other in [
        request("/quotes?a=2", &[]),
        request("http://other/quotes?a=1", &[]),
    ] {
        assert!(again(&plain, &[], &other, HOUR).is_none(), "{other:?}");
    }
    let english = request("/quotes?a=1", &[("accept-language", "en")]);
    assert!(again(&plain, &[], &english, HOUR).is_some());
    let vary = [("vary", "Accept-Encoding, Accept-Language")];
    assert!(again(&plain, &vary, &plain, HOUR).is_some());
    assert!(again(&plain, &vary, &english, HOUR).is_none());
    let mut insists = plain.clone();
    let no_cache = HeaderValue::from_static("no-cache");
    insists.headers.insert(CACHE_CONTROL, no_cache);
    assert!(
        again(&plain, &[], &insists, HOUR).is_none(),
        "asked for a fresh one"
    );
    let other_service = Url::of("a/b:2", &plain);
    assert_ne!(other_service, Some(url(&plain)));
}

#[test]
fn a_newer_answer_takes_the_place_of_the_older_but_not_every_time() {
    let get = request("/quotes", &[]);
    let (mut stale, now) = (Stale::new(ROOMY), Instant::now());
    let keep = |stale: &mut Stale, body: &'static str, at| {
        let terms = Terms::of(&get, StatusCode::OK, &said(&[])).expect("it may be kept");
        stale.keep(
            url(&get),
            terms,
            HeaderMap::new(),
            Bytes::from_static(body.as_bytes()),
            at,
        );
    };
    assert!(stale.wants(&url(&get), &get.headers, now));
    keep(&mut stale, "old", now);
    assert!(!stale.wants(&url(&get), &get.headers, now + REFRESH_EVERY / 2));
    let later = now + REFRESH_EVERY;
    assert!(stale.wants(&url(&get), &get.headers, later));
    keep(&mut stale, "new", later);
    assert_eq!(stale.size().0, 1);
    let found = stale.find(&url(&get), &get.headers, HOUR, later);
    assert_eq!(found.expect("there is one").body, "new");
    stale.forget(&url(&get), now);
    assert_eq!(stale.size(), (0, 0));
    assert!(stale.find(&url(&get), &get.headers, HOUR, later).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Keep { path: u8, variant: u8, body: usize },
    Find { path: u8, variant: u8 },
    Forget { path: u8 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, 0u8..12, 0usize..3000)
            .prop_map(|(path, variant, body)| Step::Keep { path, variant, body }),
        2 => (0u8..6, 0u8..12).prop_map(|(path, variant)| Step::Find { path, variant }),
        1 => (0u8..6).prop_map(|path| Step::Forget { path }),
        1 => (0u64..40).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever is kept, found and forgotten: never more than the bounds, never counted wrong, never too old, and never
    /// somebody else's.
    #[test]
    fn its_bounds_hold_and_it_counts_right(
        steps in proptest::collection::vec(step(), 0..200),
        answers in 0usize..12,
        bytes in 0usize..12_000,
    ) {
        let mut stale = Stale::new(Bounds { answers, bytes });
        let mut now = Instant::now();
        let ask = |path: u8, variant: u8| {
            request(&format!("/{path}"), &[("accept", &variant.to_string())])
        };
        let answer = said(&[("vary", "accept"), ("cache-control", "stale-if-error=60")]);
        for step in steps {
            match step {
                Step::Keep { path, variant, body } => {
                    let head = ask(path, variant);
                    let terms = Terms::of(&head, StatusCode::OK, &answer).expect("it may be kept");
                    let mut text = format!("{path} {variant} ").into_bytes();
                    text.resize(text.len() + body, b'.');
                    stale.keep(url(&head), terms, answer.clone(), text.into(), now);
                }
                Step::Find { path, variant } => {
                    let head = ask(path, variant);
                    let most = Duration::from_secs(30);
                    if let Some(found) = stale.find(&url(&head), &head.headers, most, now) {
                        prop_assert!(found.age <= most);
                        let own = format!("{path} {variant} ");
                        prop_assert!(found.body.starts_with(own.as_bytes()));
                    }
                }
                Step::Forget { path } => stale.forget(&url(&ask(path, 0)), now),
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let kept: Vec<&Kept> = stale.answers.values().flatten().collect();
            prop_assert!(kept.len() <= answers);
            prop_assert_eq!(kept.len(), stale.order.len());
            let counted: usize = kept.iter().map(|kept| kept.bytes).sum();
            prop_assert_eq!(counted, stale.bytes);
            prop_assert!(counted <= bytes);
            prop_assert!(stale.answers.values().all(|all| (1..=VARIANTS_MAX).contains(&all.len())));
        }
    }
}

#[test]
fn a_newer_answer_that_is_not_kept_outdates_only_what_its_caller_would_be_given() {
    let (mut stale, now) = (Stale::new(ROOMY), Instant::now());
    let (everybody, ada) = (request("/", &[]), request("/", &[("cookie", "id=ada")]));
    let answer = said(&[]);
    let terms = Terms::of(&everybody, StatusCode::OK, &answer).expect("it may be kept");
    stale.keep(url(&everybody), terms, answer, Bytes::new(), now);
    let mut found = |after: &Parts| {
        stale.outdate(&url(after), &after.headers, now);
        let found = stale.find(&url(&everybody), &everybody.headers, HOUR, now);
        found.is_some()
    };
    assert!(found(&ada), "her page is another one");
    assert!(!found(&everybody));
}

/// Planted: a page that was read before something was written there, and came after it, is kept.
#[test]
fn what_was_asked_for_before_a_write_is_not_kept_after_it() {
    let (mut stale, asked) = (Stale::new(ROOMY), Instant::now());
    let (get, other) = (request("/cart", &[]), request("/quotes", &[]));
    let written = asked + Duration::from_millis(1);
    assert!(!stale.has_changed_since(&url(&get), asked));
    stale.forget(&url(&get), written);
    assert!(stale.has_changed_since(&url(&get), asked));
    assert!(!stale.has_changed_since(&url(&get), written + Duration::from_millis(1)));
    assert!(
        !stale.has_changed_since(&url(&other), asked),
        "another path"
    );
}

#[test]
fn of_two_answers_that_overtook_each_other_the_newer_stays() {
    let (mut stale, older) = (Stale::new(ROOMY), Instant::now());
    let newer = older + Duration::from_secs(1);
    let get = request("/cart", &[]);
    for (at, body) in [(newer, "new"), (older, "old")] {
        let headers = said(&[]);
        let terms = Terms::of(&get, StatusCode::OK, &headers).expect("it may be kept");
        stale.keep(url(&get), terms, headers, body.into(), at);
    }
    let found = stale.find(&url(&get), &get.headers, HOUR, newer);
    assert_eq!(found.expect("kept").body, "new");
}
