use std::time::Duration;

use http::{HeaderValue, Response};
use tower::service_fn;
use weir_config::snapshot::{AccessRule, AccessRules, Authorization, Peer};

use super::*;
use crate::body::Body;
use crate::layer::Answer;
use crate::request::Context as RequestContext;

const CHECKOUT: &str = "spiffe://weir.local/ns/boutique/sa/checkout";

fn only(identity: &str) -> AccessRules {
    AccessRules {
        deny: Vec::new(),
        allow: Some(vec![AccessRule {
            policy: "boutique/policy".into(),
            from: Some(vec![Peer {
                identity: Some(identity.into()),
                namespace: None,
                service_account: None,
            }]),
            to: None,
        }]),
    }
}

fn enforced(rules: AccessRules) -> Authorization {
    Authorization {
        enforced: rules,
        audited: None,
    }
}

fn service() -> Arc<str> {
    "boutique/payment:80".into()
}

async fn answer(authorization: &Arc<Shared>, caller: Option<&str>) -> Answer {
    asked(authorization, caller, false).await
}

async fn asked(authorization: &Arc<Shared>, caller: Option<&str>, upgrade: bool) -> Answer {
    let layer = AuthorizeLayer {
        authorization: authorization.clone(),
    };
    let app = service_fn(|_: Request| async { Ok::<_, Error>(Response::new(Body::empty())) });
    let mut head = http::Request::new(()).into_parts().0;
    for name in ["x-weir-caller", "x-forwarded-client-cert", "l5d-client-id"] {
        head.headers
            .insert(name, HeaderValue::from_static(CHECKOUT));
    }
    let request = Request {
        head,
        body: Body::empty(),
        context: RequestContext {
            caller: caller.map(Into::into),
            upgrade,
            ..RequestContext::opaque(0)
        },
    };
    layer.layer(app).call(request).await
}

#[tokio::test]
async fn who_may_not_call_is_told_so_in_its_own_protocol_and_headers_prove_nothing() {
    let authorization = Arc::new(Shared::default());
    assert!(
        answer(&authorization, None).await.is_ok(),
        "nobody says who may"
    );
    authorization.reconfigure(Some(&enforced(only(CHECKOUT))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    for caller in [None, Some("spiffe://weir.local/ns/boutique/sa/cart")] {
        let error = answer(&authorization, caller).await.err().expect("denied");
        let response = error.into_response(false);
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[&crate::error::PROXY_ERROR],
            "permission-denied"
        );
        let error = answer(&authorization, caller).await.err().expect("denied");
        assert_eq!(
            error.into_response(true).headers()[&crate::head::GRPC_STATUS],
            "7"
        );
        assert!(authorization.admit_bytes(caller.map(Into::into)).is_err());
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_gone_with_the_next_request_and_an_audit_takes_none() {
    let authorization = Arc::new(Shared::default());
    authorization.reconfigure(Some(&enforced(only(CHECKOUT))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    authorization.reconfigure(Some(&enforced(only("spiffe://a/ns/b/sa/c"))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_err());
    let audit = Authorization {
        audited: Some(only("spiffe://a/ns/b/sa/c")),
        ..enforced(only(CHECKOUT))
    };
    authorization.reconfigure(Some(&audit), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    authorization.reconfigure(None, &service());
    assert!(answer(&authorization, None).await.is_ok());
}

/// What an open connection finds out about its right by now.
async fn is_cut(right: &mut Right) -> bool {
    tokio::time::timeout(Duration::from_secs(1), right.taken_away())
        .await
        .is_ok()
}

/// Planted: asking once, when the connection is opened.
#[tokio::test(start_paused = true)]
async fn connections_on_which_nobody_asks_again_end_with_the_right_to_them() {
    const OTHER: &str = "spiffe://a/ns/b/sa/c";
    let authorization = Arc::new(Shared::default());
    let upgraded = async |caller: &str| {
        let mut response = asked(&authorization, Some(caller), true)
            .await
            .expect("it may");
        let right = response.extensions_mut().remove::<Right>();
        right.expect("an upgrade knows by what right it is there")
    };
    let bytes = |caller: &str| {
        authorization
            .admit_bytes(Some(caller.into()))
            .expect("it may")
    };
    let mut rights = [
        bytes(CHECKOUT),
        upgraded(CHECKOUT).await,
        bytes(OTHER),
        upgraded(OTHER).await,
    ];
    let mut cut = async |said: Option<&Authorization>| {
        authorization.reconfigure(said, &service());
        let mut cut = [false; 4];
        for (cut, right) in cut.iter_mut().zip(&mut rights) {
            *cut = is_cut(right).await;
        }
        cut
    };
    let everybody = AccessRules::default();
    let audit = Authorization {
        audited: Some(only(OTHER)),
        ..enforced(everybody)
    };
    assert_eq!(
        cut(Some(&audit)).await,
        [false; 4],
        "an audit cuts nobody off"
    );
    let checkout = enforced(only(CHECKOUT));
    assert_eq!(cut(Some(&checkout)).await, [false, false, true, true]);
    assert_eq!(
        cut(Some(&checkout)).await,
        [false; 4],
        "the same again is no news"
    );
    assert_eq!(cut(None).await, [false; 4]);
    assert_eq!(
        cut(Some(&enforced(only(OTHER)))).await,
        [true, true, false, false]
    );
}
