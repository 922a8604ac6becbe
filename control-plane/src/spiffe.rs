//! SPIFFE identities: the only names there are in the mesh.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The SPIFFE standard's bound on a whole id.
const ID_BYTES_MAX: usize = 2048;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, compared as parsed parts, never by pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error(
        "{0:?} is no identity of a workload: expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
    )]
    Malformed(String),
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate has {0} names; it must have exactly one, a SPIFFE id")]
    Names(usize),
    #[error("the certificate is a CA's, not a workload's")]
    IsCa,
}

impl SpiffeId {
    /// `None` when a part is no Kubernetes name (or, for the trust domain, no lower-case DNS name).
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Option<Self> {
        let valid = is_name(trust_domain) && is_name(namespace) && is_name(service_account);
        valid.then(|| Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// The control plane's own.
    pub fn control_plane(trust_domain: &str) -> Option<Self> {
        Self::new(trust_domain, "weir-system", "weir-control-plane")
    }

    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let parse = || {
            let rest = text
                .strip_prefix("spiffe://")
                .filter(|_| text.len() <= ID_BYTES_MAX)?;
            let mut parts = rest.split('/');
            let (domain, ns, namespace) = (parts.next()?, parts.next()?, parts.next()?);
            let (sa, account) = (parts.next()?, parts.next()?);
            if ns != "ns" || sa != "sa" || parts.next().is_some() {
                return None;
            }
            Self::new(domain, namespace, account)
        };
        parse().ok_or_else(|| SpiffeError::Malformed(text.chars().take(256).collect()))
    }

    /// The identity in a leaf certificate whose chain is verified already (X509-SVID, section 5.2).
    pub fn of_certificate(der: &[u8]) -> Result<Self, SpiffeError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| SpiffeError::Unreadable)?;
        if certificate.is_ca() {
            return Err(SpiffeError::IsCa);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| SpiffeError::Unreadable)?;
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        match names {
            [GeneralName::URI(uri)] => Self::parse(uri),
            _ => Err(SpiffeError::Names(names.len())),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(
            f,
            "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
        )
    }
}

/// The pod for whose sidecar our CA made the certificate. `None`: a control plane of before that was written down did.
pub fn pod_of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// A DNS subdomain in lower case: what Kubernetes takes as a name, and free of everything that means something
/// in a path or a URI.
pub fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| letter(*byte))
            && bytes.last().is_some_and(|byte| letter(*byte))
            && bytes.iter().all(|byte| letter(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        let text = "spiffe://weir.local/ns/boutique/sa/checkout";
        assert_eq!(SpiffeId::parse(text).expect("in order").to_string(), text);
    }

    #[test]
    fn everything_that_only_looks_like_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "http://weir.local/ns/a/sa/b",
            "spiffe://weir.local/ns/a/sa/b/",
            "spiffe://weir.local/ns/a/sa/b/c",
            "spiffe://weir.local/ns//sa/b",
            "spiffe://weir.local/ns/a/sa/..",
            "spiffe://weir.local/ns/a/sa/%62",
            "spiffe://WEIR.local/ns/a/sa/b",
            "spiffe://weir.local:80/ns/a/sa/b",
            "spiffe://user@weir.local/ns/a/sa/b",
            "spiffe://weir.local/ns/a/sa/b?x",
            "spiffe://weir.local/ns/a/sa/b\0",
            "spiffe://weir.local/sa/a/ns/b",
            &format!("spiffe://weir.local/ns/a/sa/{}", "b".repeat(3000)),
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
