//! The mesh's CA in a Secret: shared by all control planes, changed by the holder of the Lease.
//!
//! ```text
//!   (start) no Secret ──▶ made, with the first anchor; of two who make it one reads the other's
//!           an empty one ──▶ gets the first anchor, in the same way
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
use crate::authority::{Authority, AuthorityConfig, AuthorityError, Minted, next_number};
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
    #[error("key {0} is in use: no anchor is written over another")]
    Taken(String),
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
        loop {
            let found = self.secrets.get_opt(CA_SECRET).await?;
            if let Some(secret) = &found {
                let anchors = anchors(secret)?;
                if !anchors.is_empty() {
                    return Ok(Authority::from_pems(config.clone(), anchors.values())?);
                }
            }
            match self.add_first(found, config).await {
                // Another control plane was faster: its CA is the mesh's.
                Err(SecretError::Api(kube::Error::Api(status))) if status.code == 409 => {}
                added => return added,
            }
        }
    }

    /// To the Secret that was found, at the version that was read, or to a new one.
    async fn add_first(
        &self,
        found: Option<DynamicObject>,
        config: &AuthorityConfig,
    ) -> Result<Authority, SecretError> {
        let params = PostParams::default();
        let first = |secret: &mut DynamicObject| add(secret, config, SystemTime::now());
        let minted = match found {
            Some(mut secret) => {
                let minted = first(&mut secret)?;
                self.secrets.replace(CA_SECRET, &params, &secret).await?;
                minted
            }
            None => {
                let resource = builtin("", "v1", "Secret", "secrets");
                let mut secret = DynamicObject::new(CA_SECRET, &resource);
                secret.data = json!({ "type": "weir.dev/ca", "data": {} });
                let minted = first(&mut secret)?;
                self.secrets.create(&params, &secret).await?;
                minted
            }
        };
        Ok(Authority::from_pems(config.clone(), [&minted.pem])?)
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
        let config = lock(authority).config().clone();
        let minted = add(&mut secret, &config, now)?;
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

/// A new anchor, under a key that none has.
fn add(
    secret: &mut DynamicObject,
    config: &AuthorityConfig,
    now: SystemTime,
) -> Result<Minted, SecretError> {
    let keys = secret.data["data"].as_object().into_iter().flatten();
    let number = next_number(keys.map(|(key, _)| key.as_str()));
    let minted = Minted::new(config, number, now)?;
    let key = minted.file_name();
    if secret.data["data"].get(&key).is_some() {
        return Err(SecretError::Taken(key));
    }
    secret.data["data"][key] = json!(STANDARD.encode(&minted.pem));
    Ok(minted)
}

fn lock(authority: &Mutex<Authority>) -> MutexGuard<'_, Authority> {
    authority.lock().unwrap_or_else(PoisonError::into_inner)
}
