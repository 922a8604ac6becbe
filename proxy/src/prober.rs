//! Asks the app what the kubelet wanted to ask it.
//!
//! ```text
//! kubelet ── GET :14191/app-probe/cart/readiness ──▶ sidecar ── the original probe ──▶ app
//! ```
//!
//! Redirection and strict mTLS would make the kubelet's own probes lie, so the injector points them at
//! the sidecar and leaves the originals in `WEIR_APP_PROBERS`. A probe goes straight to the pod's own
//! address: no policy, no metric and no breaker sees it, for it says how the app is and not how
//! the mesh is. What counts as success is what counts for the kubelet, except that redirects are not followed.
//!
//! The hooks of a container's life that ask by HTTP come the same way (`cart/post-start`, `cart/pre-stop`). Each is asked
//! once at a time: whoever calls one that is under way waits for what comes of it. A container without a `preStop` is given
//! one that asks nobody: the answer comes after a pause, and the kubelet tells the app to end when its callers have left.

mod grpc;
mod hooks;
mod http;
mod https;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::socket;
use hooks::Hooks;

/// Some apps answer probes differently, and know them by this beginning.
const USER_AGENT: &str = concat!("kube-probe/weir-", env!("CARGO_PKG_VERSION"));

/// The probes of this pod's containers, by their path under `/app-probe/`.
#[derive(Debug)]
pub struct Probers {
    probes: BTreeMap<String, Arc<Probe>>,
    /// Hooks that ask nobody, and take this long.
    pauses: BTreeMap<String, Duration>,
    hooks: Hooks,
    app: IpAddr,
    mark: Option<u32>,
}

/// What the app said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    pub ok: bool,
    /// The HTTP status, or the gRPC code of a gRPC probe, when one came.
    pub status: Option<u16>,
    /// For the operator who reads the kubelet's event.
    pub detail: String,
}

/// Why `WEIR_APP_PROBERS` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProbers {
    #[error("the app's probes are not the JSON that the injector writes: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the app's probe {key}: {why}")]
    Probe { key: String, why: String },
}

#[derive(Debug)]
struct Probe {
    port: u16,
    timeout: Duration,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Http(http::Get),
    Https(http::Get, https::Client),
    Connect,
    Grpc { service: String },
}

impl Probers {
    /// Reads the injector's JSON; empty means no probes. They go to `app`, the pod's own address, by
    /// sockets that carry `mark`.
    pub fn parse(json: &str, app: IpAddr, mark: Option<u32>) -> Result<Self, InvalidProbers> {
        let written: BTreeMap<String, Written> = match json.trim() {
            "" => BTreeMap::new(),
            json => serde_json::from_str(json)?,
        };
        let (mut probes, mut pauses) = (BTreeMap::new(), BTreeMap::new());
        for (key, written) in written {
            if let Some(pause) = written.pause() {
                pauses.insert(key, pause);
                continue;
            }
            match Probe::try_from(written) {
                Ok(probe) => probes.insert(key, Arc::new(probe)),
                Err(why) => return Err(InvalidProbers::Probe { key, why }),
            };
        }
        Ok(Self {
            probes,
            pauses,
            hooks: Hooks::default(),
            app,
            mark,
        })
    }

    /// Asks once, within the probe's own timeout. `key` is e.g. `cart/readiness`.
    pub async fn probe(&self, key: &str) -> ProbeResult {
        if let Some(pause) = self.pauses.get(key) {
            tokio::time::sleep(*pause).await;
            return ProbeResult {
                ok: true,
                status: None,
                detail: format!("callers had {} s to leave", pause.as_secs()),
            };
        }
        let Some(probe) = self.probes.get(key) else {
            return ProbeResult::failed(format!("this pod has no probe {key:?}"));
        };
        let address = SocketAddr::new(self.app, probe.port);
        let asking = probe.clone().ask(address, self.mark);
        if is_hook(key) {
            self.hooks.run(key, asking).await
        } else {
            asking.await
        }
    }

    /// How many may be asked at once, each of them by the one who asks it.
    pub fn len(&self) -> usize {
        self.probes.len() + self.pauses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Unlike a probe it makes the app do something.
pub fn is_hook(key: &str) -> bool {
    key.ends_with("/post-start") || key.ends_with("/pre-stop")
}

impl Probe {
    async fn ask(self: Arc<Self>, address: SocketAddr, mark: Option<u32>) -> ProbeResult {
        match timeout(self.timeout, self.question.ask(address, mark)).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = self.timeout.as_secs();
                ProbeResult::failed(format!("{address} did not answer within {seconds} s"))
            }
        }
    }
}

impl Question {
    async fn ask(&self, address: SocketAddr, mark: Option<u32>) -> ProbeResult {
        let stream = match socket::connect(address, mark).await {
            Ok(stream) => stream,
            Err(error) => {
                return ProbeResult::failed(format!("cannot connect to {address}: {error}"));
            }
        };
        let answer = match self {
            Self::Http(get) => get.ask("http", address, stream).await,
            Self::Https(get, client) => match client.connect(address, stream).await {
                Ok(stream) => get.ask("https", address, stream).await,
                Err(error) => Err(error.into()),
            },
            Self::Grpc { service } => grpc::check(service, address, stream).await,
            Self::Connect => Ok(connected(address, stream)),
        };
        answer.unwrap_or_else(|error| {
            ProbeResult::failed(format!("{address} gave no answer: {error}"))
        })
    }
}

fn connected(address: SocketAddr, stream: TcpStream) -> ProbeResult {
    drop(stream);
    ProbeResult {
        ok: true,
        status: None,
        detail: format!("{address} accepts connections"),
    }
}

impl ProbeResult {
    /// What the kubelet is told of `key`. `None`: nothing, for it takes every answer to a hook for a yes, whatever its
    /// status is, and nobody has heard this one.
    pub fn answer(&self, key: &str) -> Option<StatusCode> {
        match (self.ok, self.status) {
            (true, _) => Some(StatusCode::OK),
            (false, None) if is_hook(key) => None,
            (false, _) => Some(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn failed(detail: impl Into<String>) -> Self {
        Self {
            ok: false,
            status: None,
            detail: detail.into(),
        }
    }
}

/// A probe as the injector writes it: one handler, and `timeoutSeconds` beside it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    http_get: Option<WrittenHttp>,
    tcp_socket: Option<WrittenTcp>,
    grpc: Option<WrittenGrpc>,
    sleep: Option<WrittenSleep>,
    #[serde(default = "one_second")]
    timeout_seconds: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenHttp {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<WrittenHeader>,
}

#[derive(Deserialize)]
struct WrittenHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct WrittenTcp {
    port: u16,
}

#[derive(Deserialize)]
struct WrittenGrpc {
    port: u16,
    #[serde(default)]
    service: String,
}

#[derive(Deserialize)]
struct WrittenSleep {
    seconds: u32,
}

impl Written {
    /// `Some`: nothing else is asked.
    fn pause(&self) -> Option<Duration> {
        let others = self.http_get.is_some() || self.tcp_socket.is_some() || self.grpc.is_some();
        let sleep = self.sleep.as_ref().filter(|_| !others)?;
        Some(Duration::from_secs(sleep.seconds.into()))
    }
}

/// Kubernetes' default.
fn one_second() -> u32 {
    1
}

impl TryFrom<Written> for Probe {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let (port, question) = match written {
            Written {
                http_get: Some(http),
                tcp_socket: None,
                grpc: None,
                sleep: None,
                ..
            } => (http.port, http.try_into()?),
            Written {
                http_get: None,
                tcp_socket: Some(tcp),
                grpc: None,
                sleep: None,
                ..
            } => (tcp.port, Question::Connect),
            Written {
                http_get: None,
                tcp_socket: None,
                grpc: Some(grpc),
                sleep: None,
                ..
            } => (
                grpc.port,
                Question::Grpc {
                    service: grpc.service,
                },
            ),
            _ => {
                return Err(
                    "exactly one of httpGet, tcpSocket, grpc and sleep is expected".to_owned(),
                );
            }
        };
        if port == 0 {
            return Err("port 0 cannot be probed".to_owned());
        }
        let timeout = Duration::from_secs(written.timeout_seconds.max(1).into());
        Ok(Self {
            port,
            timeout,
            question,
        })
    }
}

impl TryFrom<WrittenHttp> for Question {
    type Error = String;

    fn try_from(written: WrittenHttp) -> Result<Self, String> {
        let headers = written
            .http_headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()));
        let get = http::Get::new(&written.path, headers)?;
        match written.scheme.to_ascii_uppercase().as_str() {
            "" | "HTTP" => Ok(Self::Http(get)),
            "HTTPS" => Ok(Self::Https(get, https::Client::new())),
            scheme => Err(format!("scheme {scheme:?} is neither HTTP nor HTTPS")),
        }
    }
}

/// What the two HTTP clients can fail with.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{}", with_source(.0))]
    Hyper(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] ::http::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// hyper's own text is "connection error"; what happened is in its source.
fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Polls an HTTP connection beside the exchange that needs it; both end here.
async fn drive<T, E>(
    exchange: impl Future<Output = Result<T, E>>,
    connection: impl Future<Output = Result<(), E>>,
) -> Result<T, E> {
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // Whether it ended well or not, the exchange knows what it got.
        _ = connection => exchange.await,
    }
}
