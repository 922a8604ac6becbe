//! What a connection begins with, and who begins.
//!
//! ```text
//!   port said to speak HTTP   wait for the first request ─▶ HTTP, TLS ─▶ served
//!                                                         ─▶ anything else ─▶ refused: it would pass by every policy
//!   nothing but mutual TLS    wait for it
//!   nothing said of the port  wait a moment ─▶ bytes ─▶ judged by them
//!                                           ─▶ silence ─▶ connect, and see who speaks first
//! ```

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weir_config::snapshot;

use super::downstream::Downstream;
use super::{OPAQUE_IDLE, Rejected};
use crate::ahead::ReadAhead;
use crate::detect::{self, Detected, MeshProtocol};
use crate::drain::Drain;
use crate::error::PROXY_ERROR;
use crate::tcp;

/// A port of unknown protocol on which the client says nothing for this long: its server may speak first.
const SILENCE: Duration = Duration::from_millis(50);
/// A client that has begun to speak must come to the point.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection made in advance may wait this long for its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const NOT_HTTP: &str = "this port speaks HTTP\n";

/// What may come on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Also nothing: the server may speak first.
    Anything,
    Http,
    /// With prior knowledge, as gRPC does.
    Http2,
    Tls,
}

impl Expected {
    pub(super) fn on(declared: snapshot::Protocol) -> Self {
        match declared {
            snapshot::Protocol::Http => Self::Http,
            snapshot::Protocol::Http2 => Self::Http2,
            snapshot::Protocol::Detect | snapshot::Protocol::Opaque => Self::Anything,
        }
    }

    /// How long the client may be silent.
    const fn patience(self) -> Duration {
        match self {
            Self::Anything => SILENCE,
            Self::Http | Self::Http2 => FIRST_REQUEST_TIMEOUT,
            Self::Tls => FIRST_BYTES_TIMEOUT,
        }
    }
}

/// What is known when a connection has begun.
pub(super) struct Beginning<S = TcpStream> {
    pub(super) stream: S,
    /// Read already, and still to be served.
    pub(super) prefix: Bytes,
    pub(super) detected: Detected,
    /// For the metric: how it was found out.
    pub(super) why: &'static str,
}

impl<S> Beginning<S> {
    /// What a sidecar wants to speak, when it is one.
    pub(super) fn mesh(&self) -> Option<MeshProtocol> {
        match &self.detected {
            Detected::Tls(hello) => hello.mesh,
            _ => None,
        }
    }

    pub(super) fn rewound(self) -> ReadAhead<S> {
        ReadAhead::after(self.prefix, self.stream)
    }
}

/// Reads until the protocol is known, or the client has said nothing for a while. `None`: it left, or this sidecar is
/// about to, before anything was said.
pub(super) async fn read<S: Downstream>(
    mut stream: S,
    expected: Expected,
    drain: &mut Drain,
) -> Result<Option<Beginning<S>>, Rejected> {
    let client_first = expected != Expected::Anything;
    let mut prefix = BytesMut::new();
    let mut until = Instant::now() + expected.patience();
    loop {
        let nothing_yet = prefix.is_empty();
        let read = tokio::select! {
            read = tokio::time::timeout_at(until, stream.read_buf(&mut prefix)) => read,
            () = drain.started(), if nothing_yet && client_first => return Ok(None),
        };
        let (detected, why) = match read {
            Err(_) if nothing_yet && client_first => return Ok(None),
            Err(_) if nothing_yet => (Detected::NeedMore, "silence"),
            Err(_) => {
                tcp::reset(stream.tcp());
                return Err(Rejected::SlowFirstBytes);
            }
            Ok(Ok(0)) if nothing_yet && client_first => return Ok(None),
            // Half a greeting and the end: what there is goes on as bytes.
            Ok(Ok(0)) => (Detected::Opaque, "end"),
            Ok(Err(_)) => return Err(Rejected::SlowFirstBytes),
            Ok(Ok(_)) => match detect::detect(&prefix) {
                Detected::NeedMore => {
                    if nothing_yet {
                        until = Instant::now() + FIRST_BYTES_TIMEOUT;
                    }
                    continue;
                }
                detected => (detected, "bytes"),
            },
        };
        let not_http = detected == Detected::Opaque;
        if not_http && matches!(expected, Expected::Http | Expected::Http2) {
            return Err(refuse(stream, expected).await);
        }
        return Ok(Some(Beginning {
            stream,
            prefix: prefix.freeze(),
            detected,
            why,
        }));
    }
}

/// Says why, to whoever may understand it.
async fn refuse(mut stream: impl Downstream, expected: Expected) -> Rejected {
    if expected == Expected::Http {
        let length = NOT_HTTP.len();
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\n{PROXY_ERROR}: {}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{NOT_HTTP}",
            Rejected::NotHttp.as_str()
        );
        // Fits into an empty send buffer; whoever is gone already needs no answer.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    } else {
        tcp::reset(stream.tcp());
    }
    Rejected::NotHttp
}

/// Who spoke first on a connection whose client was silent for a while, and what is left to do.
pub(super) enum Late<S, U> {
    /// The client, which was merely early. Nothing has been sent upstream.
    Client {
        beginning: Beginning<S>,
        upstream: U,
    },
    /// The server. What it said is delivered, and from here on it is bytes.
    Server {
        stream: S,
        upstream: U,
        /// From a client that spoke at the same time.
        prefix: Bytes,
    },
    /// Nobody: somebody went away, or the time is up.
    Gone,
}

/// The client waits. Either its server speaks first, and then it must be called now; or the client is early (a
/// connection made in advance, a packet lost), and then it must not lose its HTTP policy. So there is a connection
/// upstream, and whoever speaks first decides, until `cut` at most.
pub(super) async fn late<S: Downstream, U: AsyncRead + Unpin>(
    mut stream: S,
    mut upstream: U,
    cut: impl Future<Output = ()>,
) -> Late<S, U> {
    let mut cut = pin!(cut);
    let mut from_server = BytesMut::with_capacity(1024);
    let mut from_client = BytesMut::new();
    let mut until = Instant::now() + OPAQUE_IDLE;
    loop {
        let nothing_yet = from_client.is_empty();
        tokio::select! {
            () = &mut cut => break,
            () = tokio::time::sleep_until(until) => break,
            read = upstream.read_buf(&mut from_server) => {
                if read.is_err() || deliver(&mut stream, &from_server).await.is_err() {
                    break;
                }
                let prefix = from_client.freeze();
                return Late::Server { stream, upstream, prefix };
            }
            read = stream.read_buf(&mut from_client) => {
                let detected = match read {
                    Ok(0) | Err(_) => Detected::Opaque,
                    Ok(_) => detect::detect(&from_client),
                };
                if detected != Detected::NeedMore {
                    let prefix = from_client.freeze();
                    let beginning = Beginning { stream, prefix, detected, why: "late-bytes" };
                    return Late::Client { beginning, upstream };
                }
                if nothing_yet {
                    until = Instant::now() + FIRST_BYTES_TIMEOUT;
                }
            }
        }
    }
    tcp::reset(stream.tcp());
    Late::Gone
}

/// TLS holds back what was written until it is flushed.
async fn deliver(stream: &mut impl Downstream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
