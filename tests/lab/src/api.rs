//! As much of an API server as a CNI plugin asks: one pod, over TLS, for whoever has the token.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::error::{Doing, Error, Result};

type Pods = BTreeMap<(String, String), Value>;

#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    authority: String,
    token: String,
    pods: Arc<Mutex<Pods>>,
}

impl Api {
    /// On loopback of the node, until the lab ends.
    pub async fn serve() -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::Lab(format!("the API server's certificate: {error}"))
        };
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
            .map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![made.cert.der().clone()], key)
            })
            .map_err(|error| wrong(&error))?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .doing(|| "listen as an API server".to_owned())?;
        let api = Self {
            address: listener
                .local_addr()
                .doing(|| "listen as an API server".to_owned())?,
            authority: made.cert.pem(),
            token: format!("{:032x}", fastrand::u128(..)),
            pods: Arc::default(),
        };
        tokio::spawn(accept(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            api.token.clone(),
            api.pods.clone(),
        ));
        Ok(api)
    }

    pub fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    /// PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn know(&self, namespace: &str, name: &str, pod: &Value) {
        let key = (namespace.to_owned(), name.to_owned());
        locked(&self.pods).insert(key, pod.clone());
    }

    /// Unless it is its successor that has the name by now.
    pub fn forget(&self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut pods = locked(&self.pods);
        if pods
            .get(&key)
            .is_some_and(|pod| pod["metadata"]["uid"] == uid)
        {
            pods.remove(&key);
        }
    }
}

fn locked(pods: &Mutex<Pods>) -> MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, token: String, pods: Arc<Mutex<Pods>>) {
    // Who comes is a plugin on this node; when listening fails the lab is ending.
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, token, pods) = (tls.clone(), token.clone(), pods.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else {
                return;
            };
            let service = service_fn(move |request| {
                let answer = answer(&request, &token, &pods);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, token: &str, pods: &Mutex<Pods>) -> Response<Full<Bytes>> {
    let shown = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let path: Vec<&str> = request.uri().path().split('/').collect();
    let (status, body) = match (request.method(), path.as_slice()) {
        _ if shown != Some(&format!("Bearer {token}")) => {
            (StatusCode::UNAUTHORIZED, json!({ "kind": "Status" }))
        }
        (&Method::GET, ["", "api", "v1", "namespaces", namespace, "pods", name]) => {
            match locked(pods).get(&((*namespace).to_owned(), (*name).to_owned())) {
                Some(pod) => (StatusCode::OK, pod.clone()),
                None => (StatusCode::NOT_FOUND, json!({ "kind": "Status" })),
            }
        }
        _ => (StatusCode::FORBIDDEN, json!({ "kind": "Status" })),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}
