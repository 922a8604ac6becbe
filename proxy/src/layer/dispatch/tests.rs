//! Over loopback: rules that send calls to services that write down what they were asked.

mod copies;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use weir_config::snapshot::{
    HeaderChanges as Changes, PathChange, PathCondition, Routing, Rule, RuleBackend, RuleMatch,
    RuleRetry, ServiceKey, Timeout,
};
use weir_config::units;

use super::*;
use crate::backend::Backend;
use crate::backend::tests::environment;
use crate::endpoints::Described;
use crate::request::{Context, Protocol};

/// A service with one endpoint, which answers with these statuses in turn, the last for ever; `hold`: so late.
struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    backend: Arc<Backend>,
    name: String,
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "dispatch".into(),
        name: name.into(),
        port: 80,
    }
}

fn service(name: &str) -> snapshot::Service {
    snapshot::Service {
        key: key(name),
        protocol: snapshot::Protocol::Http,
        mode: snapshot::Mode::Enforce,
        forced: None,
        outbound: snapshot::Outbound::default(),
        routes: Vec::new(),
        priorities: Vec::new(),
        faults: Vec::new(),
        routing: Vec::new(),
    }
}

impl Server {
    async fn start(name: &str, statuses: &[u16], hold: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, statuses) = (asked.clone(), statuses.to_vec());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, statuses) = (seen.clone(), statuses.clone());
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                        let text = String::from_utf8_lossy(&read).into_owned();
                        let whole = match text.split_once("\r\n\r\n") {
                            Some((head, body)) if head.contains("content-length: 4") => {
                                body.len() == 4
                            }
                            Some(_) => true,
                            None => false,
                        };
                        if !whole {
                            continue;
                        }
                        read.clear();
                        let number = {
                            let mut seen = seen.lock().expect("no panic");
                            seen.push(text);
                            seen.len() - 1
                        };
                        tokio::time::sleep(hold).await;
                        let status = statuses[number.min(statuses.len() - 1)];
                        let answer = format!(
                            "HTTP/1.1 {status} .\r\ncontent-length: 0\r\nx-from: app\r\n\r\n"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let backend = Backend::new(&service(name), environment());
        let described = Described {
            address,
            identity: None,
            draining: false,
            weight: 100,
            zone: None,
            pod: String::new(),
        };
        backend.endpoints.update(true, vec![described], &[]);
        Self {
            asked,
            backend: Arc::new(backend),
            name: key(name).to_string(),
        }
    }

    async fn answering(name: &str, statuses: &[u16]) -> Self {
        Self::start(name, statuses, Duration::ZERO).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn to(name: &str, weight: u32) -> RuleBackend {
    RuleBackend {
        to: Some(key(name)),
        weight,
        request: Changes::default(),
        response: Changes::default(),
    }
}

fn rule(backends: Vec<RuleBackend>) -> Rule {
    Rule {
        name: "HTTPRoute dispatch/it rules[0]".into(),
        request: Changes::default(),
        response: Changes::default(),
        rewrite: None,
        redirect: None,
        mirrors: Vec::new(),
        backends,
        deadline: None,
        per_try_timeout: None,
        retry: None,
    }
}

/// For everything below `/a`.
fn dispatch(rule: Rule, servers: &[&Server]) -> Dispatch {
    dispatching(vec![(PathCondition::Prefix("/a".into()), rule)], servers)
}

fn dispatching(said: Vec<(PathCondition, Rule)>, servers: &[&Server]) -> Dispatch {
    let (paths, rules): (Vec<_>, Vec<_>) = said.into_iter().unzip();
    let matches = paths.into_iter().enumerate().map(|(rule, path)| RuleMatch {
        rule,
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    });
    let routing = Routing {
        callers: None,
        matches: matches.collect(),
        rules,
    };
    let known = servers
        .iter()
        .map(|server| (server.name.clone(), server.backend.clone()));
    let backends = Directory::default();
    backends.store(Arc::new(known.collect::<HashMap<_, _>>()));
    let log = AccessLog::new(Direction::Outbound, snapshot::AccessLog::Disabled);
    Dispatch::new(&"dispatch/front:80".into(), 80, &routing, &backends, &log).expect("in order")
}

fn request(method: &str, path: &str, body: Body) -> Box<Request> {
    let head = http::Request::builder().method(method).uri(path);
    let head = head.header("host", "front");
    let head = match http_body::Body::is_end_stream(&body) {
        true => head,
        false => head.header("content-length", "4"),
    };
    Box::new(Request {
        head: head.body(()).expect("a request").into_parts().0,
        body,
        context: Context {
            upgrade: false,
            idempotent: method == "GET",
            protocol: Protocol::Http1,
            ..Context::opaque(0)
        },
    })
}

fn get(path: &str) -> Box<Request> {
    request("GET", path, Body::empty())
}

/// As one of a connection is: it can be kept while it passes.
fn post(path: &str) -> Box<Request> {
    let replay = crate::replay::Replay::new(Body::full("four".into()));
    request("POST", path, Body::attempt(replay.attempt()))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn calls_go_to_each_backend_as_often_as_its_weight_says_and_to_one_of_none_never() {
    let stable = Server::answering("stable", &[200]).await;
    let next = Server::answering("next", &[200]).await;
    let none = Server::answering("none", &[200]).await;
    let backends = vec![to("stable", 3), to("next", 1), to("none", 0)];
    let mut dispatch = dispatch(rule(backends), &[&stable, &next, &none]);
    fastrand::seed(7);
    for _ in 0..400 {
        let answer = dispatch.call(get("/a")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    let (stable, next) = (stable.asked().len(), next.asked().len());
    assert_eq!((stable + next, none.asked().len()), (400, 0));
    // A binomial with p = 1/4: 100, and 5.2 deviations of 8.7.
    assert!((55..=145).contains(&next), "{next} of 400");
}

#[tokio::test]
async fn what_no_rule_matches_is_404_and_what_has_no_backend_is_500() {
    let code = |answer: Answer| {
        let facts = answer.map(drop).expect_err("a refusal").facts();
        (facts.http.as_u16(), facts.grpc)
    };
    let missing = RuleBackend {
        to: None,
        ..to("gone", 1)
    };
    for backends in [vec![], vec![to("it", 0)], vec![missing]] {
        let mut dispatch = dispatch(rule(backends), &[]);
        assert_eq!(code(dispatch.call(get("/a/b")).await), (500, 14));
        assert_eq!(code(dispatch.call(get("/b")).await), (404, 12));
    }
}

#[tokio::test]
async fn a_missing_backends_share_fails_and_the_others_does_not() {
    let there = Server::answering("there", &[200]).await;
    let missing = RuleBackend {
        to: None,
        ..to("gone", 1)
    };
    let mut dispatch = dispatch(rule(vec![to("there", 1), missing]), &[&there]);
    fastrand::seed(7);
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(dispatch.call(get("/a")).await.is_err());
    }
    assert!((60..=140).contains(&failed), "{failed} of 200");
}

#[tokio::test]
async fn headers_path_and_host_are_what_the_rule_and_the_backend_say() {
    let app = Server::answering("app", &[200]).await;
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let changes = |set| Changes {
        set,
        ..Changes::default()
    };
    let mut rule = rule(vec![RuleBackend {
        request: changes(pair("x-backend", "2")),
        response: changes(pair("x-seen", "backend")),
        ..to("app", 1)
    }]);
    rule.request = changes(pair("x-rule", "1"));
    rule.response = Changes {
        remove: vec!["x-from".into()],
        ..Changes::default()
    };
    rule.rewrite = Some(snapshot::Rewrite {
        hostname: Some("inner.example".into()),
        path: Some(PathChange::Prefix {
            of: "/a".into(),
            to: "/z".into(),
        }),
    });
    let mut dispatch = dispatch(rule, &[&app]);
    let answer = dispatch.call(get("/a/b?c=d")).await.expect("an answer");
    let asked = app.asked().remove(0);
    assert!(asked.starts_with("GET /z/b?c=d HTTP/1.1\r\n"), "{asked}");
    for line in [
        "host: inner.example\r\n",
        "x-rule: 1\r\n",
        "x-backend: 2\r\n",
    ] {
        assert!(asked.contains(line), "{line} in {asked}");
    }
    assert_eq!(answer.headers()["x-seen"], "backend");
    assert!(!answer.headers().contains_key("x-from"));
}

#[tokio::test]
async fn a_redirect_calls_nobody() {
    let app = Server::answering("app", &[200]).await;
    let mut rule = rule(vec![]);
    rule.redirect = Some(snapshot::Redirect {
        scheme: None,
        hostname: Some("new.example".into()),
        path: None,
        port: None,
        status: 307,
    });
    rule.response.set = vec![("cache-control".into(), "no-store".into())];
    let mut dispatch = dispatch(rule, &[&app]);
    let answer = dispatch.call(get("/a?b")).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers()["location"], "http://new.example/a?b");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(app.asked().is_empty());
}

/// `/docs/` met the rule for `/docs`, too, which sent its caller there: for ever.
#[tokio::test]
async fn a_redirect_that_adds_a_slash_is_asked_once() {
    let app = Server::answering("app", &[200]).await;
    let mut moved = rule(vec![]);
    moved.redirect = Some(snapshot::Redirect {
        scheme: None,
        hostname: None,
        path: Some(PathChange::Full("/docs/".into())),
        port: None,
        status: 301,
    });
    let exact = PathCondition::Exact("/docs".into());
    let said = vec![
        (exact, moved),
        (PathCondition::Any, rule(vec![to("app", 1)])),
    ];
    let mut dispatch = dispatching(said, &[&app]);
    let first = dispatch.call(get("/docs")).await.expect("an answer");
    assert_eq!(first.status(), StatusCode::MOVED_PERMANENTLY);
    let location = &first.headers()["location"];
    assert_eq!(location, "http://front/docs/");
    let second = dispatch.call(get("/docs/")).await.expect("an answer");
    assert_eq!(second.status(), StatusCode::OK);
    assert!(app.asked()[0].starts_with("GET /docs/ "));
}

fn retrying(codes: &[u16]) -> Rule {
    let mut rule = rule(vec![to("app", 1)]);
    rule.retry = Some(RuleRetry {
        attempts: Some(3),
        codes: codes.to_vec(),
        backoff: Some(units::Duration::from_millis(20)),
    });
    rule
}

#[tokio::test]
async fn a_code_that_the_rule_names_is_tried_again_whatever_the_method_and_no_other_is() {
    for (codes, statuses, tries, status) in [
        (&[503, 404][..], &[503, 404, 200][..], 3, 200),
        (&[404], &[404, 404, 404, 200], 3, 404),
        (&[500], &[503, 200], 1, 503),
    ] {
        let app = Server::answering("app", statuses).await;
        let mut dispatch = dispatch(retrying(codes), &[&app]);
        let begun = Instant::now();
        let answer = dispatch.call(post("/a")).await.expect("an answer");
        assert_eq!(
            (app.asked().len(), answer.status().as_u16()),
            (tries, status)
        );
        assert!(app.asked().iter().all(|it| it.ends_with("four")));
        let waits = Duration::from_millis(20) * (u32::try_from(tries).expect("few") - 1);
        assert!(begun.elapsed() >= waits, "the backoff is the least");
    }
}

#[tokio::test]
async fn without_a_rule_that_says_so_a_post_is_not_tried_again() {
    let app = Server::answering("app", &[503, 200]).await;
    let mut dispatch = dispatch(rule(vec![to("app", 1)]), &[&app]);
    let answer = dispatch.call(post("/a")).await.expect("an answer");
    assert_eq!((app.asked().len(), answer.status().as_u16()), (1, 503));
}

#[tokio::test]
async fn retries_of_a_rule_are_paid_for_from_the_budget_of_the_service() {
    let app = Server::answering("app", &[503]).await;
    let mut dispatch = dispatch(retrying(&[503]), &[&app]);
    for _ in 0..25 {
        drop(dispatch.call(post("/a")).await);
    }
    let extra = app.asked().len() - 25;
    assert!((1..=15).contains(&extra), "{extra} retries of 25 failures");
}

#[tokio::test]
async fn a_timeout_of_the_rule_takes_the_place_of_the_policys() {
    let app = Server::start("app", &[200], Duration::from_millis(300)).await;
    let mut policy = service("app");
    policy.outbound.deadline = Some(units::Duration::from_millis(100));
    app.backend.reconfigure(&policy);
    let with = |deadline, per_try_timeout| {
        let mut rule = rule(vec![to("app", 1)]);
        rule.deadline = deadline;
        rule.per_try_timeout = per_try_timeout;
        dispatch(rule, &[&app])
    };
    let after = |millis| Some(Timeout::After(units::Duration::from_millis(millis)));
    let code = async |mut dispatch: Dispatch| match dispatch.call(post("/a")).await {
        Ok(response) => response.status().to_string(),
        Err(error) => error.facts().code.to_owned(),
    };
    assert_eq!(
        code(with(None, None)).await,
        "deadline-exceeded",
        "the policy's"
    );
    assert_eq!(code(with(Some(Timeout::Unlimited), None)).await, "200 OK");
    assert_eq!(code(with(after(2000), None)).await, "200 OK");
    assert_eq!(code(with(after(50), None)).await, "deadline-exceeded");
    let one_try = with(Some(Timeout::Unlimited), after(50));
    assert_eq!(code(one_try).await, "per-try-timeout");
}

/// Its rules and whom they meant went between the two looks at them.
#[tokio::test]
async fn who_is_gone_in_the_very_moment_of_the_call_costs_nothing_where_rules_have_changed() {
    let front = Server::answering("front", &[200]).await;
    let mut old = dispatch(rule(vec![to("gone", 1)]), &[&front]);
    assert_eq!(old.call(get("/a")).await.expect("by no rule").status(), 200);
    assert_eq!(front.asked().len(), 1);
    let mut alone = dispatch(rule(vec![to("gone", 1)]), &[]);
    let answer = alone.call(get("/a")).await;
    assert!(matches!(answer, Err(Error::NoEndpoints { .. })));
}

#[test]
fn callers_meet_the_rules_of_their_own_namespace_or_those_of_everybody() {
    let routing = |callers: Option<&str>| Routing {
        callers: callers.map(str::to_owned),
        matches: Vec::new(),
        rules: Vec::new(),
    };
    let both = [routing(None), routing(Some("shop"))];
    let whose = |all: &[Routing], namespace| {
        of_callers(all, namespace).map(|it| it.callers.clone().unwrap_or("all".into()))
    };
    assert_eq!(whose(&both, Some("shop")).as_deref(), Some("shop"));
    assert_eq!(whose(&both, Some("other")).as_deref(), Some("all"));
    assert_eq!(whose(&both, None).as_deref(), Some("all"));
    assert_eq!(whose(&both[1..], Some("other")), None);
}
