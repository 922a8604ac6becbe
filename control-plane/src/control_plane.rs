//! The control plane put together: what starts, in which order, and how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use rustls::server::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use weir_config::pb::identity_server::IdentityServer as IdentityService;
use weir_config::pb::mesh_server::MeshServer;
use weir_config::pb::operator_server::OperatorServer as OperatorService;

use crate::authority::{Authority, AuthorityConfig, AuthorityError};
use crate::breakers::Breakers;
use crate::forced;
use crate::identity::{IdentityServer, Limits};
use crate::journal::{Fact, Journal, RedbStore, StoreError};
use crate::kubernetes::ca_secret::CaSecret;
use crate::kubernetes::peers::Others;
use crate::kubernetes::{self, Background, WebhookServer};
use crate::mesh::Mesh;
use crate::operator::{self, OperatorServer};
use crate::proxies::Proxies;
use crate::push::{Allowances, PushServer};
use crate::questions::Questions;
use crate::shares::Shares;
use crate::source::{self, Source};
use crate::tokens::{FileTokens, Tokens};
use crate::trust::{self, TrustKeeper};
use crate::version::Versions;
use crate::{names, socket, spiffe, sweep, tls};

/// A sidecar has one, and another for a moment when it gets a certificate.
const CONNECTIONS_MAX: usize = 16_384;
/// Of one address, which on plain hosts many sidecars share.
const CONNECTIONS_OF_ONE_MAX: usize = 4096;
/// Per connection, where a sidecar needs two: its stream, and a certificate now and then.
const STREAMS_MAX: u32 = 16;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// What a sidecar may send at once: a CSR, a token, a reason.
const INCOMING_BYTES_MAX: usize = 64 * 1024;
const OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;
const WINDOW_BYTES: u32 = 64 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a stream ends then; one with a stream goes on until its certificate ends.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Less than a pod's grace, and more than the webhook lingers and its last review takes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A sidecar that does not answer a push for this long is dropped, and gets everything when it is back.
pub const STALLED_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Settings {
    pub cluster: Cluster,
    pub listen: SocketAddr,
    pub state: PathBuf,
    pub operator_socket: Option<PathBuf>,
    pub trust_bundle_out: Option<PathBuf>,
    pub trust_domain: String,
    pub leaf_lifetime: Duration,
    /// How long a new trust anchor is only trusted before it signs.
    pub anchor_settle: Duration,
    /// Introduce a new trust anchor at the start.
    pub rotate_anchor: bool,
    /// Facts kept in the journal.
    pub journal_facts_max: u64,
    /// A sidecar that owes an answer for this long is dropped.
    pub stalled_after: Duration,
}

/// Where resources come from, and what proves who a pod is.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// Directories of YAML, and a directory with one token a pod.
    Files {
        sources: Vec<PathBuf>,
        bootstrap_tokens: PathBuf,
    },
    Kubernetes(Box<kubernetes::Settings>),
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the trust domain {0:?} is no DNS name in lower case")]
    TrustDomain(String),
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("source {0}")]
    Source(std::io::Error),
    #[error("Kubernetes API: {0}")]
    Kubernetes(String),
    #[error(transparent)]
    Journal(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("listening on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error("TLS: {0}")]
    Tls(String),
}

/// A control plane that serves.
pub struct ControlPlane {
    pub address: SocketAddr,
    /// Of the webhook, on Kubernetes.
    pub webhook_address: Option<SocketAddr>,
    pub mesh: Mesh,
    pub journal: Journal,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl ControlPlane {
    /// Serves when this returns, with everything read that the sources hold.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        if !spiffe::is_name(&settings.trust_domain) {
            return Err(StartError::TrustDomain(settings.trust_domain));
        }
        make_private(&settings.state)?;
        // The journal first: its lock keeps a second control plane away from everything else here.
        let store = RedbStore::open(
            &settings.state.join("journal.redb"),
            settings.journal_facts_max,
        )?;
        let journal = Journal::open(store)?;
        let (stop, stopping) = watch::channel(false);
        let connected = match &settings.cluster {
            Cluster::Files { .. } => None,
            Cluster::Kubernetes(cluster) => {
                let connected = cluster.connect(stopping.clone());
                Some(connected.map_err(StartError::Kubernetes)?)
            }
        };
        let ca = connected.as_ref().map(|connected| connected.ca.clone());
        let authority = open_authority(&settings, ca.as_ref(), &journal).await?;
        let path = settings.state.join("version");
        let versions = Versions::open(&path).map_err(|error| StartError::File { path, error })?;
        let mesh = Mesh::new(&settings.trust_domain, versions);
        let (proxies, breakers) = (Proxies::default(), Breakers::default());
        let questions = Questions::default();
        breakers.replay(&journal)?;
        let held = forced::replay(&journal)?.into_iter();
        mesh.force(held.map(|(key, forced)| (key, Some(forced))));
        journal.note(Fact::ControlPlaneStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: settings.trust_domain.clone(),
        });

        let Attached {
            tokens,
            background,
            mut last,
            webhook,
            others,
        } = attach(&settings, connected, &mesh, &journal, &breakers, &authority).await?;
        let tls = Arc::new(ArcSwap::from_pointee(
            trust::tls_config(&authority).map_err(StartError::Tls)?,
        ));
        let webhook_address = webhook.as_ref().map(|webhook| webhook.address);
        let webhook = match webhook {
            Some(webhook) => {
                let names = webhook.names.clone();
                let config = trust::webhook_config(&authority, &names).map_err(StartError::Tls)?;
                let tls = Arc::new(ArcSwap::from_pointee(config));
                last.push(webhook.serve(tls.clone()));
                Some((names, tls))
            }
            None => None,
        };
        let keeper = TrustKeeper {
            authority: authority.clone(),
            mesh: mesh.clone(),
            journal: journal.clone(),
            tls: tls.clone(),
            webhook,
            secret: ca,
            bundle_out: settings.trust_bundle_out.clone(),
            renew_every: settings.leaf_lifetime / 2,
        };
        keeper
            .publish()
            .map_err(|(path, error)| StartError::File { path, error })?;

        let address = settings.listen;
        let fail = |error| StartError::Listen { address, error };
        let listener = socket::listen(address).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let identity = IdentityServer {
            authority,
            tokens,
            mesh: mesh.clone(),
            journal: journal.clone(),
            proxies: proxies.clone(),
            limits: Limits::default(),
        };
        let push = PushServer {
            mesh: mesh.clone(),
            journal: journal.clone(),
            proxies: proxies.clone(),
            breakers: breakers.clone(),
            questions: questions.clone(),
            allowances: Allowances::default(),
            stalled_after: settings.stalled_after,
            stopping: stopping.clone(),
        };
        let mut tasks = JoinSet::new();
        if let Some(path) = &settings.operator_socket {
            let server = OperatorServer {
                mesh: mesh.clone(),
                journal: journal.clone(),
                proxies: proxies.clone(),
                breakers: breakers.clone(),
                questions,
                others,
                stopping: stopping.clone(),
            };
            tasks.spawn(serve_operator(path, server, stopping.clone()).await?);
        }
        tasks.spawn(serve_sidecars(
            listener,
            tls,
            identity,
            push,
            stopping.clone(),
        ));
        let mut background: Vec<AbortHandle> = background
            .into_iter()
            .map(|task| tasks.spawn(task))
            .collect();
        background.extend([
            tasks.spawn(keep_resolved(mesh.clone())),
            tasks.spawn(keeper.run()),
            tasks.spawn(forced::expire(mesh.clone(), journal.clone())),
            tasks.spawn(sweep::run(mesh.clone(), proxies, breakers)),
        ]);
        tasks.spawn(end(stopping, last, background));
        tracing::info!(%address, trust_domain = settings.trust_domain, version = mesh.version(), "serving");
        Ok(Self {
            address,
            webhook_address,
            mesh,
            journal,
            stop,
            tasks,
        })
    }

    /// Ends every stream with a word why, and returns when all that was noted is on disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
        if let Err(error) = self.journal.record(Fact::ControlPlaneStopped {}).await {
            tracing::warn!(%error, "the end is not on record");
        }
    }
}

/// When the control plane stops `last` ends by itself, and only then what it needed so long.
async fn end(
    mut stopping: watch::Receiver<bool>,
    last: Vec<Background>,
    background: Vec<AbortHandle>,
) {
    let mut last: JoinSet<()> = last.into_iter().collect();
    let _ = stopping.wait_for(|stopping| *stopping).await;
    while last.join_next().await.is_some() {}
    background.iter().for_each(AbortHandle::abort);
}

/// What depends on where the control plane runs.
struct Attached {
    tokens: Tokens,
    background: Vec<Background>,
    /// What ends by itself, and before the background does.
    last: Vec<Background>,
    webhook: Option<WebhookServer>,
    others: Others,
}

/// Returns when the sources have been read once.
async fn attach(
    settings: &Settings,
    connected: Option<kubernetes::Connected>,
    mesh: &Mesh,
    journal: &Journal,
    breakers: &Breakers,
    authority: &Arc<Mutex<Authority>>,
) -> Result<Attached, StartError> {
    let memory = settings.state.join("accepted");
    match (&settings.cluster, connected) {
        (
            Cluster::Files {
                sources,
                bootstrap_tokens,
            },
            _,
        ) => {
            let mut source = Source::open(sources.clone(), memory, &settings.trust_domain)
                .map_err(StartError::Source)?;
            source::put_in_force(source.recall(), mesh, journal);
            source::put_in_force(source.scan(), mesh, journal);
            Ok(Attached {
                tokens: Tokens::Files(FileTokens::new(bootstrap_tokens.clone())),
                background: vec![Box::pin(source::watch(
                    source,
                    mesh.clone(),
                    journal.clone(),
                ))],
                last: Vec::new(),
                webhook: None,
                others: Others::default(),
            })
        }
        (Cluster::Kubernetes(_), None) => unreachable!("it is connected before anything is read"),
        (Cluster::Kubernetes(cluster), Some(connected)) => {
            let attached = cluster.attach(connected, &memory, mesh, journal, breakers, authority);
            let attached = attached.await.map_err(StartError::Kubernetes)?;
            Ok(Attached {
                tokens: attached.tokens,
                background: attached.background,
                last: attached.last,
                webhook: Some(attached.webhook),
                others: attached.others,
            })
        }
    }
}

async fn serve_sidecars(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    identity: IdentityServer,
    push: PushServer,
    mut stopping: watch::Receiver<bool>,
) {
    let (accepted, connections) = mpsc::channel(64);
    let shares = Shares::new(CONNECTIONS_MAX, CONNECTIONS_OF_ONE_MAX);
    tokio::spawn(tls::accept(listener, tls, shares, accepted));
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_connection_age(CONNECTION_AGE_MAX)
        .accept_http1(false)
        .add_service(IdentityService::new(identity).max_decoding_message_size(INCOMING_BYTES_MAX))
        .add_service(
            MeshServer::new(push)
                .max_decoding_message_size(INCOMING_BYTES_MAX)
                .max_encoding_message_size(OUTGOING_BYTES_MAX),
        )
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving sidecars ended");
    }
}

async fn serve_operator(
    path: &Path,
    server: OperatorServer,
    mut stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, StartError> {
    let path = path.to_owned();
    let listener = operator::bind(&path)
        .await
        .map_err(|error| StartError::File {
            path: path.clone(),
            error,
        })?;
    Ok(async move {
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .add_service(OperatorService::new(server).max_decoding_message_size(INCOMING_BYTES_MAX))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            });
        if let Err(error) = serving.await {
            tracing::error!(%error, "serving operators ended");
        }
        let _ = std::fs::remove_file(&path);
    })
}

async fn open_authority(
    settings: &Settings,
    ca: Option<&CaSecret>,
    journal: &Journal,
) -> Result<Arc<Mutex<Authority>>, StartError> {
    let config = AuthorityConfig {
        trust_domain: settings.trust_domain.clone(),
        leaf_lifetime: settings.leaf_lifetime,
        settle: settings.anchor_settle,
    };
    if let Some(ca) = ca {
        let opened = ca.open(&config).await;
        let authority = opened.map_err(|error| StartError::Kubernetes(error.to_string()))?;
        return Ok(Arc::new(Mutex::new(authority)));
    }
    let now = SystemTime::now();
    let mut authority = Authority::open(&settings.state.join("ca"), config, now)?;
    if settings.rotate_anchor {
        authority.introduce(now)?;
        journal.note(Fact::TrustAnchorIntroduced {
            anchors: authority.trust_bundle(now).len(),
        });
    }
    Ok(Arc::new(Mutex::new(authority)))
}

async fn keep_resolved(mesh: Mesh) {
    match TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build) {
        Ok(resolver) => names::keep_resolved(mesh, resolver).await,
        Err(error) => tracing::warn!(%error, "endpoints that are names stay without addresses"),
    }
}

fn make_private(folder: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| StartError::File {
        path: folder.to_owned(),
        error,
    })
}
