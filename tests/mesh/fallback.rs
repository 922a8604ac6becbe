//! What callers get when an app no longer answers: what it said before, or what another service says.

use crate::world::{World, eventually, hop};

const FALLS_BACK: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {retries: {attempts: 1, perTryTimeout: 300ms}}
  routes:
  - match: {http: {method: GET, path: /page}}
    outbound: {fallback: {stale: {maxAge: 5m}, alternate: {name: spare, port: 80}}}
  - match: {http: {path: /headers}}
    outbound: {fallback: {alternate: {name: spare, port: 80}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_is_covered_by_its_last_page_and_by_another_service_once_and_marked() {
    let world = World::with(1, FALLS_BACK, &hop("spare"));
    let header = |response: &hyper::Response<String>, name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().expect("text").to_owned())
    };
    // The app has never called the spare one: its sidecar hears of it all the same.
    eventually("the caller's sidecar knows who stands in", || {
        let state = world.sidecar_state("caller");
        let endpoints = state["services"]["tests/spare:80"]["endpoints"].as_array();
        endpoints.is_some_and(|endpoints| endpoints.len() == 1)
    })
    .await;
    let fresh = world.get("server:80", "/page").await;
    assert_eq!(header(&fresh, "x-weir-degraded"), None);
    let own = world.get("server:80", "/headers").await;
    assert!(own.body().contains("host: server\n"), "{}", own.body());

    tokio::task::block_in_place(|| world.lab.stop_app("server/0")).expect("it is frozen");
    let kept = world.get("server:80", "/page").await;
    assert_eq!(kept.status(), 200);
    assert_eq!(kept.body(), fresh.body());
    assert_eq!(header(&kept, "x-pod"), header(&fresh, "x-pod"));
    assert_eq!(header(&kept, "x-weir-degraded").as_deref(), Some("stale"));
    let age = header(&kept, "age").expect("how old it is");
    assert!((1..300).contains(&age.parse().unwrap_or(0)), "{age}");

    let spare = || {
        let inbound = [("direction", "inbound"), ("service", "tests/spare:80")];
        (world.metrics("spare")).sum("weir_requests_total", &inbound)
    };
    assert_eq!(spare(), 0.0, "the page was there");
    let other = world.get("server:80", "/headers").await;
    assert_eq!(other.status(), 200);
    assert_eq!(
        header(&other, "x-weir-degraded").as_deref(),
        Some("alternate")
    );
    let pod = header(&other, "x-pod").expect("the app says it");
    assert!(pod.starts_with("spare"), "{pod}");
    assert!(
        other.body().contains("host: spare.tests.svc\n"),
        "under its own name: {}",
        other.body()
    );
    assert_eq!(spare(), 1.0, "once");
    let fallbacks = |kind| {
        let of_kind = [("service", "tests/server:80"), ("kind", kind)];
        (world.metrics("caller")).sum("weir_fallbacks_total", &of_kind)
    };
    assert_eq!((fallbacks("stale"), fallbacks("alternate")), (1.0, 1.0));
    world.lab.cont("server/0").expect("it goes on");
}
