//! The API server's connections: they last, and end when everybody has heard that it stops.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;

use super::stale::{pod_of, told};
use super::{Connection, NAME, Webhook};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn review(namespace: &str) -> Bytes {
    let request = pod_of(namespace, json!({}));
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    review.to_string().into()
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
