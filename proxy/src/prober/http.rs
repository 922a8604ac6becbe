//! The probe `httpGet`: one request, one status.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{AskError, ProbeResult};

/// As much of the body as the kubelet reads, so that the app is not cut off in the middle of its answer.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// For the head of the answer; hyper's default is six times that.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request but for the address.
#[derive(Debug)]
pub(super) struct Get {
    uri: Uri,
    headers: HeaderMap,
}

impl Get {
    /// The error is a text for the operator.
    pub(super) fn new<'a>(
        path: &str,
        given: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let uri = origin_form(path)
            .parse()
            .map_err(|_| format!("{path:?} is no path"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let refuse = || format!("{name}: {value} is no header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
            let value = HeaderValue::from_str(value).map_err(|_| refuse())?;
            headers.append(name, value);
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(super::USER_AGENT));
        headers
            .entry(ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Self { uri, headers })
    }

    pub(super) async fn ask(
        &self,
        scheme: &str,
        address: SocketAddr,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<ProbeResult, AskError> {
        let mut request = Request::get(self.uri.clone()).body(Empty::<Bytes>::new())?;
        *request.headers_mut() = self.headers.clone();
        let host = address.to_string();
        request
            .headers_mut()
            .entry(HOST)
            .or_insert(host.parse().expect("an address is a header value"));

        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let exchange = async {
            let mut response = sender.send_request(request).await?;
            let mut read = 0;
            while read < BODY_BYTES_MAX
                && let Some(Ok(frame)) = response.frame().await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            Ok(response.status())
        };
        let status = super::drive(exchange, connection).await?;
        // A redirect counts: the kubelet, too, takes "elsewhere" for healthy when it does not follow.
        let ok = status.is_success() || status.is_redirection();
        let detail = format!("GET {scheme}://{address}{} answered {status}", self.uri);
        Ok(ProbeResult {
            ok,
            status: Some(status.as_u16()),
            detail,
        })
    }
}

/// As the kubelet makes it: with a slash in front, and percent-encoded where a URI needs it.
fn origin_form(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => {
                uri += &format!("%{byte:02X}")
            }
            b'!'..=b'~' => uri.push(byte.into()),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}
