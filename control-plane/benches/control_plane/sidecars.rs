//! A thousand sidecars that are nothing but TLS clients, and one that is frozen.

use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::world::{self, Credentials, Stream, channel, hello};
use crate::{CATALOG, CATALOG_ADDRESS, SERVICES, SIDECARS, SUBSCRIPTIONS};

/// When each sidecar had put a change of the catalog's policy in force.
pub(crate) type Acks = mpsc::Receiver<Instant>;

/// All of one service account, and each with a certificate of its own: a pod is not believed with another's.
pub(crate) async fn connect(cluster: &Cluster, address: SocketAddr) -> Acks {
    let bundle = world::trust_bundle(cluster.folder.path());
    let (done, acks) = mpsc::channel(SIDECARS * 4);
    for n in 0..SIDECARS {
        let pod = format!("frontend-{}", n + 1);
        let credentials = certified(cluster, address, &pod).await;
        let channel = channel(address, &bundle, Some(&credentials))
            .await
            .expect("TLS");
        let first = hello("boutique", &pod);
        let mut stream = Stream::open(channel, first).await.expect("a stream");
        stream.next().await;
        stream.subscribe(CATALOG_ADDRESS).await;
        for k in 0..SUBSCRIPTIONS - 1 {
            let other = (n * 7 + k * 131) % SERVICES;
            let address = format!("10.97.{}.{}:3550", other / 250, other % 250 + 1);
            stream.subscribe(&address).await;
        }
        stream
            .until(|stream| stream.endpoints.len() == SUBSCRIPTIONS)
            .await;
        tokio::spawn(follow(stream, done.clone()));
    }
    acks
}

/// Takes what comes, for as long as anything does.
async fn follow(mut stream: Stream, done: mpsc::Sender<Instant>) {
    while let Some(push) = stream.maybe_push().await {
        stream.ack(&push).await;
        if push.services.iter().any(|policy| policy.service == CATALOG) {
            let _ = done.send(Instant::now()).await;
        }
    }
}

async fn certified(cluster: &Cluster, address: SocketAddr, pod: &str) -> Credentials {
    let token = cluster.token(pod, &["weir.dev"]).await;
    let credentials = cluster.certify(address, pod, token).await;
    credentials.expect("a certificate")
}

/// A sidecar whose connection stands, and who reads nothing: it lives on a thread that does nothing any more.
pub(crate) struct Frozen {
    thaw: blocking::Sender<()>,
    thread: JoinHandle<()>,
}

impl Frozen {
    pub(crate) async fn connect(cluster: &Cluster, address: SocketAddr, pod: &str) -> Self {
        let credentials = certified(cluster, address, pod).await;
        let bundle = world::trust_bundle(cluster.folder.path());
        let (thaw, frozen) = blocking::channel();
        let (tell, connected) = tokio::sync::oneshot::channel();
        let first = hello("boutique", pod);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let stream = runtime.block_on(async {
                let channel = channel(address, &bundle, Some(&credentials)).await;
                let mut stream = Stream::open(channel.expect("TLS"), first)
                    .await
                    .expect("a stream");
                stream.next().await;
                stream.subscribe(CATALOG_ADDRESS).await;
                stream
                    .until(|stream| stream.endpoints.contains_key(CATALOG))
                    .await;
                stream
            });
            let _ = tell.send(());
            let _ = frozen.recv(); // meanwhile nobody polls what is of that runtime
            drop((stream, runtime));
        });
        connected.await.expect("it connects");
        Self { thaw, thread }
    }

    pub(crate) fn thaw(self) {
        drop(self.thaw);
        self.thread.join().expect("it does nothing that could fail");
    }
}
