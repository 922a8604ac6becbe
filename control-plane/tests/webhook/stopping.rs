//! The API server's connections: they last, and end when everybody has heard that it stops.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};
use weir_control_plane::control_plane::{Cluster as Where, ControlPlane};
use weir_control_plane::kubernetes::LINGER;

use super::cluster::{Cluster, until};
use super::stale::{lookups, plain, pod_of, told};
use super::{Connection, NAME, Webhook};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn review(namespace: &str) -> Bytes {
    let request = pod_of(namespace, json!({}));
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    review.to_string().into()
}

async fn lingering() -> Webhook {
    let cluster = Cluster::double().await;
    let mut settings = cluster.settings();
    if let Where::Kubernetes(own) = &mut settings.cluster {
        own.linger = LINGER;
    }
    let plane = ControlPlane::start(settings).await.expect("it starts");
    Webhook { cluster, plane }
}

/// failurePolicy is Fail: with every rollout of the control plane pods could not be made for a moment. Planted bug that
/// this finds: the watch of namespaces ends before the webhook does.
#[tokio::test]
async fn a_review_is_answered_until_everybody_has_heard_that_it_stops() {
    let webhook = lingering().await;
    webhook.cluster.apply(&plain("shop")).await;
    told(&webhook).await;
    let Webhook { cluster, plane } = webhook;
    let address = plane.webhook_address.expect("a webhook");
    let connect = async || {
        let connection = Connection::open(&cluster, (SERVER, address), NAME).await;
        connection.expect("a connection")
    };
    let (mut held, mut idle) = (connect().await, connect().await);
    let before = lookups(&cluster, "shop");
    cluster.api().set_latency(Duration::from_secs(1));
    let held = async { held.ask(Method::POST, "/inject", review("shop")).await };
    let story = async {
        until("the look-up is on its way", || {
            lookups(&cluster, "shop") > before
        })
        .await;
        cluster.api().set_latency(Duration::ZERO);
        let stopped = async {
            let begun = tokio::time::Instant::now();
            plane.stop().await;
            begun.elapsed()
        };
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut new = connect().await;
            let ready = new.ask(Method::GET, "/healthz", Bytes::new()).await;
            let again = connect()
                .await
                .ask(Method::POST, "/inject", review("last"))
                .await;
            // One that was open all the while.
            let first = idle.ask(Method::POST, "/inject", review("last")).await;
            (ready, [again, first])
        };
        tokio::join!(stopped, meanwhile)
    };
    let (held, (stopped, (ready, others))) = tokio::join!(held, story);
    let (status, answer) = held.expect("an answer to who asked before");
    assert_eq!(
        (status, &answer["response"]["allowed"]),
        (200, &json!(true))
    );
    assert_eq!(
        ready.expect("an answer").0,
        503,
        "nobody is sent here any more"
    );
    for answer in others {
        let (status, answer): (u16, Value) = answer.expect("an answer to who asks now");
        assert_eq!(status, 200, "{answer}");
        assert!(answer["response"]["patch"].is_string(), "{answer}");
    }
    assert!((LINGER..LINGER * 3).contains(&stopped), "{stopped:?}");
    let late = Connection::open(&cluster, (SERVER, address), NAME).await;
    assert!(late.is_err(), "it has stopped");
}

/// A POST on a connection that is being closed is one that the API server may not send again.
#[tokio::test]
async fn a_connection_of_the_api_server_lasts_from_one_review_to_the_next() {
    let webhook = Webhook::start().await;
    told(&webhook).await;
    let address = webhook.plane.webhook_address.expect("a webhook");
    let connection = Connection::open(&webhook.cluster, (SERVER, address), NAME).await;
    let mut connection = connection.expect("a connection");
    for pause in [Duration::from_secs(7), Duration::ZERO] {
        let answer = connection
            .ask(Method::POST, "/inject", review("last"))
            .await;
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        tokio::time::sleep(pause).await;
    }
    webhook.plane.stop().await;
}
