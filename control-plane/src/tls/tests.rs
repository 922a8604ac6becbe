use std::net::IpAddr;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::*;
use crate::authority::AuthorityConfig;

const STALLED: usize = 256;

async fn connected(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from, 0)).expect("an address");
    socket.connect(to).await.expect("it listens")
}

/// 256 connections that say nothing kept the CA, the push and the webhook from everybody for ten seconds, and again.
#[tokio::test]
async fn silent_connections_of_one_address_keep_nobody_elses_handshake_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = AuthorityConfig {
        trust_domain: "weir.local".to_owned(),
        leaf_lifetime: Duration::from_secs(3600),
        settle: Duration::from_secs(600),
    };
    let now = SystemTime::now();
    let authority = Authority::open(folder.path(), config, now).expect("a CA");
    let name = "control-plane.test".to_owned();
    let config =
        webhook_config(&authority, std::slice::from_ref(&name), now).expect("a certificate");
    let mut roots = RootCertStore::empty();
    for anchor in authority.trust_bundle(now) {
        roots.add(anchor).expect("an anchor");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (accepted, mut connections) = mpsc::channel(4);
    let config = Arc::new(ArcSwap::from_pointee(config));
    let accepting = tokio::spawn(accept(listener, config, Shares::new(1024, 512), accepted));
    let mut silent = Vec::new();
    for _ in 0..STALLED {
        silent.push(connected(IpAddr::from([127, 0, 0, 2]), address).await);
    }
    let started = tokio::time::Instant::now();
    let stream = connected(IpAddr::from([127, 0, 0, 1]), address).await;
    let name = ServerName::try_from(name).expect("a name");
    let connector = TlsConnector::from(Arc::new(client));
    let shaken = tokio::time::timeout(Duration::from_millis(500), connector.connect(name, stream));
    let _stream = shaken.await.expect("in time").expect("a handshake");
    let came = connections.recv().await.expect("it accepts").expect("one");
    assert_eq!(
        came.peer().address.map(|it| it.ip()),
        Some(IpAddr::from([127, 0, 0, 1]))
    );
    println!(
        "a handshake beside {STALLED} silent ones took {:?}",
        started.elapsed()
    );
    accepting.abort();
}
