//! The control stream: say who we are, subscribe to what the app calls, put pushes in force, acknowledge or refuse.
//!
//! A push is applied whole or not at all. While the control plane is away everything stays as it was, for as long as it
//! takes; coming back is jittered, so that a fleet does not come back at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use weir_config::pb::{self, FromProxy, from_proxy::Message};
use weir_config::record::Record;

use crate::control_plane::{ControlPlane, Keeper};
use crate::facts;
use crate::mesh::Mesh;
use crate::push::apply;
use crate::recorder;
use crate::settings::Settings;
use crate::telemetry;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// To be refused costs next to nothing, and to come a second later costs a second without news.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// An address that nobody called for this long is unsubscribed.
const IDLE: Duration = Duration::from_secs(600);
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// The control plane takes messages of 64 KiB, and ends a stream that has a longer one.
const TOLD_BYTES_MAX: usize = 48 * 1024;
/// Messages to the control plane that may wait for it to read.
const OUTGOING_MAX: usize = 64;

/// What the sidecar hears from others and passes on.
pub struct Inputs {
    pub wanted: mpsc::Receiver<SocketAddr>,
    pub facts: mpsc::Receiver<pb::Fact>,
}

/// Runs for as long as the process does.
pub async fn run(
    settings: Arc<Settings>,
    mesh: Arc<crate::connection::Proxy>,
    keeper: Arc<Keeper>,
    mut inputs: Inputs,
) {
    let mesh = &mesh.mesh;
    let mut backoff = Backoff::default();
    keeper.ready().await;
    loop {
        match session(&settings, mesh, &keeper, &mut inputs, &mut backoff).await {
            Ok(()) => tracing::info!("the control plane ended the stream"),
            Err(error) => {
                tracing::warn!(%error, "the control stream broke; the last good policy stays in force");
                keeper.look_for_new_anchors();
            }
        }
        telemetry::control_plane_connected(false);
        tokio::time::sleep(backoff.wait(fastrand::f64())).await;
    }
}

/// Doubles with each try that came to nothing. Half to one and a half of it is waited for, so that not all sidecars of a
/// mesh come back in the same moment.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Backoff {
    /// `rand`: 0.0 to 1.0.
    fn wait(&mut self, rand: f64) -> Duration {
        let wait = self.0.mul_f64(0.5 + rand);
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        wait
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn session(
    settings: &Settings,
    mesh: &Mesh,
    keeper: &Keeper,
    inputs: &mut Inputs,
    backoff: &mut Backoff,
) -> Result<(), AnyError> {
    let channel = ControlPlane::new(settings)
        .connect(keeper.bundle().as_slice(), keeper.own())
        .await?;
    let mut client =
        pb::mesh_client::MeshClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
    let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
    let send = |message| outgoing.send(from(message));
    let hello = Message::Hello(pb::Hello {
        pod_namespace: settings.pod_namespace.clone(),
        pod_name: settings.pod_name.clone(),
        proxy_version: env!("CARGO_PKG_VERSION").into(),
    });
    // What was known before is asked for again: it may have changed meanwhile.
    let known: Vec<_> = mesh.known().keys().map(subscribe).collect();
    let first = std::iter::once(hello).chain(known).map(from);
    let messages = tokio_stream::iter(first).chain(ReceiverStream::new(receiver));
    let mut incoming = client.connect(messages).await?.into_inner();
    telemetry::control_plane_connected(true);
    tracing::info!("connected to the control plane");
    // First what has waited, for it is older.
    while let Ok(fact) = inputs.facts.try_recv() {
        send(Message::Fact(fact)).await?;
    }
    for standing in facts::standing(mesh.backends().values()) {
        send(Message::Standing(standing)).await?;
    }
    let mut idle = tokio::time::interval(IDLE_CHECK);
    idle.reset();
    loop {
        tokio::select! {
            // Pushes come first: whoever waits for an address waits for one.
            biased;
            push = incoming.message() => {
                let Some(mut push) = push? else { return Ok(()) };
                *backoff = Backoff::default();
                if let Some(question) = push.question.take() {
                    send(explain(&question)).await?;
                    continue;
                }
                send(acknowledge(mesh, keeper, push)).await?;
            }
            Some(address) = inputs.wanted.recv() => {
                send(subscribe(&address)).await?;
            }
            fact = inputs.facts.recv() => {
                let Some(fact) = fact else { return Ok(()) };
                send(Message::Fact(fact)).await?;
            }
            _ = idle.tick() => {
                for address in mesh.forget_idle(IDLE) {
                    send(Message::Unsubscribe(pb::Unsubscribe { address: address.to_string() })).await?;
                }
            }
        }
    }
}

fn from(message: Message) -> FromProxy {
    FromProxy {
        message: Some(message),
    }
}

fn subscribe(address: &SocketAddr) -> Message {
    Message::Subscribe(pb::Subscribe {
        address: address.to_string(),
    })
}

/// What this sidecar knows of a request. No push: nothing is put in force by it.
fn explain(question: &pb::Question) -> Message {
    Message::Explained(pb::Explained {
        question: question.number,
        records_json: told(&recorder::find(&question.request_id)).into(),
    })
}

/// The newest of them, in the order in which they came, as many as one message may hold.
fn told(records: &[Record]) -> Vec<u8> {
    let mut first = records.len();
    let mut bytes = 0;
    let size = |record| serde_json::to_vec(record).map_or(TOLD_BYTES_MAX, |json| json.len());
    for (index, record) in records.iter().enumerate().rev() {
        bytes += size(record) + 1;
        if bytes > TOLD_BYTES_MAX {
            break;
        }
        first = index;
    }
    serde_json::to_vec(&records[first..]).expect("a record is plain data")
}

fn acknowledge(mesh: &Mesh, keeper: &Keeper, push: pb::ToProxy) -> Message {
    let (nonce, version) = (push.nonce, push.version);
    let bundle: Vec<CertificateDer<'static>> = push
        .trust_bundle
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let applied = apply(mesh, push).and_then(|()| {
        if bundle.is_empty() {
            return Ok(());
        }
        keeper.set_bundle(bundle).map_err(|error| error.to_string())
    });
    match applied {
        Ok(()) => {
            telemetry::pushed(true, version);
            recorder::set_policy_version(version);
            Message::Ack(pb::Ack { nonce, version })
        }
        Err(reason) => {
            telemetry::pushed(false, version);
            tracing::warn!(
                version,
                reason,
                "a push was refused; the last good policy stays in force"
            );
            Message::Nack(pb::Nack {
                nonce,
                version,
                reason,
            })
        }
    }
}

/// Tells when something has become true once and for all.
#[derive(Clone)]
pub struct Once(watch::Sender<bool>);

impl Default for Once {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Once {
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn wait(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}

#[cfg(test)]
mod tests {
    use weir_config::record::Kept;

    use super::*;

    /// After an outage of twenty seconds some came back only seven seconds later.
    #[test]
    fn who_has_asked_in_vain_for_long_asks_again_within_three_seconds_and_not_with_all_others() {
        let mut backoff = Backoff::default();
        assert!(backoff.wait(1.0) < Duration::from_millis(200));
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait(1.0)).collect();
        assert_eq!(waits.iter().max(), Some(&Duration::from_secs(3)));
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(backoff.wait(0.0), Duration::from_secs(1));
    }

    /// A batch of one trace id whose failures had long reasons ended the stream, each time it was asked about.
    #[test]
    fn of_more_than_a_message_holds_the_newest_are_told() {
        let record = |at_ms: u64, chars: usize| Record {
            at_ms,
            reason: Some("x".repeat(chars)),
            ..recorder::tests::record(Kept::Failed)
        };
        let read = |json: &[u8]| serde_json::from_slice::<Vec<Record>>(json).expect("records");
        let all: Vec<Record> = (0..32).map(|at| record(at, 4_000)).collect();
        let json = told(&all);
        assert!(json.len() <= TOLD_BYTES_MAX, "{}", json.len());
        let some = read(&json);
        assert!(some.len() > 8, "{}", some.len());
        assert_eq!(some, all[all.len() - some.len()..]);
        let few = &all[..3];
        assert_eq!(read(&told(few)), few);
        assert_eq!(read(&told(&[record(1, 100_000)])), []);
    }
}
