//! A cart in this process, and a real Redis beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use boutique_cart::pb::AddItemRequest;
use boutique_cart::pb::CartItem;
use boutique_cart::pb::cart_client::CartClient;
use boutique_cart::server;
use boutique_cart::settings::Settings;
use boutique_chassis::server::Sockets;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

pub(crate) const INSTALL: &str = "redis-server is needed: apt-get install redis-server";

/// A running cart; `stop` is its SIGTERM.
pub(crate) struct Cart {
    pub(crate) addr: SocketAddr,
    pub(crate) chaos: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Cart {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let settings = Settings::parse(|name| match name {
            "PORT" => Some("0".to_owned()),
            _ => {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        });
        let mut settings = settings.expect("the test's variables are valid");
        // Free ports, so that tests may run side by side.
        settings.process.chaos_port = Some(0);
        let sockets = Sockets::bind(&settings.process).await.expect("free ports");
        let addr = loopback(sockets.service.local_addr().expect("bound"));
        let chaos = sockets.chaos.as_ref().expect("asked for");
        let chaos = chaos.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A test that dropped the sender did not ask for an end.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Self {
            addr,
            chaos,
            stop,
            ended: tokio::spawn(server::run(settings, sockets, stopped)),
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(self.addr).await
    }

    pub(crate) async fn client(&self) -> CartClient<Channel> {
        CartClient::new(self.channel().await)
    }
}

pub(crate) async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("a valid URI");
    endpoint.connect().await.expect("the server listens")
}

fn loopback(bound: SocketAddr) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, bound.port()).into()
}

pub(crate) fn add(user: &str, product: &str, quantity: i32) -> AddItemRequest {
    AddItemRequest {
        user_id: user.to_owned(),
        item: Some(CartItem {
            product_id: product.to_owned(),
            quantity,
        }),
    }
}

pub(crate) fn item(product: &str, quantity: i32) -> CartItem {
    add("", product, quantity).item.expect("just put there")
}

/// Below the ports that outgoing connections get: one of those could get that of a killed Redis, and keep it
/// from listening again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

async fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

/// redis-server on a loopback port of its own, ended with the test.
pub(crate) struct Redis {
    pub(crate) addr: String,
    pub(crate) process: Child,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_at(free_port().await).await
    }

    pub(crate) async fn start_at(port: u16) -> Self {
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect(INSTALL);
        let addr = format!("127.0.0.1:{port}");
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&addr).await.is_err() {
            assert!(
                Instant::now() < patience,
                "redis-server does not listen on {addr}"
            );
            sleep(Duration::from_millis(10)).await;
        }
        Self { addr, process }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid
            .and_then(rustix::process::Pid::from_raw)
            .expect("redis runs");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    pub(crate) async fn kill(mut self) -> u16 {
        self.process.kill().await.expect("our own child");
        let port = self
            .addr
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        port.expect("made of a port")
    }
}
