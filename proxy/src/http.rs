//! Serving HTTP on a downstream connection: from hyper's requests to ours and back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::body::{Body, BodyError, GoingOn, outcome};
use crate::connector;
use crate::drain::Drain;
use crate::error::Error;
use crate::head;
use crate::http2;
use crate::interim::{self, Interim, Interjected, Outlet};
use crate::layer::admission::Admitted;
use crate::layer::authorize::Right;
use crate::layer::{AnswerFuture, Guarded};
use crate::memory;
use crate::mentions::Mentions;
use crate::patience::{self, Patience};
use crate::pipeline::Stack;
use crate::policy::deadline::{Deadline, parse_grpc_timeout, parse_millis};
use crate::policy::outcome::Outcome;
use crate::policy::priority::{COHORTS, Priority, Tier};
use crate::recorder::Names;
use crate::request::{Context, Protocol, Request, is_idempotent};
use crate::tcp::{self, Cut};
use crate::telemetry::{self, Direction};

const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// An upgraded connection on which nothing moves ends after this long.
const UPGRADE_IDLE: Duration = Duration::from_secs(60 * 60);

/// Who gets the requests of a connection.
pub enum Target {
    /// A service that the app calls. Routes are looked up for each request, so a new policy holds at once.
    Service(Arc<Backend>),
    /// The app itself.
    App(Stack),
}

/// What is known about a connection before its first request.
pub struct Connection {
    pub target: Target,
    /// As metrics call it.
    pub service: Arc<str>,
    pub worker: usize,
    /// Who is at the other end, as proven by mutual TLS.
    pub caller: Option<Arc<str>>,
    /// Where it was meant to go.
    pub destination: SocketAddr,
}

impl Connection {
    fn direction(&self) -> Direction {
        match self.target {
            Target::Service(_) => Direction::Outbound,
            Target::App(_) => Direction::Inbound,
        }
    }
}

/// Serves until the caller goes or the drain has ended its requests.
pub async fn serve<I>(
    io: I,
    protocol: Protocol,
    connection: Connection,
    drain: Drain,
) -> Result<(), BodyError>
where
    I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
{
    match protocol {
        Protocol::Http1 => Ok(serve_http1(io, connection, drain).await?),
        Protocol::Http2 => Ok(http2::serve(io, connection, drain).await?),
    }
}

/// An HTTP/1.1 connection, as its requests see it.
struct Serving {
    connection: Connection,
    outlet: Outlet,
    patience: Patience,
    /// It has left HTTP for this.
    switched: Mutex<Option<Switched>>,
}

/// With the drain, and with all that its caller holds, until the connection ends, also where it leaves HTTP.
async fn serve_http1<I>(io: I, connection: Connection, mut drain: Drain) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
{
    let patience = Patience::default();
    let serving = Arc::new(Serving {
        connection,
        outlet: Outlet::default(),
        patience: patience.clone(),
        switched: Mutex::default(),
    });
    let io = Interjected::new(io, serving.outlet.clone(), patience.clone());
    let requests = serving.clone();
    let service = service_fn(move |request| handle(requests.clone(), request));
    let conversation = http1::Builder::new()
        .timer(patience.clone())
        .header_read_timeout(patience::IDLE_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut conversation = std::pin::pin!(conversation);
    let served = tokio::select! {
        served = conversation.as_mut() => served,
        () = drain.started() => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    match served {
        // Who asked for nothing for so long has done no wrong.
        Err(error) if error.is_timeout() && !patience.has_begun() => return Ok(()),
        // Nor who does not wait for the answer: the call has ended with the connection.
        Err(error) if error.is_incomplete_message() && patience.is_asked() => return Ok(()),
        served => served?,
    }
    let switched = serving
        .switched
        .lock()
        .expect("no panic while locked")
        .take();
    if let Some(switched) = switched {
        // Apart, or every idle connection has room for it.
        Box::pin(switched.carry::<I>()).await;
    }
    Ok(())
}

async fn handle(
    serving: Arc<Serving>,
    mut incoming: http::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Serving {
        connection,
        outlet,
        patience,
        ..
    } = &*serving;
    patience.asked();
    let mentions = Mentions::of(incoming.headers());
    let upgrade = mentions.upgrade && head::wants_upgrade(incoming.version(), incoming.headers());
    let interim = interim::is_wanted_by(&incoming, mentions).then(|| outlet.begin());
    let downstream = upgrade.then(|| hyper::upgrade::on(&mut incoming));
    let hints = interim.is_some();
    let incoming = incoming.map(Body::from);
    let mut answering = std::pin::pin!(answer(connection, incoming, mentions, upgrade, interim));
    let answered = std::future::poll_fn(|cx| {
        let answered = answering.as_mut().poll(cx);
        if hints && answered.is_pending() {
            outlet.hurry(cx);
        }
        answered
    });
    let mut response = answered.await;
    if hints {
        outlet.end();
    }
    if let Some(end) = response.body().ends_at() {
        patience.set_answer_end(Some(end));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(downstream) = downstream
    {
        let switched = Switched::new(downstream, &mut response);
        *serving.switched.lock().expect("no panic while locked") = Some(switched);
    }
    Ok(response)
}

/// The response to one request, whatever its connection speaks. What need not wait is done before the future is made, so
/// that none has the request in it.
pub fn answer(
    connection: &Connection,
    incoming: http::Request<Body>,
    mut mentions: Mentions,
    upgrade: bool,
    interim: Option<Interim>,
) -> impl Future<Output = Response<Body>> {
    mentions.grpc &= incoming.method() == Method::POST;
    let grpc = mentions.grpc;
    let version = incoming.version();
    let names = match mentions.id {
        true => Names::of(incoming.headers(), connection.worker),
        false => Names::none(connection.worker),
    };
    let request = request(
        connection,
        incoming,
        names.clone(),
        mentions,
        upgrade,
        interim,
    );
    let begun = request.and_then(|request| {
        let place = memory::SIDECAR.enter()?;
        Ok(within(place, call(&connection.target, request)))
    });
    if let Err(error) = &begun {
        // It gets no further, so nobody further on would count it.
        telemetry::refused(
            connection.direction(),
            &connection.service,
            error.facts().code,
        );
    }
    let to_app = matches!(connection.target, Target::Service(_));
    async move {
        let answer = match begun {
            Ok(call) => call.await,
            Err(error) => Err(error),
        };
        let mut response = answer.unwrap_or_else(|error| error.into_response(grpc));
        finish(&mut response, version, to_app);
        if (grpc || response.status().as_u16() >= 429)
            && matches!(outcome(&response), Outcome::Failure(_))
            && let Ok(id) = HeaderValue::try_from(names.id())
        {
            response.headers_mut().insert(&head::OWN_REQUEST_ID, id);
        }
        response
    }
}

/// What follows an upgrade.
struct Switched {
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    /// For as long as whoever asked for it may.
    right: Option<Right>,
    /// With the app, which it leaves when it ends.
    _place: Option<Arc<Admitted>>,
    /// It is in flight for as long as it lasts.
    call: Option<GoingOn>,
}

impl Switched {
    fn new(downstream: OnUpgrade, response: &mut Response<Body>) -> Self {
        Self {
            downstream,
            upstream: hyper::upgrade::on(&mut *response),
            right: response.extensions_mut().remove(),
            _place: response.extensions_mut().remove(),
            call: response.body_mut().goes_on(),
        }
    }

    /// Until both ends are done. `I` is the connection downstream.
    async fn carry<I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static>(self) {
        // Either end may change its mind until both have switched.
        let switched = tokio::join!(self.downstream, self.upstream);
        let (Ok(mut downstream), Ok(mut upstream)) = switched else {
            return;
        };
        let taken_away = async {
            match self.right {
                Some(mut right) => right.taken_away().await,
                None => std::future::pending().await,
            }
        };
        let carried = tcp::forward(
            TokioIo::new(&mut downstream),
            TokioIo::new(&mut upstream),
            UPGRADE_IDLE,
            Bytes::new(),
        );
        let end = tokio::select! {
            biased;
            () = taken_away => None,
            carried = carried => Some(carried.end),
        };
        match (end, self.call) {
            (Some(tcp::End::Closed), Some(call)) => call.complete(),
            (Some(tcp::End::Closed), None) => {}
            _ => {
                cut::<Interjected<I>>(downstream);
                cut::<connector::Stream>(upstream);
            }
        }
    }
}

fn cut<T: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static>(upgraded: Upgraded) {
    if let Ok(parts) = upgraded.downcast::<TokioIo<T>>() {
        parts.io.inner().cut();
    }
}

/// A call that keeps the place that it has until its answer has ended.
fn within(place: Option<memory::Place>, call: AnswerFuture) -> AnswerFuture {
    match place {
        None => call,
        place => Box::pin(Guarded::new(call, place)),
    }
}

fn call(target: &Target, mut request: Box<Request>) -> AnswerFuture {
    match target {
        Target::App(stack) => stack.begin(request),
        Target::Service(backend) => {
            let routes = backend.routes();
            match routes.dispatch() {
                Some(dispatch) => dispatch.begin(request),
                None => routes.stack(&mut request).begin(request),
            }
        }
    }
}

/// Our request from hyper's: checked, without what belongs to its connection, and with what its head says of time,
/// repetition and protocol read once.
fn request(
    connection: &Connection,
    incoming: http::Request<Body>,
    names: Names,
    mentions: Mentions,
    upgrade: bool,
    interim: Option<Interim>,
) -> Result<Box<Request>, Error> {
    let received = Instant::now();
    let grpc = mentions.grpc;
    let (mut head, body) = incoming.into_parts();
    if head.method == Method::CONNECT {
        return Err(Error::ConnectMethod);
    }
    head::settle_authority(&mut head, connection.destination)?;
    if mentions.coding && !head::is_chunked(&head.headers) {
        return Err(Error::BadRequest("its transfer-encoding is not chunked"));
    }
    head::strip_connection_headers(&mut head.headers, upgrade);
    let mut protocol = if head.version == Version::HTTP_2 {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let mut priority = if mentions.id {
        priority(&head.headers)
    } else {
        anyones_priority()
    };
    let outbound = matches!(connection.target, Target::Service(_));
    // gRFC A6: of the app's own client, or of whoever called.
    let mut is_retry = mentions.previous_attempts
        && grpc
        && (outbound || connection.caller.is_some())
        && head.headers.contains_key(&head::GRPC_PREVIOUS_ATTEMPTS);
    if mentions.own && connection.caller.is_some() {
        // A sidecar speaks: what it adds to its app's request is for us, not for our app.
        if head.headers.contains_key(&head::ORIGINAL_PROTOCOL) {
            protocol = Protocol::Http1;
        }
        is_retry |= head.headers.contains_key(&head::ATTEMPT);
        if let Some(said) = head.headers.get(&head::CRITICALITY) {
            priority = Priority::parse(said.as_bytes(), priority).unwrap_or(priority);
        }
    }
    // What strangers say of it has been taken off their calls, so an app has it of nobody but itself.
    let mut says_tier = false;
    if mentions.own {
        let said = head.headers.get(&head::CRITICALITY).filter(|_| outbound);
        if let Some(said) = said.and_then(|said| Priority::parse(said.as_bytes(), priority)) {
            priority.tier = said.tier;
            says_tier = true;
        }
        head::strip_own_headers(&mut head.headers);
    }
    let context = Context {
        worker: connection.worker,
        received,
        begun: received,
        deadline: if mentions.timeout {
            deadline(&head.headers, received)
        } else {
            Deadline::NEVER
        },
        protocol,
        grpc,
        upgrade,
        idempotent: is_idempotent(&head.method)
            || mentions.idempotency_key && head.headers.contains_key(&head::IDEMPOTENCY_KEY),
        is_retry,
        attempt: 1,
        replayable: false,
        may_be_repeated: false,
        try_until: Deadline::NEVER,
        share: None,
        tried: Vec::new(),
        race: None,
        hedge: false,
        stands_in: false,
        is_copy: false,
        interim,
        priority,
        says_tier,
        caller: connection.caller.clone(),
        names,
        terms: None,
        heir: None,
    };
    Ok(Box::new(Request {
        head,
        body,
        context,
    }))
}

/// Of a request of which nobody says how much it matters: its cohort is that of all requests of the same user action.
fn priority(headers: &HeaderMap) -> Priority {
    // The trace id within `00-<32 digits>-<16 digits>-01`.
    let trace = headers
        .get(&head::TRACEPARENT)
        .and_then(|value| value.as_bytes().get(3..35));
    let id = trace.or_else(|| Some(headers.get(&head::REQUEST_ID)?.as_bytes()));
    match id {
        Some(id) => Priority::of(Tier::Default, id, unix_seconds()),
        None => anyones_priority(),
    }
}

fn anyones_priority() -> Priority {
    Priority {
        tier: Tier::Default,
        cohort: fastrand::u8(..COHORTS),
    }
}

/// All that is done with it is to tell one hour from the next.
fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The earliest of the ways in which a caller can say how long it waits.
fn deadline(headers: &HeaderMap, now: Instant) -> Deadline {
    let grpc = headers
        .get(&head::GRPC_TIMEOUT)
        .and_then(|value| parse_grpc_timeout(value.as_bytes()));
    let millis = [&head::REQUEST_TIMEOUT_MS, &head::EXPECTED_TIMEOUT_MS]
        .into_iter()
        .filter_map(|name| headers.get(name))
        .filter_map(|value| parse_millis(value.as_bytes()));
    Deadline::of_request(millis.chain(grpc), now)
}

/// The response as the caller's connection wants it.
fn finish(response: &mut Response<Body>, version: Version, to_app: bool) {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    head::strip_connection_headers(response.headers_mut(), upgraded);
    *response.version_mut() = version;
    if to_app && head::has_own_headers(response.headers()) {
        // The app asked its neighbour, not its sidecar; that an answer is a fallback, or a fault on purpose, is all that it
        // may know.
        let headers = response.headers_mut();
        let told = [&head::DEGRADED, &head::FAULT].map(|name| (name, headers.get(name).cloned()));
        head::strip_own_headers(headers);
        for (name, value) in told {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
