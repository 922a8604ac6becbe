//! Apps that call apps: a hop that waits and then asks the next one, one that insists, a leaf that can be told to fail,
//! and work that is written down when it begins.
//!
//! A hop passes on `traceparent` and nothing else, as any traced app does. It works in tasks of its own, as apps with a
//! queue do: that its caller has left does not stop it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const TRACEPARENT: &str = "traceparent";
/// A test that begins more than this looks at them earlier.
const BEGUN_MAX: usize = 10_000;

static BEGUN: Mutex<VecDeque<(String, u128)>> = Mutex::new(VecDeque::new());

/// `MILLISECONDS/HOST/REST`: after that long, GET /REST of HOST port 80; its status and its body are the answer.
pub(crate) async fn after(rest: &str, trace: Option<HeaderValue>) -> (StatusCode, String) {
    let mut parts = rest.splitn(3, '/');
    let wait = parts.next().and_then(|wait| wait.parse().ok());
    let (Some(wait), Some(host), Some(path)) = (wait, parts.next(), parts.next()) else {
        return (StatusCode::BAD_REQUEST, rest.to_owned());
    };
    let (host, path) = (host.to_owned(), format!("/{path}"));
    let asking = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        ask(&host, &path, trace).await
    });
    match asking.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => (StatusCode::BAD_GATEWAY, error.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `TRIES/HOST/REST`: GET /REST of HOST port 80, and again at once for as long as it fails: what an app does that was
/// told to retry and knows of nobody else who does.
pub(crate) async fn insist(rest: &str, trace: Option<HeaderValue>) -> (StatusCode, String) {
    let mut parts = rest.splitn(3, '/');
    let tries = parts.next().and_then(|tries| tries.parse::<u8>().ok());
    let (Some(tries @ 1..), Some(host), Some(path)) = (tries, parts.next(), parts.next()) else {
        return (StatusCode::BAD_REQUEST, rest.to_owned());
    };
    let path = format!("/{path}");
    let mut last = (StatusCode::BAD_GATEWAY, String::new());
    for _ in 0..tries {
        match ask(host, &path, trace.clone()).await {
            Ok(answer) if answer.0.is_success() => return answer,
            Ok(answer) => last = answer,
            Err(error) => last.1 = error.to_string(),
        }
    }
    last
}

/// How often the leaf was called, and what it answers.
static LEAVES: AtomicU64 = AtomicU64::new(0);
static LEAF: AtomicU16 = AtomicU16::new(200);

/// Counts the call, and answers as it was told to.
pub(crate) fn leaf() -> StatusCode {
    LEAVES.fetch_add(1, Ordering::Relaxed);
    StatusCode::from_u16(LEAF.load(Ordering::Relaxed)).unwrap_or(StatusCode::BAD_REQUEST)
}

/// From now on the leaf answers with this.
pub(crate) fn flip(code: u64) {
    LEAF.store(u16::try_from(code).unwrap_or_default(), Ordering::Relaxed);
}

pub(crate) fn is_flipped() -> bool {
    LEAF.load(Ordering::Relaxed) != 200
}

pub(crate) fn leaves() -> String {
    LEAVES.load(Ordering::Relaxed).to_string()
}

pub(crate) async fn ask(
    host: &str,
    path: &str,
    trace: Option<HeaderValue>,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((host, 80)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", host);
    if let Some(trace) = trace {
        request = request.header(TRACEPARENT, trace);
    }
    let request = request.body(Full::<Bytes>::default())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}

/// `MILLISECONDS/NAME/CODE`: writes down under NAME that it began, takes that long, and answers with CODE.
pub(crate) async fn work(rest: &str) -> (StatusCode, String) {
    let mut parts = rest.splitn(3, '/');
    let takes = parts.next().and_then(|takes| takes.parse().ok());
    let (Some(takes), Some(name), Some(code)) = (takes, parts.next(), parts.next()) else {
        return (StatusCode::BAD_REQUEST, rest.to_owned());
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    {
        let mut begun = BEGUN.lock().expect("no panic while locked");
        if begun.len() == BEGUN_MAX {
            begun.pop_front();
        }
        begun.push_back((name.to_owned(), now.unwrap_or_default().as_micros()));
    }
    tokio::time::sleep(Duration::from_millis(takes)).await;
    let code = code.parse().ok();
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    (status.unwrap_or(StatusCode::BAD_REQUEST), name.to_owned())
}

/// `NAME MICROSECONDS-SINCE-1970`, a line each, in the order in which it began.
pub(crate) fn begun() -> String {
    let begun = BEGUN.lock().expect("no panic while locked");
    let lines = begun.iter().map(|(name, at)| format!("{name} {at}\n"));
    lines.collect()
}
