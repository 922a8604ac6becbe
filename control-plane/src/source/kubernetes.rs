//! The Kubernetes API as a source: each kind is listed once, and watched from there on.
//!
//! ```text
//!            ┌───────────── 410 Gone: the server has forgotten what came after our version ─────────────┐
//!            ▼                                                                                          │
//!   (start) list ──▶ in force all at once, what is not there any more deleted ──▶ watch ──▶ watch again ┘
//!            ▲ ▲ │                                                                  │ ▲ │
//!            │ └─┘ failed: all stays as it was, tried again later and later         │ └─┘ disconnected: from the last version
//!            └── 404: its CRD is not installed, or not any more; looked for again ◀─┘
//! ```
//!
//! A kind that was there and is gone twice in a row has no objects any more. Once may be a server that has only just begun.
//!
//! An object is cut down to what is read as soon as it has come, so memory goes with what is used and not with what
//! a cluster keeps. While the API is away the last state stays in force, for as long as it takes.
//!
//! | file | noun |
//! |---|---|
//! | `object` | one object of the API as a resource, or what is wrong with it (pure) |
//! | `listener` | what is known of a kind, and what news change (no I/O but the memory of last good policies) |
//! | `stand_in` | what is in force in place of a policy that was never read |
//! | `contact` | whether the API server answers: for the journal |
//! | `register` | our own kinds as the API has them: for their status |

pub mod contact;
mod listener;
pub mod object;
pub mod register;
mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Client, Error};
use tokio::sync::watch;
use weir_config::Kind;
use weir_config::resource::GATEWAY_GROUP;

use crate::journal::Journal;
use crate::mesh::Mesh;

use self::contact::Contact;
use self::listener::Listener;
use self::register::Register;
use super::memory::Memory;

/// The server ends a watch then, and it is taken up again: one that died silently is noticed little later.
const WATCH_SECONDS: u32 = 60;
/// Objects in one answer to a list: each is held whole until it is read. Of a hundred an API server makes one seat of its
/// priority and fairness.
const PAGE_SIZE: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// A kind that the server does not know may be installed later, and is in force little later than that.
const ABSENT_RETRY: Duration = Duration::from_secs(10);
/// How often a start that waits says what for.
const REMIND_EVERY: Duration = Duration::from_secs(10);
/// Pods that ended have no address any more, and there may be many.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What all watches share.
#[derive(Clone)]
pub struct Shared {
    pub client: Client,
    pub mesh: Mesh,
    pub journal: Journal,
    pub contact: Contact,
    pub register: Register,
    /// Where last good policies are kept across restarts.
    pub memory: Arc<Memory>,
}

/// The watches: they run for as long as this is kept.
pub struct KubernetesSource {
    tasks: tokio::task::JoinSet<()>,
    listed: Vec<(Kind, watch::Receiver<bool>)>,
}

impl KubernetesSource {
    pub fn start(shared: &Shared) -> Self {
        let (mut tasks, mut listed) = (tokio::task::JoinSet::new(), Vec::new());
        let mut remembered = shared.memory.recall_all();
        for kind in Kind::ALL {
            let (done, receiver) = watch::channel(false);
            listed.push((kind, receiver));
            let own = remembered.extract_if(|name, _| name.starts_with(kind.name()));
            let mut listener = Listener::new(kind, shared.clone(), own.collect());
            let (client, contact) = (shared.client.clone(), shared.contact.clone());
            let hear = move |event| listener.hear(event);
            tasks.spawn(follow(client, contact, Watched::of(kind), hear, done));
        }
        Self { tasks, listed }
    }

    /// Returns when every kind was listed once: until then nothing may be served, for it would be a part of the mesh.
    pub async fn listed(&mut self) {
        for (kind, listed) in &mut self.listed {
            while tokio::time::timeout(REMIND_EVERY, listed.wait_for(|listed| *listed))
                .await
                .is_err()
            {
                tracing::warn!(%kind, "waiting for the Kubernetes API to list it");
            }
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The API's name for a kind.
pub fn resource(kind: Kind) -> ApiResource {
    resource_at(kind, kind.api_version())
}

fn resource_at(kind: Kind, api_version: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.name().to_owned(),
        plural: plural(kind.name()),
    }
}

fn plural(kind: &str) -> String {
    let singular = kind.to_lowercase();
    match singular.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{singular}s"),
    }
}

/// What is asked of the API server.
pub(crate) struct Watched {
    pub(crate) resource: ApiResource,
    /// Another version of it, which is watched instead where the server has it.
    pub(crate) newer: Option<ApiResource>,
    pub(crate) fields: Option<&'static str>,
}

impl Watched {
    fn of(kind: Kind) -> Self {
        Self {
            resource: resource(kind),
            newer: kind
                .newer_api_version()
                .map(|newer| resource_at(kind, newer)),
            fields: (kind == Kind::Pod).then_some(LIVE_PODS),
        }
    }
}

/// Passes on what happens to a kind, for as long as the process runs.
pub(crate) async fn follow(
    client: Client,
    contact: Contact,
    watched: Watched,
    mut hear: impl FnMut(watcher::Event<DynamicObject>),
    listed: watch::Sender<bool>,
) {
    let kind = watched.resource.kind.clone();
    let versions = watched.newer.iter().chain([&watched.resource]);
    let apis = versions.map(|version| Api::all_with(client.clone(), version));
    let apis: Vec<Api<DynamicObject>> = apis.collect();
    let mut config = watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE_SIZE);
    config.field_selector = watched.fields.map(str::to_owned);
    let watch = |version: usize| watcher::watcher(apis[version].clone(), config.clone()).boxed();
    let mut version = 0;
    let mut events = watch(version);
    let mut retry = Retry(RETRY_AFTER);
    // Whether there may be objects of it, and whether the server said last that there is no such kind.
    let (mut known, mut absent) = (false, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins is a request that was not sent yet.
                if !matches!(event, watcher::Event::Init) {
                    contact.made();
                    retry = Retry(RETRY_AFTER);
                    if std::mem::take(&mut absent) {
                        tracing::info!(kind, "the API server knows this kind now");
                    }
                    known = true;
                }
                let complete = matches!(event, watcher::Event::InitDone);
                hear(event);
                if complete {
                    listed.send_replace(true);
                }
            }
            Err(error) if is_absent(&error) => {
                contact.made();
                version = (version + 1) % apis.len();
                if version > 0 {
                    events = watch(version);
                    continue; // it is absent when no version of it is there
                }
                let is_first = !listed.send_replace(true);
                if !absent && (known || is_first) {
                    tell_absent(&watched.resource, known);
                } else if known {
                    hear(watcher::Event::Init);
                    hear(watcher::Event::InitDone);
                    known = false;
                }
                absent = true;
                tokio::time::sleep(ABSENT_RETRY).await;
                events = watch(version); // a watch would go on asking for what came after its version
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::debug!(kind, reason, "watching failed");
                contact.failed(&reason);
                tokio::time::sleep(retry.after_failure()).await;
                if is_gone(&error) {
                    events = watch(version); // it would ask for the same forgotten version for ever
                }
            }
        }
    }
}

/// The answer to a list, or to a watch of what was listed.
fn is_absent(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) =
        error
    else {
        return false;
    };
    matches!(error, Error::Api(status) if status.code == 404)
}

/// `was_known`: it was listed before.
fn tell_absent(resource: &ApiResource, was_known: bool) {
    let (kind, group) = (&resource.kind, &resource.group);
    let again = ABSENT_RETRY.as_secs();
    match group == GATEWAY_GROUP && !was_known {
        true => tracing::info!(
            kind,
            "the Gateway API is not installed: looking for it every {again} s"
        ),
        false => tracing::warn!(
            kind,
            group,
            "the API server does not know this kind, its CRD is not installed: looking again every {again} s"
        ),
    }
}

/// 410 as the answer to a watch, rather than as an event in it.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(Error::Api(status)) if status.code == 410)
}

/// Later and later, and not all control planes at the same moment.
struct Retry(Duration);

impl Retry {
    fn after_failure(&mut self) -> Duration {
        let wait = self.0.mul_f64(0.5 + fastrand::f64());
        self.0 = (self.0 * 2).min(RETRY_AFTER_MAX);
        wait
    }
}

/// An error with what caused it: the outermost sentence alone is seldom the reason.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
