//! The admission webhook: HTTPS on a port of its own, for the API server.
//!
//! | path | what |
//! |---|---|
//! | `/inject` | mutating: a pod gets its sidecar, by the function behind `weir inject` |
//! | `/validate` | validating: our own kinds, in the words of `weir validate` |
//! | `/healthz` | whether it serves |
//!
//! It asks nobody and writes nothing (`sideEffects: None`). Its certificate is signed by the mesh's own CA, so it is
//! renewed like a sidecar's and trusted by what is in `caBundle` anyway.

pub mod review;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use self::review::{NoReview, Review, Verdict};
use crate::injector::InjectorSettings;
use crate::kubernetes::namespaces::Namespaces;
use crate::shares::Shares;
use crate::tls;

const CONNECTIONS_MAX: usize = 512;
/// Of one address: more than an API server changes at a time.
const CONNECTIONS_OF_ONE_MAX: usize = 256;
/// An object may have 1.5 MiB in etcd, and an update comes with the one before.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The API server gives a webhook ten seconds, ours five.
const PATIENCE: Duration = Duration::from_secs(5);
/// A namespace may be seen a moment after the first pod in it.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(2);
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub struct Webhook {
    pub namespaces: Namespaces,
    pub injector: Arc<InjectorSettings>,
}

type Answer = Response<Full<Bytes>>;

impl Webhook {
    /// Runs for as long as the process does.
    pub async fn serve(self, listener: TcpListener, tls: Arc<ArcSwap<ServerConfig>>) {
        let (accepted, connections) = mpsc::channel(64);
        let shares = Shares::new(CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX);
        tokio::spawn(tls::accept(listener, tls, shares, accepted));
        let mut connections = ReceiverStream::new(connections);
        let mut serving = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                connection = connections.next() => match connection {
                    Some(Ok(connection)) => {
                        serving.spawn(self.clone().connection(connection));
                    }
                    Some(Err(_)) => {}
                    None => return,
                },
                Some(_) = serving.join_next() => {}
            }
        }
    }

    async fn connection(self, connection: tls::Connection) {
        let service = service_fn(move |request| {
            let webhook = self.clone();
            async move { Ok::<_, Infallible>(webhook.answer(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(connection), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the webhook broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match tokio::time::timeout(PATIENCE, self.review(request)).await {
            Ok(answer) => answer,
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the request takes too long"),
        }
    }

    async fn review(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match (&parts.method, path) {
            (&Method::GET, "/healthz") => return text(StatusCode::OK, "ok"),
            (&Method::POST, "/inject" | "/validate") => {}
            (_, "/inject" | "/validate" | "/healthz") => {
                return text(StatusCode::METHOD_NOT_ALLOWED, "a review is posted");
            }
            _ => return text(StatusCode::NOT_FOUND, "there are /inject and /validate"),
        }
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = format!("a review may have {BODY_BYTES_MAX} bytes");
                return text(StatusCode::PAYLOAD_TOO_LARGE, &message);
            }
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        match Review::parse(&body) {
            Ok(review) => {
                let verdict = self.judge(path, &review).await;
                if let Some(refusal) = &verdict.refusal {
                    tracing::info!(object = review.title(), path, refusal, "refused");
                }
                reviewed(&review.answer(&verdict))
            }
            Err(error @ (NoReview::Syntax(_) | NoReview::Kind(_) | NoReview::NoRequest)) => {
                text(StatusCode::BAD_REQUEST, &error.to_string())
            }
        }
    }

    async fn judge(&self, path: &str, review: &Review) -> Verdict {
        if path == "/validate" {
            return review.validate(&self.injector.trust_domain);
        }
        let namespace = review.namespace();
        match self
            .namespaces
            .get_soon(namespace, NAMESPACE_PATIENCE)
            .await
        {
            Some(context) => review.inject(&context, &self.injector),
            // Its labels say whether the pod belongs into the mesh: half-meshed is worse than late.
            None => Verdict {
                refusal: Some(format!(
                    "namespace {namespace} is not known to Weir yet: try again in a moment"
                )),
                ..Verdict::default()
            },
        }
    }
}

fn reviewed(answer: &Value) -> Answer {
    let body = Full::new(Bytes::from(answer.to_string()));
    let mut response = Response::new(body);
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

/// As the API server shows it to whoever sent the object.
fn text(status: StatusCode, message: &str) -> Answer {
    let mut response = reviewed(&json!({ "message": message }));
    *response.status_mut() = status;
    response
}
