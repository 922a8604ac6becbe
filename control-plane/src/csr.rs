//! Certificate signing requests: hostile bytes in, a public key out.
//!
//! Names never come from a request, they come from the token's owner. A request that asks for more than its due is
//! refused rather than trimmed: whoever asks for another name is confused or lying, and both want to be seen.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

use crate::spiffe::SpiffeId;

/// Far above any request with one key and one name.
const CSR_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("the certificate request is {0} bytes long; the limit is {CSR_BYTES_MAX}")]
    TooLong(usize),
    #[error("the certificate request is not PKCS#10 in DER")]
    Unreadable,
    #[error("the certificate request is not signed by its own key")]
    Signature,
    #[error("the certificate request asks for a CA certificate")]
    WantsCa,
    #[error(
        "the certificate request names {found}, which its token does not: only {expected} can be had, or no name at all"
    )]
    WrongName { found: String, expected: String },
    #[error("the certificate request has an extension that no workload needs")]
    Extension,
    #[error(
        "the certificate request has {0}; expected an ECDSA key on P-256 or P-384, or an Ed25519 key"
    )]
    Key(&'static str),
}

/// The key to certify for `owner`, when the request asks for nothing but that.
pub fn check(der: &[u8], owner: &SpiffeId) -> Result<SubjectPublicKeyInfo, CsrError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLong(der.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let key = &request.certification_request_info.subject_pki;
    check_key(key)?;
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    for extension in request.requested_extensions().into_iter().flatten() {
        check_extension(extension, owner)?;
    }
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key("a key of an unknown kind"))
}

fn check_key(key: &ParsedKey<'_>) -> Result<(), CsrError> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return Err(CsrError::Key("an RSA key"));
    }
    if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(CsrError::Key("a key of an unknown kind"));
    }
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    match curve {
        Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
        _ => Err(CsrError::Key("an ECDSA key on another curve")),
    }
}

fn check_extension(extension: &ParsedExtension<'_>, owner: &SpiffeId) -> Result<(), CsrError> {
    match extension {
        ParsedExtension::BasicConstraints(constraints) if constraints.ca => Err(CsrError::WantsCa),
        ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Err(CsrError::WantsCa)
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            let expected = owner.to_string();
            let other = names
                .general_names
                .iter()
                .find(|name| !matches!(name, GeneralName::URI(uri) if *uri == expected));
            match other {
                None => Ok(()),
                Some(other) => Err(CsrError::WrongName {
                    found: other.to_string().chars().take(256).collect(),
                    expected,
                }),
            }
        }
        // What these say is ours to say, and said the same for everybody: nothing to gain by asking.
        ParsedExtension::BasicConstraints(_)
        | ParsedExtension::KeyUsage(_)
        | ParsedExtension::ExtendedKeyUsage(_)
        | ParsedExtension::SubjectKeyIdentifier(_) => Ok(()),
        _ => Err(CsrError::Extension),
    }
}
