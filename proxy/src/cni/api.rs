//! The API server, asked for one thing at a time: one connection, one answer, and nothing that a client library brings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From the name's address to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(8);
/// A node has some hundred pods, each of some ten thousand bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Of a single object what matters here is in its metadata, and that is all a server that can sends.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{path}: {why}")]
    Kubeconfig { path: String, why: String },
    #[error("the API server does not take these credentials ({status})")]
    Denied { status: StatusCode },
    #[error("the API server knows no such pod")]
    Unknown,
    #[error("the API server answers {status}")]
    Refused { status: StatusCode },
    #[error("the API server {server}: {why}")]
    Unreachable { server: String, why: String },
}

/// Who is asked, and as whom. Kept in the form of a kubeconfig, so that kubectl may use it, too.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// `https://host:port`
    pub(super) server: String,
    /// PEM.
    pub(super) authority: String,
    pub(super) token: String,
}

impl Credentials {
    /// A kubeconfig; JSON is YAML.
    pub(super) fn kubeconfig(&self) -> String {
        let name = super::NAME;
        let cluster = json!({ "server": self.server, "certificate-authority-data": BASE64.encode(&self.authority) });
        let all = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": name, "cluster": cluster }],
            "users": [{ "name": name, "user": { "token": self.token } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
            "current-context": name,
        });
        format!("{all:#}\n")
    }

    pub(super) fn read(kubeconfig: &str) -> Result<Self, String> {
        let read: Value = serde_json::from_str(kubeconfig).map_err(|error| error.to_string())?;
        let text = |pointer: &str| {
            let found = read
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty());
            found
                .map(str::to_owned)
                .ok_or_else(|| format!("there is no {pointer}"))
        };
        let authority = BASE64.decode(text("/clusters/0/cluster/certificate-authority-data")?);
        Ok(Self {
            server: text("/clusters/0/cluster/server")?,
            authority: String::from_utf8(authority.map_err(|error| error.to_string())?)
                .map_err(|error| error.to_string())?,
            token: text("/users/0/user/token")?,
        })
    }
}

pub(super) struct Api {
    credentials: Credentials,
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Api {
    pub(super) fn read(kubeconfig: &Path) -> Result<Self, ApiError> {
        let wrong = |why: String| ApiError::Kubeconfig {
            path: kubeconfig.display().to_string(),
            why,
        };
        let text = std::fs::read_to_string(kubeconfig).map_err(|error| wrong(error.to_string()))?;
        Credentials::read(&text).and_then(Self::new).map_err(wrong)
    }

    pub(super) fn new(credentials: Credentials) -> Result<Self, String> {
        let uri: Uri = credentials
            .server
            .parse()
            .map_err(|error| format!("{}: {error}", credentials.server))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| format!("{} is no https://HOST:PORT", credentials.server))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(credentials.authority.as_bytes()) {
            let added = certificate
                .map_err(|error| error.to_string())
                .map(|one| roots.add(one));
            added?.map_err(|error| format!("the certificate authority: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(443),
            credentials,
            tls: Arc::new(tls),
        })
    }

    /// Blocks; not to be called from within an async runtime.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| self.unreachable(error))?;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        runtime.block_on(self.ask(Method::GET, &path, METADATA, None))
    }

    /// All of a node's pods.
    pub(super) async fn pods_of(&self, node: &str) -> Result<Vec<Value>, ApiError> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        let mut list = self
            .ask(Method::GET, &path, "application/json", None)
            .await?;
        Ok(match list["items"].take() {
            Value::Array(pods) => pods,
            _ => Vec::new(),
        })
    }

    /// That very pod, and not one that has its name by now.
    pub(super) async fn delete(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let that =
            json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        self.ask(Method::DELETE, &path, "application/json", Some(that))
            .await
            .map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Value>,
    ) -> Result<Value, ApiError> {
        let answered =
            tokio::time::timeout(TIME_MAX, self.exchange(method, path, accept, body)).await;
        let (status, bytes) = answered.unwrap_or_else(|_| {
            Err(self.unreachable(format!("no answer within {} s", TIME_MAX.as_secs())))
        })?;
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => {
                serde_json::from_slice(&bytes).map_err(|error| self.unreachable(error))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ApiError::Denied { status }),
            StatusCode::NOT_FOUND => Err(ApiError::Unknown),
            status => Err(ApiError::Refused { status }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let unreachable = |error: &dyn std::fmt::Display| self.unreachable(error);
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| unreachable(&error))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(&error))?;
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .map_err(|error| unreachable(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header(
                "authorization",
                format!("Bearer {}", self.credentials.token),
            )
            .header("accept", accept)
            .header("content-type", "application/json")
            .header(
                "user-agent",
                concat!("weir-cni/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        let status = response.status();
        let whole = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let bytes = whole.map_err(|error| match error.is::<LengthLimitError>() {
            true => unreachable(&format!("more than {ANSWER_BYTES_MAX} bytes")),
            false => unreachable(&error),
        })?;
        Ok((status, bytes.to_bytes()))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::Unreachable {
            server: self.credentials.server.clone(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_says_again_what_it_was_told() {
        let credentials = Credentials {
            server: "https://10.96.0.1:443".into(),
            authority: "PEM\n".into(),
            token: "secret".into(),
        };
        let text = credentials.kubeconfig();
        assert!(
            Credentials::read(&text).is_ok_and(|read| read == credentials),
            "{text}"
        );
        for (missing, instead) in [
            ("\"token\"", "\"no\""),
            ("\"server\"", "\"no\""),
            ("UEVNCg==", "&"),
            ("{", ""),
        ] {
            assert!(
                Credentials::read(&text.replace(missing, instead)).is_err(),
                "{missing}"
            );
        }
    }

    #[test]
    fn only_a_server_with_tls_is_asked() {
        for server in ["http://10.96.0.1", "10.96.0.1:443", "", "https://"] {
            let credentials = Credentials {
                server: server.into(),
                authority: String::new(),
                token: "secret".into(),
            };
            assert!(Api::new(credentials).is_err(), "{server}");
        }
    }
}
