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
//!
//! The API server shows no certificate, so anybody may ask; what that costs is bounded:
//!
//! ```text
//!   connection ─▶ body ─▶ who asks what ─▶ not too many values ─▶ a turn ─▶ read, judged, answered
//!   256 of 512    12 of 24 MiB               30,000               2 at a time, on a thread of their own
//! ```

mod body;
pub mod review;
mod size;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use self::body::{NoBody, Read, Room};
use self::review::{Head, Review, Verdict};
use crate::injector::{InjectorSettings, NamespaceContext};
use crate::kubernetes::namespaces::Namespaces;
use crate::shares::Shares;
use crate::tls;

const CONNECTIONS_MAX: usize = 512;
/// Of one address: more than an API server changes at a time.
const CONNECTIONS_OF_ONE_MAX: usize = 256;
/// Reviews that are made something of at a time. One takes milliseconds, and up to a hundred times its body.
const REVIEWS_MAX: usize = 2;
/// The API server gives a webhook ten seconds, ours five.
const PATIENCE: Duration = Duration::from_secs(5);
/// A namespace may be seen a moment after the first pod in it.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(2);
/// For a turn; then the API server may try again within its own time.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
const BUFFER_BYTES: usize = 16 * 1024;

#[derive(Clone)]
pub struct Webhook {
    namespaces: Namespaces,
    injector: Arc<InjectorSettings>,
    room: Room,
    turns: Arc<Semaphore>,
}

type Answer = Response<Full<Bytes>>;

impl Webhook {
    pub fn new(namespaces: Namespaces, injector: InjectorSettings) -> Self {
        Self {
            namespaces,
            injector: Arc::new(injector),
            room: Room::default(),
            turns: Arc::new(Semaphore::new(REVIEWS_MAX)),
        }
    }

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
        let peer = connection.peer().address;
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |it| it.ip());
        let service = service_fn(move |request| {
            let webhook = self.clone();
            async move { Ok::<_, Infallible>(webhook.answer(request, peer).await) }
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

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let reviewed = tokio::time::timeout(PATIENCE, self.review(request, peer)).await;
        reviewed.unwrap_or_else(|_| text(StatusCode::REQUEST_TIMEOUT, "the request takes too long"))
    }

    async fn review(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let (parts, body) = request.into_parts();
        let asked = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/healthz") => return text(StatusCode::OK, "ok"),
            (&Method::POST, "/inject") => Asked::Inject,
            (&Method::POST, "/validate") => Asked::Validate,
            (_, "/inject" | "/validate" | "/healthz") => {
                return text(StatusCode::METHOD_NOT_ALLOWED, "a review is posted");
            }
            _ => return text(StatusCode::NOT_FOUND, "there are /inject and /validate"),
        };
        let body = match self.room.read(body, peer).await {
            Ok(body) => body,
            Err(error) => return text(status_of(&error), &error.to_string()),
        };
        let head = match Head::read(&body.bytes) {
            Ok(head) => head,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        if let Err(error) = size::check(&body.bytes) {
            return refused(&head, &error.to_string());
        }
        let namespace = head.namespace();
        let context = match asked {
            Asked::Validate => None,
            Asked::Inject => {
                let soon = self.namespaces.get_soon(namespace, NAMESPACE_PATIENCE);
                match soon.await {
                    Some(context) => Some(context),
                    // Its labels say whether the pod belongs into the mesh: half-meshed is worse than late.
                    None => {
                        let why = "is not known to Weir yet: try again in a moment";
                        return refused(&head, &format!("namespace {namespace} {why}"));
                    }
                }
            }
        };
        self.in_turn(body, context).await
    }

    /// Everything that takes more than the body did.
    async fn in_turn(&self, body: Read, context: Option<Arc<NamespaceContext>>) -> Answer {
        let turn = self.turns.clone().acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_PATIENCE, turn).await else {
            let message = "too many reviews are waiting: try again in a moment";
            return text(StatusCode::TOO_MANY_REQUESTS, message);
        };
        let injector = self.injector.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            judge(&body, context.as_deref(), &injector)
        });
        judged.await.unwrap_or_else(|_| {
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this review cannot be judged: see the control plane's log",
            )
        })
    }
}

#[derive(Clone, Copy)]
enum Asked {
    Inject,
    Validate,
}

/// With the context of its namespace a pod is injected, without it an object of ours is validated.
fn judge(body: &Read, context: Option<&NamespaceContext>, injector: &InjectorSettings) -> Answer {
    let mut review = match Review::parse(&body.bytes) {
        Ok(review) => review,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let object = review.title();
    let verdict: Verdict = match context {
        Some(context) => review.inject(context, injector),
        None => review.validate(&injector.trust_domain),
    };
    if let Some(refusal) = &verdict.refusal {
        tracing::info!(object, refusal, "refused");
    }
    reviewed(&review.answer(&verdict))
}

fn refused(head: &Head, why: &str) -> Answer {
    tracing::info!(namespace = head.namespace(), why, "refused");
    reviewed(&head.refused(why))
}

fn status_of(error: &NoBody) -> StatusCode {
    match error {
        NoBody::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        NoBody::NoRoom => StatusCode::TOO_MANY_REQUESTS,
        NoBody::Broken(_) => StatusCode::BAD_REQUEST,
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
    if status == StatusCode::TOO_MANY_REQUESTS {
        // With it the API server's client asks again by itself.
        let second = http::HeaderValue::from_static("1");
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, second);
    }
    response
}
