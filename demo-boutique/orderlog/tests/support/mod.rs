//! Appends, a log in this process, and a log in one of its own.

pub(crate) mod port;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use boutique_chassis::server::Sockets;
use boutique_orderlog::pb::order_event::Fact;
use boutique_orderlog::pb::order_log_client::OrderLogClient;
use boutique_orderlog::pb::{AppendRequest, OrderCancelled, OrderEvent, ReadRequest};
use boutique_orderlog::server;
use boutique_orderlog::settings::Settings;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

pub(crate) type Client = OrderLogClient<Channel>;

pub(crate) fn event(key: &str, text: &str) -> OrderEvent {
    let reason = text.to_owned();
    OrderEvent {
        idempotency_key: key.to_owned(),
        fact: Some(Fact::OrderCancelled(OrderCancelled { reason })),
        ..Default::default()
    }
}

pub(crate) fn append(order: &str, expected_version: u32, keys: &[&str]) -> AppendRequest {
    AppendRequest {
        order_id: order.to_owned(),
        expected_version,
        events: keys.iter().map(|key| event(key, "")).collect(),
    }
}

/// A running log; `stop` is its SIGTERM.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>,
}

impl Served {
    pub(crate) async fn start(log_file: &Path) -> Self {
        let path = log_file.display().to_string();
        let settings = Settings::parse(|name| match name {
            "PORT" | "DRAIN_DELAY_MS" | "CHAOS_PORT" => Some("0".to_owned()),
            "LOG_FILE" => Some(path.clone()),
            _ => None,
        });
        let settings = settings.expect("the test's variables are valid");
        let sockets = Sockets::bind(&settings.process).await.expect("free ports");
        let port = sockets.service.local_addr().expect("bound").port();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A test that dropped the sender did not ask for an end.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Self {
            addr: (Ipv4Addr::LOCALHOST, port).into(),
            stop,
            ended: tokio::spawn(server::run(settings, sockets, stopped)),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        client(self.addr).await
    }
}

pub(crate) async fn client(addr: SocketAddr) -> Client {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("a valid URI");
    OrderLogClient::new(endpoint.connect().await.expect("the server listens"))
}

/// One that connects when it is used, and again after its server was away.
pub(crate) fn patient_client(addr: SocketAddr) -> Client {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("a valid URI");
    let endpoint = endpoint.timeout(Duration::from_secs(2));
    OrderLogClient::new(endpoint.connect_lazy())
}

/// All that is in the log.
pub(crate) async fn all(client: &mut Client) -> Vec<OrderEvent> {
    let stream = client.read(ReadRequest::default()).await.expect("readable");
    let mut stream = stream.into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.expect("no error") {
        events.push(event);
    }
    events
}

/// Seqs and versions without gaps, and no key twice.
pub(crate) fn assert_sound(events: &[OrderEvent]) {
    let mut versions = std::collections::HashMap::new();
    let mut keys = std::collections::HashSet::new();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq, "seqs are dense and in order");
        let version = versions.entry(&event.order_id).or_insert(0);
        *version += 1;
        assert_eq!(event.version, *version, "of order {}", event.order_id);
        let key = (&event.order_id, &event.idempotency_key);
        assert!(keys.insert(key), "{key:?} is there twice");
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_boutique-orderlog");

/// The log as a process, killed with the test, from its first moment on.
pub(crate) fn start(addr: SocketAddr, log_file: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    command.stderr(Stdio::null());
    start_as(command, addr, log_file)
}

/// One whose words are read, with room for so many orders.
pub(crate) fn start_heard(addr: SocketAddr, log_file: &Path, orders_max: u32) -> Child {
    let mut command = Command::new(PROGRAM);
    command.stderr(Stdio::piped());
    command.env("LOG_ORDERS_MAX", orders_max.to_string());
    start_as(command, addr, log_file)
}

/// One that is told of a file that became too large, in place of being killed: as on a disk that is full.
pub(crate) fn start_bounded(addr: SocketAddr, log_file: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ && exec \"$0\"", PROGRAM]);
    command.stderr(Stdio::null());
    start_as(command, addr, log_file)
}

fn start_as(mut command: Command, addr: SocketAddr, log_file: &Path) -> Child {
    command
        .env("PORT", addr.port().to_string())
        .env("CHAOS_PORT", "0")
        .env("DRAIN_DELAY_MS", "50")
        .env("LOG_FILE", log_file)
        .kill_on_drop(true)
        .spawn()
        .expect("the binary of this crate")
}

/// The same once it listens at this address.
pub(crate) async fn spawn(addr: SocketAddr, log_file: &Path) -> Child {
    let child = start(addr, log_file);
    listening(addr).await;
    child
}

pub(crate) async fn listening(addr: SocketAddr) {
    let patience = Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(addr).await.is_err() {
        assert!(Instant::now() < patience, "nothing listens on {addr}");
        sleep(Duration::from_millis(5)).await;
    }
}
