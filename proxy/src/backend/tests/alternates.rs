//! Services that stand in for others.

use futures_util::FutureExt;
use weir_config::snapshot::ServiceKey;

use super::environment;
use crate::backend::stacks::alternate;
use crate::backend::*;
use crate::body::Body;
use crate::endpoints::Described;
use crate::error::Error;
use crate::identity::SpiffeId;
use crate::request::{Context, Protocol};

fn policy(name: &str, port: u16) -> snapshot::Service {
    snapshot::Service {
        key: ServiceKey {
            namespace: "shop".into(),
            name: name.into(),
            port,
        },
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

fn backend(name: &str, port: u16, identity: Option<SpiffeId>) -> Arc<Backend> {
    let backend = Backend::new(&policy(name, port), environment());
    // It accepts and never answers, for as long as the process lives.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    std::mem::forget(listener);
    let described = Described {
        address,
        identity,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    backend.endpoints.update(true, vec![described], &[]);
    Arc::new(backend)
}

fn request() -> Box<Request> {
    let head = http::Request::get("/quotes").header("host", "quotes");
    Box::new(Request {
        head: head.body(()).expect("a request").into_parts().0,
        body: Body::empty(),
        context: Context {
            stands_in: true,
            upgrade: false,
            idempotent: true,
            protocol: Protocol::Http1,
            ..Context::opaque(0)
        },
    })
}

#[tokio::test]
async fn no_more_than_ten_calls_stand_in_for_others_at_once_and_those_that_end_make_room() {
    let backend = backend("spare", 80, None);
    let mut calls: Vec<_> = (0..STANDING_IN_MAX)
        .map(|_| Box::pin(backend.clone().stand_in(request())))
        .collect();
    for call in &mut calls {
        assert!(call.now_or_never().is_none(), "nobody answers");
    }
    let refused = |answer: Answer| matches!(answer, Err(Error::QueueFull { .. }));
    assert!(refused(backend.clone().stand_in(request()).await));
    assert_eq!(backend.standing_in.load(), (STANDING_IN_MAX, 0));
    calls.pop();
    let mut next = Box::pin(backend.clone().stand_in(request()));
    assert!((&mut next).now_or_never().is_none());
    drop((calls, next));
    assert_eq!(backend.standing_in.load(), (0, 0));
}

#[tokio::test]
async fn who_stands_in_proves_its_own_identity_and_who_is_gone_is_no_endpoint() {
    let id = SpiffeId::parse("spiffe://weir.local/ns/shop/sa/spare").expect("an id");
    let spare = backend("spare", 80, Some(id));
    let backends = Directory::default();
    let mut stack = alternate(&backends, "shop/spare:80".into());
    let answer = tower::Service::call(&mut stack, request()).await;
    assert!(matches!(answer, Err(Error::NoEndpoints { .. })));
    backends.store(Arc::new(HashMap::from([(
        "shop/spare:80".to_owned(),
        spare,
    )])));
    // Without a certificate there is no way to one that has an identity, and plain text is none.
    let answer = tower::Service::call(&mut stack, request()).await;
    let refusal = answer.map(drop).expect_err("no certificate");
    assert_eq!(refusal.facts().code, "no-certificate");
}

#[test]
fn who_stands_in_is_called_by_its_own_name() {
    for (port, authority) in [(80, "spare.shop.svc"), (8080, "spare.shop.svc:8080")] {
        let key = ServiceKey {
            namespace: "shop".into(),
            name: "spare".into(),
            port,
        };
        assert_eq!(super::authority(&key), authority);
        let mut head = request().head;
        head::set_authority(&mut head, &super::authority(&key));
        assert_eq!(head.headers["host"], authority);
        assert_eq!(head.uri, "/quotes");
        let uri = http::Request::get("http://quotes/a?b");
        let mut head = uri.body(()).expect("a request").into_parts().0;
        head::set_authority(&mut head, &super::authority(&key));
        assert_eq!(head.uri.to_string(), format!("http://{authority}/a?b"));
        assert!(head.headers.is_empty());
    }
}

#[test]
fn opaque_connections_above_the_cap_are_refused_and_where_limits_observe_only_counted() {
    let backend = backend("spare", 80, None);
    let mut policy = policy("spare", 80);
    policy.outbound.limits.connections = weir_config::units::Count::of(1);
    backend.reconfigure(&policy);
    let first = backend.place_for_connection().expect("one may be");
    assert!(backend.place_for_connection().is_none());
    policy.mode = snapshot::Mode::Observe;
    backend.reconfigure(&policy);
    let second = backend.place_for_connection().expect("nobody is refused");
    policy.mode = snapshot::Mode::Enforce;
    backend.reconfigure(&policy);
    drop(first);
    assert!(
        backend.place_for_connection().is_none(),
        "the second counts"
    );
    drop(second);
    assert!(backend.place_for_connection().is_some());
}
