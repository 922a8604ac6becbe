use rcgen::KeyPair;
use rustls_pki_types::TrustAnchor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn config() -> AuthorityConfig {
    AuthorityConfig {
        trust_domain: "weir.local".to_owned(),
        leaf_lifetime: DAY,
        settle: HOUR,
    }
}

fn now() -> SystemTime {
    // Whole seconds: certificates know no others.
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn owner() -> SpiffeId {
    SpiffeId::new("weir.local", "boutique", "checkout").expect("a name")
}

fn open(folder: &Path, at: SystemTime) -> Authority {
    Authority::open(folder, config(), at).expect("the authority opens")
}

fn leaf(authority: &Authority, at: SystemTime) -> Leaf {
    let key = KeyPair::generate().expect("a key");
    authority.issue(&key, &owner(), None, at).expect("a leaf")
}

/// As rustls does it: chain, dates and usage.
fn trusts(bundle: &[CertificateDer<'static>], leaf: &Leaf, at: SystemTime) -> bool {
    let anchors: Vec<TrustAnchor<'_>> = bundle.iter().map(|der| webpki_anchor(der)).collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(anchors.into_iter().map(|anchor| anchor.to_owned()));
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let at = rustls_pki_types::UnixTime::since_unix_epoch(at);
    verifier
        .expect("a verifier")
        .verify_client_cert(&leaf.certificate, &[], at)
        .is_ok()
}

fn webpki_anchor<'a>(der: &'a CertificateDer<'static>) -> TrustAnchor<'a> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der.clone()).expect("an anchor");
    roots.roots.remove(0)
}

/// Whoever brings his own CA may write its key first. The bundle is in a ConfigMap of every namespace.
#[test]
fn the_bundle_has_no_key_in_whatever_order_an_anchor_is_written() {
    let minted = Minted::new(&config(), 1, now()).expect("an anchor");
    let (certificate, key) = minted
        .pem
        .split_once("-----BEGIN PRIVATE KEY-----")
        .expect("both");
    let key = format!("-----BEGIN PRIVATE KEY-----{key}");
    for pem in [
        format!("{certificate}{key}"),
        format!("{key}{certificate}"),
        format!("# the key\n{key}\n# and the certificate\n{certificate}"),
    ] {
        let authority = Authority::from_pems(config(), [&pem]).expect("it can be read");
        assert_eq!(authority.trust_bundle_pem(now()), certificate);
    }
}

#[test]
fn a_leaf_says_who_it_is_and_nothing_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = open(folder.path(), now());
    let leaf = leaf(&authority, now());
    let (_, parsed) = X509Certificate::from_der(&leaf.certificate).expect("a certificate");
    assert_eq!(SpiffeId::of_certificate(&leaf.certificate), Ok(owner()));
    assert!(!parsed.is_ca());
    let usage = parsed
        .key_usage()
        .expect("readable")
        .expect("present")
        .value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = parsed
        .extended_key_usage()
        .expect("readable")
        .expect("present")
        .value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    let (from, until) = validity(&leaf.certificate).expect("dates");
    assert_eq!((from, until), (now() - BACKDATED_BY, now() + DAY));
    assert!(trusts(&authority.trust_bundle(now()), &leaf, now()));
    assert!(
        !trusts(
            &authority.trust_bundle(now()),
            &leaf,
            now() + DAY + Duration::from_secs(1)
        ),
        "it expires"
    );
}

#[test]
fn a_restart_keeps_the_anchor_and_its_key_stays_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let before = leaf(&open(folder.path(), now()), now());
    let after = open(folder.path(), now() + HOUR);
    assert_eq!(after.anchors.len(), 1);
    let pem = after.trust_bundle_pem(now());
    assert!(
        pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"),
        "{pem}"
    );
    assert!(trusts(&after.trust_bundle(now()), &before, now()));

    let file = folder.path().join("0001.pem");
    assert_eq!(
        std::fs::metadata(&file)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let error =
        Authority::open(folder.path(), config(), now()).expect_err("a key that others can read");
    assert!(
        error.to_string().contains("0001.pem") && error.to_string().contains("644"),
        "{error}"
    );
}

#[test]
fn a_damaged_anchor_is_an_error_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("0001.pem");
    std::fs::write(&file, "not a certificate").expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(Authority::open(folder.path(), config(), now()).is_err());
}

/// The next one's number was the count of those that were left, and so the file of one that signs.
#[test]
fn an_anchor_is_never_written_over_another_when_an_older_one_was_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let text = |name: &str| std::fs::read_to_string(file(name)).expect("a file");
    open(folder.path(), now()).introduce(now()).expect("one");
    let before = text("0002.pem");
    std::fs::remove_file(file("0001.pem")).expect("removed");
    open(folder.path(), now()).introduce(now()).expect("one");
    assert_eq!(text("0002.pem"), before);
    assert!(file("0003.pem").exists() && !file("0001.pem").exists());

    let minted = Minted::new(&config(), 2, now()).expect("an anchor");
    let error = store::write(folder.path(), &minted).expect_err("there is one");
    assert!(error.to_string().contains("0002.pem"), "{error}");
    assert_eq!(text("0002.pem"), before);
}

#[test]
fn the_next_number_is_above_all_that_are_there() {
    for (names, next) in [
        (&[][..], 1),
        (&["0001.pem", "0007.pem", "0003.pem"], 8),
        (&["ca.crt", "ca.pem", "0009.new"], 1),
        (&["12000.pem", "0002.pem"], 12_001),
        (&["4294967295.pem"], u32::MAX),
    ] {
        assert_eq!(next_number(names.iter().copied()), next, "{names:?}");
    }
}

#[test]
fn there_is_no_authority_without_an_anchor() {
    let error = Authority::from_pems(config(), []).expect_err("nothing signs");
    assert!(matches!(error, AuthorityError::NoAnchor), "{error}");
}

#[test]
fn rotation_never_leaves_a_leaf_that_somebody_cannot_verify() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut authority = open(folder.path(), now());
    let introduced = now() + 10 * DAY;
    let mut leaves = vec![(introduced - HOUR, leaf(&authority, introduced - HOUR))];
    // What a sidecar has that has not heard of the successor yet.
    let mut previous = authority.trust_bundle(introduced);
    authority.introduce(introduced).expect("a successor");
    for step in 0..60 {
        let at = introduced + step * HOUR;
        leaves.push((at, leaf(&authority, at)));
        let bundle = authority.trust_bundle(at);
        // A sidecar may be a step behind with its bundle.
        for (_, leaf) in leaves.iter().filter(|(_, leaf)| leaf.expires > at) {
            assert!(
                trusts(&bundle, leaf, at),
                "step {step}: a live leaf is not trusted"
            );
            if leaf.expires > at + HOUR {
                assert!(
                    trusts(&previous, leaf, at),
                    "step {step}: a live leaf is unknown to a sidecar a step behind"
                );
            }
        }
        previous = bundle;
    }
    assert_eq!(authority.trust_bundle(introduced).len(), 2);
    assert_eq!(previous.len(), 1, "the old anchor is gone in the end");
    assert_eq!(
        open(folder.path(), introduced + 3 * DAY).trust_bundle(introduced + 3 * DAY),
        previous
    );
}

#[test]
fn an_anchor_at_half_its_life_wants_a_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = open(folder.path(), now());
    assert!(!authority.wants_successor(now() + 4 * 365 * DAY));
    assert!(authority.wants_successor(now() + 6 * 365 * DAY));
}
