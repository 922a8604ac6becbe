//! One probe of one container: ask, and say why not.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::spec::{ContainerSpec, GrpcAction, HttpGet, PortRef};

/// A health answer is small; more than this is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The number behind a port reference of a probe.
pub fn port(reference: &PortRef, container: &ContainerSpec) -> Result<u16, String> {
    match reference {
        PortRef::Number(number) => Ok(*number),
        PortRef::Name(name) => container
            .port_named(name)
            .ok_or_else(|| format!("container {} has no port named {name}", container.name)),
    }
}

/// Success is any status from 200 to 399, as the kubelet has it.
pub async fn http(action: &HttpGet, address: (IpAddr, u16)) -> Result<(), String> {
    let path = action.path.as_deref().unwrap_or("/");
    let mut request = Request::get(path).header("user-agent", "kube-probe/weir-lab");
    let named = |name: &str| {
        action
            .http_headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
    };
    if !named("host") {
        request = request.header(HOST, format!("{}:{}", address.0, address.1));
    }
    for header in &action.http_headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(text)?;
    let io = TokioIo::new(TcpStream::connect(address).await.map_err(text)?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(text)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(text);
    connection.abort();
    match answer?.status().as_u16() {
        200..=399 => Ok(()),
        status => Err(format!("GET {path} answered {status}")),
    }
}

pub async fn tcp(address: (IpAddr, u16)) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(text)
}

/// `grpc.health.v1.Health/Check`, written by hand: one string in, one enum out.
pub async fn grpc(action: &GrpcAction, address: IpAddr) -> Result<(), String> {
    let service = action.service.as_deref().unwrap_or_default();
    let request = Request::post(format!(
        "http://{}/grpc.health.v1.Health/Check",
        std::net::SocketAddr::from((address, action.port))
    ))
    .header(CONTENT_TYPE, "application/grpc")
    .header(TE, "trailers")
    .body(Full::new(health_request(service)))
    .map_err(text)?;
    let stream = TcpStream::connect((address, action.port))
        .await
        .map_err(text)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(text)?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let in_headers = grpc_status(answer.headers());
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let collected = body.collect().await.map_err(text)?;
        let status = in_headers.or_else(|| collected.trailers().and_then(grpc_status));
        match status.as_deref() {
            Some("0") => health_answer(&collected.to_bytes()),
            Some(status) => Err(format!("health check answered grpc-status {status}")),
            None => Err("health check answered without grpc-status".to_owned()),
        }
    }
    .await;
    connection.abort();
    answer
}

fn grpc_status(headers: &hyper::HeaderMap) -> Option<String> {
    Some(headers.get("grpc-status")?.to_str().ok()?.to_owned())
}

/// `HealthCheckRequest { string service = 1; }` in its gRPC frame.
fn health_request(service: &str) -> Bytes {
    // A name of 128 bytes or more would need a longer length; no health service has one.
    let name = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::new();
    if !name.is_empty() {
        message.extend([0x0a, name.len() as u8]);
        message.extend(name);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: SERVING is 1.
fn health_answer(frame: &[u8]) -> Result<(), String> {
    match frame.get(5..) {
        Some([0x08, 0x01, ..]) => Ok(()),
        Some([0x08, 0x02, ..]) => Err("health check answered NOT_SERVING".to_owned()),
        _ => Err("health check answered UNKNOWN".to_owned()),
    }
}

/// Runs a check, at most as long as the probe allows.
pub async fn within(
    timeout: Duration,
    check: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    tokio::time::timeout(timeout, check)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

fn text(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers its first request with these bytes; hands back what it was asked.
    async fn answering(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        (port, asked)
    }

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn an_http_probe_sends_its_headers_and_takes_a_redirect_for_health() {
        let (port, asked) = answering(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
        let action: HttpGet = serde_json::from_value(serde_json::json!({
            "path": "/ready?full=1", "port": port, "httpHeaders": [{"name": "Cookie", "value": "shop=1"}]
        }))
        .unwrap();
        http(&action, (LOCAL, port)).await.unwrap();
        let asked = asked.await.unwrap().to_lowercase();
        assert!(asked.starts_with("get /ready?full=1 http/1.1"), "{asked}");
        assert!(asked.contains("cookie: shop=1"), "{asked}");
    }

    #[tokio::test]
    async fn an_http_probe_that_is_answered_503_says_so() {
        let (port, _asked) =
            answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let failure = http(&HttpGet::default(), (LOCAL, port)).await.unwrap_err();
        assert_eq!(failure, "GET / answered 503");
    }

    #[tokio::test]
    async fn a_probe_of_a_silent_server_ends_at_its_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = HttpGet::default();
        let check = http(&action, (LOCAL, port));
        let failure = within(Duration::from_millis(50), check).await.unwrap_err();
        assert_eq!(failure, "no answer within 50ms");
    }

    #[test]
    fn health_messages_are_the_bytes_protobuf_would_write() {
        assert_eq!(health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(
            health_request("ab")[..],
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        assert!(health_answer(&[0, 0, 0, 0, 2, 8, 1]).is_ok());
        assert!(health_answer(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(health_answer(&[0, 0, 0, 0, 0]).is_err());
    }
}
