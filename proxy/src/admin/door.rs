//! Who gets in at the admin port, and for how long.
//!
//! The kubelet restarts an app whose probe is not answered, so nobody may take the port away from it: each peer has a share
//! of the connections, each connection has one question, and who does not read the answer is cut. How long an answer takes
//! to come has no limit here, for a hook may take an hour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::NobodyHeard;
use crate::shares::Shares;

/// Beside one for each probe and hook of the app.
const CONNECTIONS_MAX: usize = 64;
/// For one peer, beside the same: the kubelet asks all its questions from one address, each of them once at a time.
const PEER_CONNECTIONS_MAX: usize = 8;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// From when there is an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Places for so many probes and hooks, and for everybody else.
pub(super) fn shares(probes: usize) -> Arc<Shares> {
    Shares::new(CONNECTIONS_MAX + probes, PEER_CONNECTIONS_MAX + probes)
}

/// Runs for as long as the process does.
pub(super) async fn serve<F>(
    listener: TcpListener,
    shares: Arc<Shares>,
    answer: impl Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Result<Response<Full<Bytes>>, NobodyHeard>> + Send + 'static,
{
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting on the admin port failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = shares.try_take(peer.ip()) else {
            tracing::debug!(%peer, "an admin connection is one too many");
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let _place = place;
            one(stream, peer, answer).await;
        });
    }
}

/// One question and its answer.
async fn one<F>(
    stream: TcpStream,
    peer: SocketAddr,
    answer: impl Fn(Request<Incoming>, SocketAddr) -> F,
) where
    F: Future<Output = Result<Response<Full<Bytes>>, NobodyHeard>>,
{
    let answered = Notify::new();
    let service = service_fn(|request| {
        let (asked, answered) = (answer(request, peer), &answered);
        async move {
            let answer = asked.await;
            answered.notify_one();
            answer
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let unread = async {
        answered.notified().await;
        tokio::time::sleep(WRITE_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, %peer, "an admin connection broke");
        },
        () = unread => tracing::debug!(%peer, "an answer of the admin port is not read"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr};

    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const KUBELET: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const LARGE: usize = 32 * 1024 * 1024;
    const HOUR: Duration = Duration::from_secs(3600);

    async fn answer(
        request: Request<Incoming>,
        _: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, NobodyHeard> {
        Ok(match request.uri().path() {
            "/large" => crate::admin::text(StatusCode::OK, vec![b'x'; LARGE]),
            "/hook" => {
                tokio::time::sleep(HOUR).await;
                crate::admin::text(StatusCode::OK, "done")
            }
            _ => crate::admin::text(StatusCode::OK, "live"),
        })
    }

    fn open() -> (SocketAddr, TcpListener) {
        let listener = crate::socket::listen((IpAddr::V4(KUBELET), 0).into()).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        (address, TcpListener::from_std(listener).expect("it is"))
    }

    async fn dial(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("loopback is a /8");
        socket.connect(to).await.expect("somebody listens")
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut answer = String::new();
        // Whoever is turned away cannot write or read.
        if stream.write_all(request.as_bytes()).await.is_ok() {
            let _ = stream.read_to_string(&mut answer).await;
        }
        answer
    }

    #[tokio::test]
    async fn who_holds_all_connections_that_it_can_get_keeps_no_probe_waiting() {
        let (address, listener) = open();
        tokio::spawn(serve(listener, shares(0), answer));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(dial(STRANGER, address).await);
        }
        let mut kubelet = dial(KUBELET, address).await;
        let answer = tokio::time::timeout(Duration::from_secs(1), ask(&mut kubelet, "/live"));
        let answer = answer.await.expect("within a second");
        assert!(answer.ends_with("live"), "{answer:?}");

        let mut served = 0;
        for stream in &mut held {
            served += usize::from(ask(stream, "/live").await.ends_with("live"));
        }
        assert_eq!(served, PEER_CONNECTIONS_MAX);
        // What they had is free again.
        let answer = ask(&mut dial(STRANGER, address).await, "/live").await;
        assert!(answer.ends_with("live"), "{answer:?}");
    }

    #[tokio::test]
    async fn all_probes_of_a_pod_may_be_asked_at_once_by_one_address() {
        let (address, listener) = open();
        let probes = 20;
        tokio::spawn(serve(listener, shares(probes), answer));
        let mut asked = Vec::new();
        for _ in 0..probes + PEER_CONNECTIONS_MAX {
            asked.push(dial(KUBELET, address).await);
        }
        for stream in &mut asked {
            assert!(ask(stream, "/live").await.ends_with("live"));
        }
    }

    /// The clock is paused: what takes long is over at once.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answer_is_cut() {
        let (address, listener) = open();
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream
            .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
            .expect("it is sent");
        let (accepted, peer) = listener.accept().await.expect("it is there");
        let begun = tokio::time::Instant::now();
        let cut = tokio::time::timeout(HOUR, one(accepted, peer, answer)).await;
        cut.expect("it ends");
        assert!(begun.elapsed() >= WRITE_TIMEOUT);
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        assert!(read.len() < LARGE, "all of it came");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_takes_an_hour_is_not_cut() {
        let (address, listener) = open();
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream
            .write_all(b"GET /hook HTTP/1.1\r\nhost: a\r\n\r\n")
            .expect("it is sent");
        let (accepted, peer) = listener.accept().await.expect("it is there");
        one(accepted, peer, answer).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("to its end");
        assert!(answer.ends_with("done"), "{answer:?}");
    }
}
