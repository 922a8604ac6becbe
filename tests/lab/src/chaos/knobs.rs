//! The knobs of a service, turned in its own pod: they listen on loopback only.

use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::client::Client;
use crate::error::{Error, Result};

const PATH: &str = "/boutique.v1.Chaos/Set";
const AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// `boutique.v1.Knobs`.
#[derive(Clone, Copy, PartialEq, Deserialize, prost::Message)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Knobs {
    #[prost(int32, tag = "1")]
    pub latency_ms: i32,
    #[prost(int32, tag = "2")]
    pub error_percent: i32,
    #[prost(int32, tag = "3")]
    pub code: i32,
    #[prost(int32, tag = "4")]
    pub slots: i32,
    #[prost(int32, tag = "5")]
    pub service_ms: i32,
    #[prost(bool, tag = "6")]
    pub freeze: bool,
}

impl Knobs {
    pub(super) fn mistake(&self) -> Option<String> {
        if *self == Self::default() {
            return Some("knobs that are all at nought do nothing".into());
        }
        let numbers = [self.latency_ms, self.slots, self.service_ms, self.code];
        let negative = numbers.iter().any(|number| *number < 0);
        let out = negative || !(0..=100).contains(&self.error_percent) || self.code > 16;
        out.then(|| {
            "knobs are 0 or more, errorPercent 0 to 100, code a gRPC status of 0 to 16".into()
        })
    }

    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if self.latency_ms > 0 {
            parts.push(format!("+{} ms", self.latency_ms));
        }
        if self.error_percent > 0 {
            parts.push(format!("{} % errors", self.error_percent));
        }
        if self.slots > 0 {
            parts.push(format!(
                "{} at once, {} ms each",
                self.slots, self.service_ms
            ));
        }
        if self.freeze {
            parts.push("never answers".into());
        }
        parts.join(", ")
    }
}

/// Turns them; a service that is just starting is waited for until then.
pub async fn turn(lab: &Client, pod: &str, port: u16, to: Knobs, until: Instant) -> Result<()> {
    loop {
        match set(lab, pod, port, to).await {
            Ok(now) if now == to || (to.code == 0 && now.error_percent == to.error_percent) => {
                return Ok(());
            }
            Ok(now) => {
                return Err(Error::Request(format!(
                    "{pod} has other knobs than it was told: {}",
                    now.describe()
                )));
            }
            Err(error) if Instant::now() >= until => {
                return Err(Error::Request(format!(
                    "the knobs of {pod} could not be turned: {error}"
                )));
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

pub(super) type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn set(lab: &Client, pod: &str, port: u16, to: Knobs) -> Result<Knobs, AnyError> {
    let mut client = tonic::client::Grpc::new(channel(lab, pod, port).await?);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<Knobs, Knobs>::default();
    let path = hyper::http::uri::PathAndQuery::from_static(PATH);
    let answer = client.unary(tonic::Request::new(to), path, codec).await?;
    Ok(answer.into_inner())
}

/// To a port on a pod's loopback.
pub(super) async fn channel(lab: &Client, pod: &str, port: u16) -> Result<Channel, AnyError> {
    let (lab, pod) = (lab.clone(), pod.to_owned());
    let connect = service_fn(move |_| {
        let (lab, pod) = (lab.clone(), pod.clone());
        async move {
            let dial = move || lab.dial(Some(&pod), &format!("127.0.0.1:{port}"));
            let stream = tokio::task::spawn_blocking(dial).await??;
            stream.set_nonblocking(true)?;
            Ok::<_, AnyError>(TokioIo::new(TcpStream::from_std(stream)?))
        }
    });
    let endpoint = Endpoint::from_static("http://pod");
    Ok(endpoint.connect_with_connector(connect).await?)
}
