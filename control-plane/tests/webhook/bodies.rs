//! What anybody may send who reaches the webhook's port, which is served by the process that is also the CA.

use std::net::IpAddr;

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::program::Program;
use super::{NAME, creation, try_ask};

const AT_ONCE: usize = 8;
const GROWTH_MIB_MAX: u64 = 64;

fn review(request: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#
    )
}

/// As many zeros as fit into so many bytes.
fn zeros(bytes: usize) -> String {
    format!("[{}0]", "0,".repeat(bytes / 2 - 2))
}

/// Each of 8 MiB became some 300 before anybody looked what it was: two of them were the end of the control plane.
#[tokio::test]
async fn eight_bodies_of_millions_of_values_cost_less_than_64_mib_and_a_pod_beside_them_is_injected()
 {
    let cluster = Cluster::double().await;
    let program = Program::start(&cluster).await;
    let object = |object: &str| {
        review(&format!(
            r#"{{"uid":"1","namespace":"boutique","operation":"CREATE","object":{object}}}"#
        ))
    };
    let policy = format!(
        r#"{{"apiVersion":"weir.dev/v1alpha1","kind":"ResiliencePolicy","metadata":{{"name":"a"}},"spec":[{}0]}}"#,
        r#"{"":0},"#.repeat(14_000)
    );
    let bodies = [
        ("/inject", zeros(8 << 20)),
        ("/inject", zeros(4 << 20)),
        ("/validate", object(&zeros((4 << 20) - 1024))),
        // The most that is made anything of, and what most is made of.
        (
            "/validate",
            object(&format!("[{}0]", r#"{"":0},"#.repeat(14_000))),
        ),
        ("/validate", object(&policy)),
    ];
    let before = program.rss_mib();
    let (stranger, server) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 1]));
    for (path, body) in bodies {
        let body = Bytes::from(body);
        // Which may be cut off while they are still being sent.
        let ask = || {
            try_ask(
                &cluster,
                (stranger, program.webhook),
                NAME,
                path,
                body.clone(),
            )
        };
        let strangers = futures_util::future::join_all((0..AT_ONCE).map(|_| ask()));
        let pod = json!({ "metadata": { "name": "cart-1" }, "spec": { "containers": [{ "name": "cart" }] } });
        let honest = Bytes::from(review(&creation(&pod).to_string()));
        let honest = try_ask(&cluster, (server, program.webhook), NAME, "/inject", honest);
        let (told, honest) = tokio::join!(strangers, honest);
        let (status, answer): (u16, Value) = honest.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        assert!(answer["response"]["patch"].is_string(), "{answer}");
        for (status, answer) in told.into_iter().flatten() {
            let allowed = &answer["response"]["allowed"];
            assert!([200, 400, 413, 429].contains(&status), "{status}: {answer}");
            assert_ne!(*allowed, json!(true), "{answer}");
        }
    }
    let growth = program.peak_mib().saturating_sub(before);
    println!("{AT_ONCE} at once of each kind: {growth} MiB more than {before} MiB");
    assert!(
        growth < GROWTH_MIB_MAX,
        "{growth} MiB more than {before} MiB"
    );
    assert!(program.stop().await, "it ends by itself");
}
