//! The admission webhook: HTTPS on a port of its own, for the API server.
//!
//! | path | what |
//! |---|---|
//! | `/inject` | mutating: a pod gets its sidecar, by the function behind `weir inject` |
//! | `/validate` | validating: our own kinds, in the words of `weir validate` |
//! | `/healthz` | whether it serves, and goes on serving |
//!
//! It writes nothing (`sideEffects: None`), and asks nobody as long as what it knows of a pod's namespace fits the question:
//!
//! ```text
//!   its namespace as the watch told of it ─▶ a pod that the API server asks about ─▶ judged
//!        │ not known                         └─ one that it would not ask about: it knows more, such as a label that
//!        ▼                                      was set a moment ago
//!   its namespace as it is now ─▶ judged     ◀──┘
//!        └─ not found out in time: refused, for half-meshed is worse than late
//! ```
//!
//! Its certificate is signed by the mesh's own CA, so it is renewed like a sidecar's and trusted by what is in `caBundle` anyway.
//!
//! When the control plane stops it goes on for a while: `/healthz` says that it is not ready, and each answer is the last of
//! its connection, until whoever routes to it has heard of that. Then nobody is accepted, and what is under way is answered.
//!
//! The API server shows no certificate, so anybody may ask; what that costs is bounded:
//!
//! ```text
//!   connection ─▶ body ─▶ who asks what ─▶ not too many values ─▶ a turn ─▶ read, judged, answered
//!   256 of 512    12 of 24 MiB               30,000               2 at a time, on threads of their own
//! ```

mod body;
mod judges;
pub mod review;
mod size;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
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
use tokio::sync::{mpsc, watch};

use self::body::{NoBody, Read, Room};
use self::judges::{Judges, NotJudged};
use self::review::{Head, Review, Verdict};
use crate::injector::{InjectorSettings, NamespaceContext};
use crate::kubernetes::namespaces::Namespaces;
use crate::shares::Shares;
use crate::tls;

const CONNECTIONS_MAX: usize = 512;
/// Of one address: more than an API server changes at a time.
const CONNECTIONS_OF_ONE_MAX: usize = 256;
/// Reviews that are made something of at a time. One takes milliseconds, and up to a hundred times its body.
const REVIEWS_MAX: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// The API server gives a webhook ten seconds, ours five.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two reviews, and for the head of one, which hyper does not tell apart. The API server keeps its connections for
/// 90 seconds, and may not send a review again that it sent on one that was being closed. Whoever says nothing holds a
/// connection of so many, and could hold it anyhow by asking now and then.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// To find out what a namespace is now; that it may not be there yet is part of it.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(2);
/// For a turn; then the API server may try again within its own time.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
const BUFFER_BYTES: usize = 16 * 1024;

#[derive(Clone)]
pub struct Webhook {
    namespaces: Namespaces,
    injector: Arc<InjectorSettings>,
    room: Room,
    judges: Judges,
    stopping: watch::Receiver<bool>,
}

type Answer = Response<Full<Bytes>>;

impl Webhook {
    /// `stopping` turns true when the control plane stops.
    pub fn new(
        namespaces: Namespaces,
        injector: InjectorSettings,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            namespaces,
            injector: Arc::new(injector),
            room: Room::default(),
            judges: Judges::new(REVIEWS_MAX),
            stopping,
        }
    }

    /// Until the control plane stops, and for so much longer.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<ArcSwap<ServerConfig>>,
        linger: Duration,
    ) {
        let (accepted, mut connections) = mpsc::channel(64);
        let shares = Shares::new(CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX);
        tokio::spawn(tls::accept(listener, tls, shares, accepted));
        let (leave, leaving) = watch::channel(false);
        let mut over = std::pin::pin!(over(self.stopping.clone(), linger));
        let mut serving = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = &mut over => break,
                connection = connections.recv() => match connection {
                    Some(Ok(connection)) => {
                        serving.spawn(self.clone().connection(connection, leaving.clone()));
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
                Some(_) = serving.join_next() => {}
            }
        }
        drop(connections);
        leave.send_replace(true);
        let ended = async { while serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }

    async fn connection(self, connection: tls::Connection, leaving: watch::Receiver<bool>) {
        let peer = connection.peer().address;
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |it| it.ip());
        let service = service_fn(move |request| {
            let webhook = self.clone();
            async move { Ok::<_, Infallible>(webhook.answer(request, peer).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_MAX)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(connection), service);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = over(leaving, Duration::ZERO) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the webhook broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let reviewed = tokio::time::timeout(PATIENCE, self.review(request, peer)).await;
        let mut answer = reviewed
            .unwrap_or_else(|_| text(StatusCode::REQUEST_TIMEOUT, "the request takes too long"));
        if *self.stopping.borrow() {
            // The next one is asked of another control plane.
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert(http::header::CONNECTION, close);
        }
        answer
    }

    fn health(&self) -> Answer {
        match *self.stopping.borrow() {
            true => text(StatusCode::SERVICE_UNAVAILABLE, "the control plane stops"),
            false => text(StatusCode::OK, "ok"),
        }
    }

    async fn review(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let (parts, body) = request.into_parts();
        let asked = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/healthz") => return self.health(),
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
        match asked {
            Asked::Inject => self.inject(&head, body).await,
            Asked::Validate => self.in_turn(body, Known::Nothing).await.answer(),
        }
    }

    async fn inject(&self, head: &Head, mut body: Read) -> Answer {
        let name = head.namespace();
        if let Some(namespace) = self.namespaces.get(name) {
            body = match self.in_turn(body, Known::Then(namespace)).await {
                Judged::Answered(answer) => return answer,
                Judged::Unasked(body) => body,
            };
        }
        match self.namespaces.read(name, NAMESPACE_PATIENCE).await {
            Ok(namespace) => self.in_turn(body, Known::Now(namespace)).await.answer(),
            Err(why) => {
                let unknown = "is in the mesh is not known";
                let why =
                    format!("whether namespace {name} {unknown}, {why}: try again in a moment");
                refused(head, &why)
            }
        }
    }

    /// Everything that takes more than the body did.
    async fn in_turn(&self, body: Read, known: Known) -> Judged {
        let injector = self.injector.clone();
        let judged = (self.judges)
            .run(TURN_PATIENCE, move || judge(body, &known, &injector))
            .await;
        judged.unwrap_or_else(|why| {
            let (status, message) = match why {
                NotJudged::Late => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many reviews are waiting: try again in a moment",
                ),
                NotJudged::Panicked => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "this review cannot be judged: see the control plane's log",
                ),
            };
            Judged::Answered(text(status, message))
        })
    }
}

/// Returns so long after `stopping` has turned true.
async fn over(mut stopping: watch::Receiver<bool>, linger: Duration) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
    tokio::time::sleep(linger).await;
}

#[derive(Clone, Copy)]
enum Asked {
    Inject,
    Validate,
}

/// Of the namespace of a pod that is to be injected; without it an object of ours is validated.
enum Known {
    Nothing,
    /// As the watch last told of it.
    Then(Arc<NamespaceContext>),
    /// As it was when, or after, it was asked about.
    Now(Arc<NamespaceContext>),
}

enum Judged {
    Answered(Answer),
    /// By what is known the API server would not have asked: it knows more. Here is what it asked.
    Unasked(Read),
}

impl Judged {
    /// Of what was not judged by what is out of date.
    fn answer(self) -> Answer {
        match self {
            Self::Answered(answer) => answer,
            Self::Unasked(_) => unreachable!("nothing that is newer is known"),
        }
    }
}

fn judge(body: Read, known: &Known, injector: &InjectorSettings) -> Judged {
    let mut review = match Review::parse(&body.bytes) {
        Ok(review) => review,
        Err(error) => return Judged::Answered(text(StatusCode::BAD_REQUEST, &error.to_string())),
    };
    let object = review.title();
    let verdict: Verdict = match known {
        Known::Then(then) if review.is_unasked(then, injector) => return Judged::Unasked(body),
        Known::Then(namespace) | Known::Now(namespace) => review.inject(namespace, injector),
        Known::Nothing => review.validate(&injector.trust_domain),
    };
    if let Some(refusal) = &verdict.refusal {
        tracing::info!(object, refusal, "refused");
    }
    Judged::Answered(reviewed(&review.answer(&verdict)))
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
