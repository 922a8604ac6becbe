use http::{HeaderValue, Response};
use tower::service_fn;
use weir_config::snapshot::{AccessRule, AccessRules, Authorization, Peer};

use super::*;
use crate::body::Body;
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
        assert!(authorization.admit_bytes(caller).is_err());
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
