//! Callers that go on while something happens to the mesh, and what each of their requests came to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper::http::HeaderValue;
use tokio::task::JoinHandle;

use crate::grpc::{call, message};
use crate::world::World;

const HTTP1_CALLERS: u32 = 6;
const GRPC_CALLERS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(5);

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// The answer, or why there is none.
    pub(crate) came: Result<Answer, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// For gRPC 200 where its status is 0, or else 500.
    pub(crate) status: u16,
    /// Whether it is a fallback.
    pub(crate) degraded: bool,
    /// What a sidecar calls the error that it answers for.
    #[allow(dead_code, reason = "printed where a request failed")]
    sidecar: Option<HeaderValue>,
}

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<Sample>>>,
}

/// Keep-alive HTTP/1.1 and gRPC from the caller's pod; idempotent and not, both with a body.
///
/// Each of the eight callers asks `every` so often, whether or not its last answer was slow.
pub(crate) async fn start(world: &World, path: &'static str, every: Duration) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..HTTP1_CALLERS {
        let sender = world.http1("server:80").await;
        let method = if number % 2 == 0 { "PUT" } else { "POST" };
        callers.push(tokio::spawn(http1_caller(
            sender,
            method,
            path,
            Pace::new(every),
            stop.clone(),
        )));
    }
    for _ in 0..GRPC_CALLERS {
        let sender = world.http2("server:9090").await;
        callers.push(tokio::spawn(grpc_caller(
            sender,
            Pace::new(every),
            stop.clone(),
        )));
    }
    Load { stop, callers }
}

impl Load {
    /// Every request, in the order in which they were due.
    pub(crate) async fn end(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for caller in self.callers {
            all.extend(caller.await.expect("a caller does not panic"));
        }
        all.sort_by_key(|sample| sample.at);
        all
    }
}

async fn http1_caller(
    mut sender: http1::SendRequest<Full<Bytes>>,
    method: &'static str,
    path: &'static str,
    mut pace: Pace,
    stop: Arc<AtomicBool>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = pace.next().await;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "server");
        let request = request
            .body(Full::new(Bytes::from_static(b"a body")))
            .expect("a request");
        let answer = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            body.collect().await?;
            Ok(Answer {
                status: head.status.as_u16(),
                degraded: head.headers.contains_key("x-weir-degraded"),
                sidecar: head.headers.get("weir-proxy-error").cloned(),
            })
        };
        samples.push(pace.sample(at, answer).await);
    }
    samples
}

async fn grpc_caller(
    mut sender: http2::SendRequest<Full<Bytes>>,
    mut pace: Pace,
    stop: Arc<AtomicBool>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let at = pace.next().await;
        let request = call("Echo", Full::new(message(&[0; 100])));
        let answer = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let head = response.headers().get("grpc-status").cloned();
            let sidecar = response.headers().get("weir-proxy-error").cloned();
            let collected = response.into_body().collect().await?;
            let status = collected
                .trailers()
                .and_then(|trailers| trailers.get("grpc-status").cloned());
            let ok = status.or(head).is_some_and(|status| status == "0");
            Ok(Answer {
                status: if ok { 200 } else { 500 },
                degraded: false,
                sidecar,
            })
        };
        samples.push(pace.sample(at, answer).await);
    }
    samples
}

struct Pace {
    due: Instant,
    every: Duration,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self {
            due: Instant::now(),
            every,
        }
    }

    async fn next(&mut self) -> Instant {
        self.due += self.every;
        tokio::time::sleep_until(self.due.into()).await;
        self.due
    }

    async fn sample(
        &self,
        at: Instant,
        answer: impl Future<Output = Result<Answer, hyper::Error>>,
    ) -> Sample {
        let came = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(came) => came.map_err(|error| format!("{error:?}")),
            Err(_) => Err(format!("nothing within {PATIENCE:?}")),
        };
        Sample {
            at,
            took: at.elapsed(),
            came,
        }
    }
}

/// Panics with what went wrong, unless nothing did.
pub(crate) fn assert_all_served(samples: &[Sample], what: &str) {
    let begun = samples.first().expect("there was load").at;
    let failed: Vec<String> = samples
        .iter()
        .filter(|sample| !matches!(sample.came, Ok(Answer { status: 200, .. })))
        .map(|sample| format!("{:?}: {:?}", sample.at - begun, sample.came))
        .collect();
    let slowest = samples.iter().map(|sample| sample.took).max();
    println!(
        "{what}: {} requests, {} failed, slowest {:?}",
        samples.len(),
        failed.len(),
        slowest.unwrap_or_default()
    );
    assert!(
        failed.is_empty(),
        "{what}: {} of {} failed\n{}",
        failed.len(),
        samples.len(),
        failed.join("\n")
    );
}
