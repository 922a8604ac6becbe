//! What the control plane does on Kubernetes and nowhere else.
//!
//! | module | noun |
//! |---|---|
//! | [`namespaces`] | the namespaces there are, as far as injection asks about them |
//! | [`trust`] | the trust bundle in ConfigMaps and in `caBundle` |
//! | [`ca_secret`] | the CA, in a Secret that all control planes share |
//! | [`lease`] | which of several control planes writes status |
//! | [`holds`] | breakers that an operator holds, told to all of them |
//! | [`peers`] | what each of them counts, for the one that does |
//! | [`routes`] | the status of routes of the Gateway API |
//! | [`status`] | what the status of our kinds says, and its writer |
//!
//! What it reads is in [`crate::source::kubernetes`], what the API server asks it in [`crate::webhook`]. The rights it
//! needs, and no others:
//!
//! | resources | verbs |
//! |---|---|
//! | services, pods, namespaces; endpointslices.discovery.k8s.io; all of weir.dev | list, watch |
//! | `*`/status of weir.dev | patch |
//! | httproutes, grpcroutes, referencegrants.gateway.networking.k8s.io; status of routes | list, watch; update |
//! | tokenreviews.authentication.k8s.io | create |
//! | configmaps (`weir-trust-bundle`, in every namespace with sidecars) | get, patch, create |
//! | mutating- and validatingwebhookconfigurations.admissionregistration.k8s.io | list; update of its own |
//! | leases.coordination.k8s.io and the Secret `weir-ca`, in its own namespace | get, create, update |

pub mod ca_secret;
pub mod holds;
pub mod lease;
pub mod namespaces;
pub mod peers;
pub mod routes;
pub mod status;
pub mod trust;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use kube::Client;
use rustls::server::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::breakers::Breakers;
use crate::injector::InjectorSettings;
use crate::journal::Journal;
use crate::mesh::Mesh;
use crate::socket;
use crate::source::Memory;
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::register::Register;
use crate::source::kubernetes::{KubernetesSource, Shared};
use crate::tokens::{TokenReviews, Tokens};
use crate::webhook::Webhook;

use self::ca_secret::CaSecret;
use self::holds::Holds;
use self::lease::Lease;
use self::namespaces::Namespaces;
use self::peers::{Others, Peers};
use self::routes::Routes;
use self::status::writer::StatusWriter;
use self::trust::TrustPublisher;

/// The server ends a watch sooner than that; a list that says nothing for so long is tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Until every kube-proxy, and with it the API server, has heard that a pod is no endpoint any more.
pub const LINGER: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API server is, and as whom to speak to it.
    pub api: kube::Config,
    /// The control plane's own namespace.
    pub namespace: String,
    /// The control plane's own pod: the name in its Lease.
    pub pod: String,
    /// The Service by which the API server finds the webhook.
    pub service: String,
    /// Where the webhook listens.
    pub webhook: SocketAddr,
    /// How long it answers those who have not heard that the control plane stops.
    pub linger: Duration,
    /// What the webhook injects. Its audience is the only one that a sidecar's token may have.
    pub injector: InjectorSettings,
}

pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to the API server, before anything is read.
pub struct Connected {
    client: Client,
    lease: Lease,
    pub ca: CaSecret,
    stopping: watch::Receiver<bool>,
}

/// A control plane's parts that are there on Kubernetes only.
pub struct Attached {
    pub tokens: Tokens,
    pub background: Vec<Background>,
    /// What ends by itself when the control plane stops, and needs the others until then.
    pub last: Vec<Background>,
    pub webhook: WebhookServer,
    /// The other control planes.
    pub others: Others,
}

/// Waits for the certificate with which it serves.
pub struct WebhookServer {
    /// What its certificate is for.
    pub names: Vec<String>,
    pub address: SocketAddr,
    listener: TcpListener,
    webhook: Webhook,
    linger: Duration,
}

impl Settings {
    /// `stopping` turns true when the control plane stops.
    pub fn connect(&self, stopping: watch::Receiver<bool>) -> Result<Connected, String> {
        let mut config = self.api.clone();
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        // Another crate of the process may have chosen already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        let lease = Lease::new(client.clone(), &self.namespace, &self.pod);
        Ok(Connected {
            ca: CaSecret::new(client.clone(), &self.namespace, lease.held()),
            lease,
            client,
            stopping,
        })
    }

    /// Returns when everything was listed once.
    pub async fn attach(
        &self,
        connected: Connected,
        memory: &Path,
        mesh: &Mesh,
        journal: &Journal,
        breakers: &Breakers,
        authority: &Arc<Mutex<Authority>>,
    ) -> Result<Attached, String> {
        let Connected {
            client,
            lease,
            stopping,
            ..
        } = connected;
        let listener = socket::listen(self.webhook);
        let listener = listener.map_err(|error| format!("webhook on {}: {error}", self.webhook))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let shared = Shared {
            client: client.clone(),
            mesh: mesh.clone(),
            journal: journal.clone(),
            contact: Contact::new(journal.clone()),
            register: Register::default(),
            memory: Arc::new(Memory::new(memory.to_owned())),
        };
        let contact = shared.contact.clone();
        let mut source = KubernetesSource::start(&shared);
        let namespaces = Namespaces::new(client.clone());
        let peers = Peers::new(&self.pod, mesh.clone(), shared.register.clone());
        let writer = StatusWriter::new(
            client.clone(),
            mesh.clone(),
            breakers.clone(),
            shared.register.clone(),
            peers.others(),
        );
        let others = peers.others();
        let holds = Holds::new(mesh.clone(), journal.clone());
        let held = lease.held();
        let publisher = TrustPublisher {
            client: client.clone(),
            mesh: mesh.clone(),
            authority: authority.clone(),
            namespaces: namespaces.clone(),
            namespace: self.namespace.clone(),
            service: self.service.clone(),
        };
        let routes = Routes::new(mesh.clone(), shared.register.clone());
        let routes_client = client.clone();
        let (namespaces_listed, _) = watch::channel(false);
        let following = namespaces.clone();
        let following = following.follow(client.clone(), contact.clone(), namespaces_listed);
        source.listed().await;
        Ok(Attached {
            tokens: Tokens::Reviews(TokenReviews::new(client, &self.injector.token_audience)),
            background: vec![
                Box::pin(source.run()),
                Box::pin(following),
                Box::pin(writer.run(held.clone())),
                Box::pin(routes.run(routes_client, contact.clone(), held)),
                Box::pin(publisher.run()),
            ],
            last: vec![Box::pin(lease.run(contact, peers, holds, stopping.clone()))],
            webhook: WebhookServer {
                names: self.names(),
                address,
                listener,
                webhook: Webhook::new(namespaces, self.injector.clone(), stopping.clone()),
                linger: self.linger,
            },
            others,
        })
    }

    /// The names by which the API server calls the webhook.
    fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.service, &self.namespace);
        vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
    }
}

impl WebhookServer {
    pub fn serve(self, tls: Arc<ArcSwap<ServerConfig>>) -> Background {
        Box::pin(self.webhook.serve(self.listener, tls, self.linger))
    }
}
