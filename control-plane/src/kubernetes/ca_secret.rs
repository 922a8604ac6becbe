//! The mesh's CA in a Secret: shared by all control planes, changed by the holder of the Lease.
//!
//! ```text
//!   (start) no Secret ──▶ made, with the first anchor; of two who make it one reads the other's
//!   (later) read again and again: an anchor that another control plane introduced is trusted from then on
//!   holder: half an anchor's life is over, or the Secret is annotated ──▶ a successor is added
//! ```
//!
//! What a key signs is only trusted everywhere once the anchor has settled (see [`Authority`]), which is much longer
//! than a control plane takes to read the Secret.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::trust::builtin;
use crate::authority::{Authority, AuthorityConfig, AuthorityError, Minted};
use crate::source::kubernetes::chain;

pub const CA_SECRET: &str = "weir-ca";
/// `kubectl annotate secret weir-ca weir.dev/rotate-ca=now` asks for a new anchor.
pub const ROTATE_ANNOTATION: &str = "weir.dev/rotate-ca";
const RETRY_AFTER: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct CaSecret {
    secrets: Api<DynamicObject>,
    held: watch::Receiver<bool>,
}

/// Why the Secret could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{}", chain(.0))]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the API server does not answer")]
    Silent,
    #[error("key {0} is not text in base64")]
    Encoding(String),
}

impl CaSecret {
    pub fn new(client: Client, namespace: &str, held: watch::Receiver<bool>) -> Self {
        let resource = builtin("", "v1", "Secret", "secrets");
        Self {
            secrets: Api::namespaced_with(client, namespace, &resource),
            held,
        }
    }

    /// Waits for an API server that is away; a Secret that cannot be read as a CA is an error, never a reason for a
    /// new one: that would cut off every sidecar that trusts the old one.
    pub async fn open(&self, config: &AuthorityConfig) -> Result<Authority, SecretError> {
        loop {
            let opened = tokio::time::timeout(PATIENCE, self.try_open(config)).await;
            match opened.unwrap_or(Err(SecretError::Silent)) {
                Err(error @ (SecretError::Api(_) | SecretError::Silent)) => {
                    let error = error.to_string();
                    tracing::warn!(secret = CA_SECRET, error, "waiting for the CA");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(&self, config: &AuthorityConfig) -> Result<Authority, SecretError> {
        if let Some(secret) = self.secrets.get_opt(CA_SECRET).await? {
            let anchors = anchors(&secret)?;
            if !anchors.is_empty() {
                return Ok(Authority::from_pems(config.clone(), anchors.values())?);
            }
        }
        let mut authority = Authority::from_pems(config.clone(), [])?;
        let minted = authority.mint(SystemTime::now())?;
        let resource = builtin("", "v1", "Secret", "secrets");
        let mut secret = DynamicObject::new(CA_SECRET, &resource);
        secret.data = json!({ "type": "weir.dev/ca", "data": {} });
        add(&mut secret, &minted);
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => authority.adopt(&minted.pem)?,
            // Another control plane was faster: its CA is the mesh's.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let secret = self.secrets.get(CA_SECRET).await?;
                return Ok(Authority::from_pems(
                    config.clone(),
                    anchors(&secret)?.values(),
                )?);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(authority)
    }

    /// Takes over what others added, and adds a successor when it is time and ours to do. Whether one was added.
    pub async fn tend(&self, authority: &Mutex<Authority>) -> Result<bool, SecretError> {
        let tended = tokio::time::timeout(PATIENCE, self.try_tend(authority)).await;
        tended.unwrap_or(Err(SecretError::Silent))
    }

    async fn try_tend(&self, authority: &Mutex<Authority>) -> Result<bool, SecretError> {
        let mut secret = self.secrets.get(CA_SECRET).await?;
        for pem in anchors(&secret)?.values() {
            lock(authority).adopt(pem)?;
        }
        let annotations = secret.metadata.annotations.as_mut();
        let asked = annotations.and_then(|it| it.remove(ROTATE_ANNOTATION));
        let now = SystemTime::now();
        let due = asked.is_some() || lock(authority).wants_successor(now);
        if !due || !*self.held.borrow() {
            return Ok(false);
        }
        let minted = lock(authority).mint(now)?;
        add(&mut secret, &minted);
        // In the Secret before it is trusted, and with the version that was read.
        self.secrets
            .replace(CA_SECRET, &PostParams::default(), &secret)
            .await?;
        lock(authority).adopt(&minted.pem)?;
        Ok(true)
    }
}

/// Certificate and key of each anchor, oldest first.
fn anchors(secret: &DynamicObject) -> Result<BTreeMap<String, String>, SecretError> {
    let data = secret.data["data"].as_object().into_iter().flatten();
    let pems = data.filter(|(name, _)| name.ends_with(".pem"));
    let decode = |(name, value): (&String, &Value)| {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| SecretError::Encoding(name.clone()))?;
        Ok((name.clone(), text))
    };
    pems.map(decode).collect()
}

fn add(secret: &mut DynamicObject, minted: &Minted) {
    let name = format!("{:04}.pem", minted.number);
    secret.data["data"][name] = json!(STANDARD.encode(&minted.pem));
}

fn lock(authority: &Mutex<Authority>) -> MutexGuard<'_, Authority> {
    authority.lock().unwrap_or_else(PoisonError::into_inner)
}
