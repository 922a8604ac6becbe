//! What a peer that has proven who it is sends as bytes, to an app that writes down what it gets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::backend::tests::environment;
use crate::drain;
use crate::mesh::tests::{PORT, workload};

const SOON: Duration = Duration::from_secs(10);
const PEER: &str = "spiffe://cluster.local/ns/boutique/sa/checkout";
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: cart\r\nx-weir-attempt: 2\r\n\r\n";
/// A tunnel to a port of which this is said.
struct Tunnel {
    peer: TcpStream,
    /// What a connection of the app got first.
    app: mpsc::Receiver<Vec<u8>>,
    ended: tokio::task::JoinHandle<Result<(), Rejected>>,
    _signal: drain::Signal,
}

/// `greeting`: what the app says before it is asked.
async fn tunnel(declared: snapshot::Protocol, greeting: &'static str) -> Tunnel {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let (got, app) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, greeting, got.clone()));
        }
    });
    let front = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let peer = TcpStream::connect(front.local_addr().expect("it is bound"));
    let (peer, accepted) = tokio::join!(peer, front.accept());
    let stream = accepted.expect("it is there").0;
    let (signal, drain) = drain::channel();
    let ended = tokio::spawn(async move {
        let (mesh, _) = Mesh::new(environment());
        let mut policy = workload(10);
        policy.ports[0].protocol = declared;
        mesh.set_workload(policy);
        let app = App {
            address,
            port: mesh.inbound_port(PORT).expect("it has a policy"),
            protocol: declared,
            worker: 0,
            mesh: &mesh,
            drain,
        };
        app.tunnel(stream, PEER.into()).await
    });
    Tunnel {
        peer: peer.expect("it listens"),
        app,
        ended,
        _signal: signal,
    }
}

async fn serve(mut stream: TcpStream, greeting: &str, got: mpsc::Sender<Vec<u8>>) {
    // Whoever is refused has left already.
    let _ = stream.write_all(greeting.as_bytes()).await;
    let mut bytes = Vec::new();
    if let Ok(1..) = stream.read_buf(&mut bytes).await {
        let _ = got.send(bytes).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    }
}

/// As short as there is one: a record, a handshake message, one cipher, no extensions.
fn client_hello() -> Vec<u8> {
    let nothing = [0; 32];
    let record = [0x16, 3, 1, 0, 45];
    let message = [1, 0, 0, 41, 3, 3];
    let (session, ciphers, compression) = ([0], [0, 2, 0x13, 1], [1, 0]);
    [
        &record[..],
        &message,
        &nothing,
        &session,
        &ciphers,
        &compression,
    ]
    .concat()
}

impl Tunnel {
    async fn say(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).await.expect("it is read");
    }

    async fn app_got(&mut self) -> Vec<u8> {
        let got = tokio::time::timeout(SOON, self.app.recv()).await;
        got.expect("the app gets it").expect("there is an app")
    }

    /// How it ended, and what the peer was told.
    async fn refused(mut self) -> (Result<(), Rejected>, String) {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, self.peer.read_to_end(&mut answer)).await;
        let _ = read.expect("it ends");
        let ended = tokio::time::timeout(SOON, self.ended).await;
        let ended = ended.expect("it has ended").expect("no panic");
        assert!(self.app.try_recv().is_err(), "the app got a part of it");
        (ended, String::from_utf8_lossy(&answer).into_owned())
    }
}

#[tokio::test]
async fn bytes_of_a_proven_peer_do_not_pass_on_a_port_that_speaks_http() {
    for (declared, status) in [
        (snapshot::Protocol::Http, "HTTP/1.1 400 "),
        (snapshot::Protocol::Http2, ""),
    ] {
        let mut tunnel = tunnel(declared, "").await;
        tunnel.say(b"\x00\x01garbage\n").await;
        let (ended, answer) = tunnel.refused().await;
        assert_eq!(ended, Err(Rejected::NotHttp), "{declared:?}");
        assert!(answer.starts_with(status), "{declared:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_request_that_a_proven_peer_sends_as_bytes_is_a_request() {
    for declared in [
        snapshot::Protocol::Http,
        snapshot::Protocol::Http2,
        snapshot::Protocol::Detect,
    ] {
        let mut tunnel = tunnel(declared, "").await;
        tunnel.say(REQUEST.as_bytes()).await;
        let got = String::from_utf8(tunnel.app_got().await).expect("text");
        assert!(got.starts_with("GET / HTTP/1.1\r\n"), "{got:?}");
        assert!(!got.contains("x-weir-attempt"), "{declared:?}: {got:?}");
    }
}

#[tokio::test]
async fn tls_of_the_apps_own_and_what_is_no_http_are_carried_as_they_come() {
    let own_tls = client_hello();
    for (declared, bytes) in [
        (snapshot::Protocol::Http, own_tls.as_slice()),
        (snapshot::Protocol::Http2, &own_tls),
        (snapshot::Protocol::Detect, &own_tls),
        (snapshot::Protocol::Detect, b"*1\r\n$4\r\nPING\r\n"),
        (snapshot::Protocol::Opaque, REQUEST.as_bytes()),
    ] {
        let mut tunnel = tunnel(declared, "").await;
        tunnel.say(bytes).await;
        assert_eq!(tunnel.app_got().await, bytes, "{declared:?}");
    }
}

/// On a port of which nothing is said.
#[tokio::test]
async fn a_silent_peer_reaches_a_server_that_speaks_first() {
    let mut tunnel = tunnel(snapshot::Protocol::Detect, "220 ready\r\n").await;
    let mut greeting = [0; 11];
    let read = tokio::time::timeout(SOON, tunnel.peer.read_exact(&mut greeting)).await;
    read.expect("it speaks").expect("all of it");
    assert_eq!(&greeting, b"220 ready\r\n");
}

/// Who a sidecar is comes with its first packet. Where that was lost, it was refused as a stranger 50 ms later.
#[tokio::test]
async fn who_proves_itself_late_is_heard_and_a_stranger_reaches_nobody() {
    let hello = crate::detect::tests::rustls_hello("cart", &[identity::alpn::TCP], None);
    for (said, ended) in [
        // It would be asked to prove itself, had this sidecar a certificate of its own.
        (hello.as_slice(), Rejected::NotReady),
        (b"*1\r\n$4\r\nPING\r\n", Rejected::Denied),
    ] {
        let app = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = app.local_addr().expect("it is bound");
        let front = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let peer = TcpStream::connect(front.local_addr().expect("it is bound"));
        let (peer, accepted) = tokio::join!(peer, front.accept());
        let (mut peer, stream) = (peer.expect("it listens"), accepted.expect("it is there").0);
        let (_signal, mut drain) = drain::channel();
        let serving = tokio::spawn(async move {
            let (mesh, _) = Mesh::new(environment());
            let mut policy = workload(10);
            policy.ports[0].protocol = snapshot::Protocol::Detect;
            let only = snapshot::AccessRule {
                policy: "boutique/cart".into(),
                from: Some(vec![snapshot::Peer {
                    identity: Some(PEER.into()),
                    namespace: None,
                    service_account: None,
                }]),
                to: None,
            };
            policy.ports[0].authorization = Some(snapshot::Authorization {
                enforced: snapshot::AccessRules {
                    deny: Vec::new(),
                    allow: Some(vec![only]),
                },
                audited: None,
            });
            mesh.set_workload(policy);
            let beginning = first_bytes::read(stream, Expected::Anything, &mut drain).await?;
            let app = App {
                address,
                port: mesh.inbound_port(PORT).expect("it has a policy"),
                protocol: snapshot::Protocol::Detect,
                worker: 0,
                mesh: &mesh,
                drain,
            };
            app.begun(beginning.expect("it is silent")).await
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Whoever is refused already does not hear it.
        let _ = peer.write_all(said).await;
        let served = tokio::time::timeout(SOON, serving).await.expect("it ends");
        assert_eq!(served.expect("no panic"), Err(ended));
        let nobody = tokio::time::timeout(Duration::from_millis(50), app.accept()).await;
        assert!(nobody.is_err(), "the app is not asked");
    }
}
