//! Trust over time: anchors are succeeded, the bundle goes to whoever verifies, the server's own certificate is renewed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prost::bytes::Bytes;
use rustls::server::ServerConfig;

use crate::authority::{Authority, AuthorityError};
use crate::journal::{Fact, Journal};
use crate::kubernetes::ca_secret::CaSecret;
use crate::mesh::Mesh;
use crate::tls;

/// Keeps the anchors young, the bundle published and the server's own certificate fresh.
pub struct TrustKeeper {
    pub authority: Arc<Mutex<Authority>>,
    pub mesh: Mesh,
    pub journal: Journal,
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// The webhook's names, and what it serves with.
    pub webhook: Option<(Vec<String>, Arc<ArcSwap<ServerConfig>>)>,
    /// On Kubernetes the CA is in a Secret.
    pub secret: Option<CaSecret>,
    pub bundle_out: Option<PathBuf>,
    pub renew_every: Duration,
}

impl TrustKeeper {
    pub async fn run(self) {
        // Often enough for the shortest lives (tests), seldom enough to cost nothing.
        let every = self
            .renew_every
            .clamp(Duration::from_secs(1), Duration::from_secs(60));
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(every).await;
            match &self.secret {
                None => {
                    if let Err(error) = self.introduce_successor() {
                        tracing::error!(%error, "no new trust anchor could be made");
                    }
                }
                Some(secret) => match secret.tend(&self.authority).await {
                    Ok(true) => self.note_introduced(),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the CA's Secret could not be looked after")
                    }
                },
            }
            let before = self.mesh.trust_bundle();
            if let Err((path, error)) = self.publish() {
                tracing::error!(path = %path.display(), %error, "the trust bundle could not be published");
            }
            if before == self.mesh.trust_bundle() && renewed.elapsed() < self.renew_every {
                continue;
            }
            match self.renew() {
                Ok(()) => renewed = tokio::time::Instant::now(),
                Err(error) => tracing::error!(error, "the server's certificate was not renewed"),
            }
        }
    }

    fn renew(&self) -> Result<(), String> {
        self.tls.store(Arc::new(tls_config(&self.authority)?));
        if let Some((names, tls)) = &self.webhook {
            tls.store(Arc::new(webhook_config(&self.authority, names)?));
        }
        Ok(())
    }

    fn introduce_successor(&self) -> Result<(), AuthorityError> {
        let mut authority = self
            .authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if !authority.wants_successor(now) {
            return Ok(());
        }
        authority.introduce(now)?;
        drop(authority);
        self.note_introduced();
        Ok(())
    }

    fn note_introduced(&self) {
        let authority = self.authority.lock();
        let authority = authority.unwrap_or_else(PoisonError::into_inner);
        self.journal.note(Fact::TrustAnchorIntroduced {
            anchors: authority.trust_bundle(SystemTime::now()).len(),
        });
    }

    /// To the sidecars and to the file.
    pub fn publish(&self) -> Result<(), (PathBuf, io::Error)> {
        let authority = self
            .authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let (bundle, pem) = (authority.trust_bundle(now), authority.trust_bundle_pem(now));
        drop(authority);
        let bundle: Vec<Bytes> = bundle
            .iter()
            .map(|anchor| Bytes::copy_from_slice(anchor))
            .collect();
        if *self.mesh.trust_bundle() != *bundle {
            self.mesh.set_trust_bundle(bundle);
        }
        match &self.bundle_out {
            Some(path) if std::fs::read_to_string(path).ok().as_ref() != Some(&pem) => {
                write_whole(path, &pem).map_err(|error| (path.clone(), error))
            }
            _ => Ok(()),
        }
    }
}

/// Of this moment.
pub fn tls_config(authority: &Mutex<Authority>) -> Result<ServerConfig, String> {
    let authority = authority.lock().unwrap_or_else(PoisonError::into_inner);
    tls::server_config(&authority, SystemTime::now()).map_err(|error| error.to_string())
}

pub fn webhook_config(
    authority: &Mutex<Authority>,
    names: &[String],
) -> Result<ServerConfig, String> {
    let authority = authority.lock().unwrap_or_else(PoisonError::into_inner);
    let config = tls::webhook_config(&authority, names, SystemTime::now());
    config.map_err(|error| error.to_string())
}

/// Whoever reads it reads all of it: written beside, then renamed.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
