//! The mesh's certificate authority: a chain of anchors, of which one signs.
//!
//! ```text
//!               introduced          settled                    successor settled + a leaf's life
//!   (absent) ───────────▶ trusted ──────────▶ signs ─ … ─ trusted ──────────▶ (absent)
//! ```
//!
//! An anchor is pushed to every sidecar before it signs anything, and trusted until the last leaf that it signed
//! has expired. Each anchor's stage follows from when the anchors were introduced and what time it is: there is
//! nothing else to keep, and nothing that a restart could forget.
//!
//! Anchors carry no name constraints: webpki refuses any chain with URI constraints, so every verifier of the
//! mesh checks the trust domain itself.

mod store;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::spiffe::SpiffeId;

/// Certificates are valid a little before they are made, for peers whose clocks are behind.
pub const BACKDATED_BY: Duration = Duration::from_secs(5 * 60);
const ANCHOR_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("an anchor of the CA cannot be read: {problem}")]
    Anchor { problem: String },
    #[error("the CA has no anchor")]
    NoAnchor,
    #[error("making a certificate failed: {0}")]
    Certificate(#[from] rcgen::Error),
}

#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    pub trust_domain: String,
    pub leaf_lifetime: Duration,
    /// How long an anchor is only trusted before it signs.
    pub settle: Duration,
}

#[derive(Debug)]
pub struct Authority {
    config: AuthorityConfig,
    /// Where anchors are kept; `None`: somebody else sees to that.
    folder: Option<PathBuf>,
    /// Oldest first; never empty.
    anchors: Vec<Anchor>,
}

#[derive(Debug)]
struct Anchor {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    introduced: SystemTime,
    expires: SystemTime,
}

/// An anchor that nobody trusts yet.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Its place in the order of all, by which it is kept.
    pub number: u32,
    /// Certificate and key.
    pub pem: String,
}

/// A leaf as it goes out: no intermediates, so the chain is the leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    pub expires: SystemTime,
    pub serial: String,
}

impl Authority {
    /// Reads the anchors in `folder`, and makes the first one when there is none.
    pub fn open(
        folder: &Path,
        config: AuthorityConfig,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let anchors = store::read(folder)?;
        let mut authority = Self {
            config,
            folder: Some(folder.to_owned()),
            anchors,
        };
        if authority.anchors.is_empty() {
            // Nobody trusts anything yet: the first anchor has nobody to wait for.
            authority.introduce(now)?;
        }
        Ok(authority)
    }

    /// Of anchors that are kept elsewhere, oldest first.
    pub fn from_pems<'a>(
        config: AuthorityConfig,
        pems: impl IntoIterator<Item = &'a String>,
    ) -> Result<Self, AuthorityError> {
        let mut authority = Self {
            config,
            folder: None,
            anchors: Vec::new(),
        };
        for pem in pems {
            authority.adopt(pem)?;
        }
        match authority.anchors.is_empty() {
            true => Err(AuthorityError::NoAnchor),
            false => Ok(authority),
        }
    }

    /// Adds an anchor: trusted from now on, signing after the settling time.
    pub fn introduce(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        let number = self.folder.as_deref().map_or(Ok(1), store::next_number)?;
        let minted = Minted::new(&self.config, number, now)?;
        if let Some(folder) = &self.folder {
            store::write(folder, &minted)?;
        }
        self.adopt(&minted.pem)
    }

    /// Trusts an anchor that is kept by now. One that it has already stays as it is.
    pub fn adopt(&mut self, pem: &str) -> Result<(), AuthorityError> {
        let anchor = store::parse(pem).map_err(|problem| AuthorityError::Anchor { problem })?;
        let is_known = |known: &Anchor| known.certificate == anchor.certificate;
        if !self.anchors.iter().any(is_known) {
            self.anchors.push(anchor);
        }
        Ok(())
    }

    /// Signs `key` for `owner`. The names, the usages and the life are ours to say. The pod's name is for the control
    /// plane alone: identity is the service account's, and all its pods are one to their peers.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        owner: &SpiffeId,
        pod: Option<&str>,
        now: SystemTime,
    ) -> Result<Leaf, AuthorityError> {
        let names = vec![SanType::URI(owner.to_string().try_into()?)];
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(key, names, pod, usages, now)
    }

    /// For a server that peers outside the mesh know by a name of DNS. Nobody in the mesh accepts it.
    pub fn issue_for_names(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        now: SystemTime,
    ) -> Result<Leaf, AuthorityError> {
        let names = names.iter().map(|name| name.as_str().try_into());
        let names = names.map(|name| name.map(SanType::DnsName));
        let names = names.collect::<Result<_, rcgen::Error>>()?;
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(key, names, None, usages, now)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        pod: Option<&str>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        now: SystemTime,
    ) -> Result<Leaf, AuthorityError> {
        let anchor = self.signing(now);
        let expires = (now + self.config.leaf_lifetime).min(anchor.expires);
        let mut params = blank_params(now, expires);
        params.subject_alt_names = names;
        if let Some(pod) = pod {
            params.distinguished_name.push(DnType::CommonName, pod);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let serial = fastrand::u128(..) >> 1; // RFC 5280: a positive number of at most 20 bytes
        params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
        let certificate = params.signed_by(key, &anchor.issuer)?;
        Ok(Leaf {
            certificate: certificate.der().clone(),
            expires,
            serial: format!("{serial:032x}"),
        })
    }

    /// What every verifier of the mesh has to trust now, oldest first.
    pub fn trust_bundle(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        self.trusted(now)
            .map(|anchor| anchor.certificate.clone())
            .collect()
    }

    /// The same as text, for a file.
    pub fn trust_bundle_pem(&self, now: SystemTime) -> String {
        self.trusted(now)
            .map(|anchor| anchor.pem.as_str())
            .collect()
    }

    fn trusted(&self, now: SystemTime) -> impl Iterator<Item = &Anchor> {
        let retired = move |index: usize| {
            let successor = self.anchors.get(index + 1);
            // Leaves may have been signed until the successor settled, and may be used by clocks that are behind.
            let last_leaf_expires = |successor: &Anchor| {
                successor.introduced + self.config.settle + self.config.leaf_lifetime + BACKDATED_BY
            };
            successor.is_some_and(|successor| last_leaf_expires(successor) <= now)
        };
        let anchors = self.anchors.iter().enumerate();
        let kept = anchors.filter(move |(index, anchor)| !retired(*index) && anchor.expires > now);
        kept.map(|(_, anchor)| anchor)
    }

    /// Whether the newest anchor has lived half its life, so that its successor should be introduced.
    pub fn wants_successor(&self, now: SystemTime) -> bool {
        self.anchors
            .last()
            .is_some_and(|newest| newest.introduced + ANCHOR_LIFETIME / 2 <= now)
    }

    pub fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    /// The newest anchor that has settled, else the oldest.
    fn signing(&self, now: SystemTime) -> &Anchor {
        let settled = self
            .anchors
            .iter()
            .rev()
            .find(|anchor| anchor.introduced + self.config.settle <= now);
        settled
            .or(self.anchors.first())
            .expect("an authority has an anchor from the start")
    }
}

impl Minted {
    /// `number`: one that no anchor has where this one is to be kept (see [`next_number`]).
    pub fn new(
        config: &AuthorityConfig,
        number: u32,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = blank_params(now, now + ANCHOR_LIFETIME);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Weir");
        // Different for each: a verifier picks the anchor by this name.
        let common_name = format!(
            "{} CA {number} {:08x}",
            config.trust_domain,
            fastrand::u32(..)
        );
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        Ok(Self { number, pem })
    }

    /// What it is kept as: the order of these names is that of the anchors.
    pub fn file_name(&self) -> String {
        format!("{:04}.pem", self.number)
    }
}

/// After the highest of those that are kept under `names`. Their count says nothing: an old one may have been removed.
pub fn next_number<'a>(names: impl IntoIterator<Item = &'a str>) -> u32 {
    let numbers = (names.into_iter())
        .filter_map(|name| name.strip_suffix(".pem"))
        .filter_map(|number| number.parse::<u32>().ok());
    numbers.max().unwrap_or_default().saturating_add(1)
}

impl Anchor {
    fn new(
        certificate: CertificateDer<'static>,
        pem: String,
        key: KeyPair,
    ) -> Result<Self, AuthorityError> {
        let (not_before, expires) =
            validity(&certificate).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            pem,
            introduced: not_before + BACKDATED_BY,
            expires,
        })
    }
}

fn blank_params(now: SystemTime, expires: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - BACKDATED_BY).into();
    params.not_after = expires.into();
    params
}

/// Not before, not after.
pub fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let at = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    Some((
        at(certificate.validity().not_before)?,
        at(certificate.validity().not_after)?,
    ))
}

#[cfg(test)]
mod tests;
