//! The keys of the subjects that have no control plane to ask: one CA, one leaf for both ends, the same kind as Weir's.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// What both ends are called.
pub const NAME: &str = "bench";

#[derive(Clone, Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Chain and key in one file, as HAProxy wants them.
    pub both: PathBuf,
}

impl Certificates {
    pub fn make(folder: &Path) -> io::Result<Self> {
        let made = Self {
            authority: folder.join("ca.pem"),
            chain: folder.join("leaf.pem"),
            key: folder.join("leaf.key"),
            both: folder.join("both.pem"),
        };
        let (authority, chain, key) = pems().map_err(io::Error::other)?;
        std::fs::write(&made.authority, authority)?;
        std::fs::write(&made.chain, &chain)?;
        std::fs::write(&made.key, &key)?;
        std::fs::write(&made.both, chain + &key)?;
        Ok(made)
    }
}

fn pems() -> Result<(String, String, String), rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    // Of a leaf that has its issuer's name OpenSSL thinks that it signed itself.
    authority
        .distinguished_name
        .push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let chain = leaf.signed_by(&key, &issuer)?.pem();
    Ok((authority_pem, chain, key.serialize_pem()))
}
