//! The namespaces there are, as far as injection asks about them.
//!
//! They are watched, so whoever asks has an answer at once, and one that may be a moment old. Where that will not do a
//! namespace is read anew, and the watch is left to hear of it by itself: what was read may be the older of the two.

mod lookups;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use self::lookups::Lookups;
pub use self::lookups::Unread;

use crate::injector::{self, NamespaceContext};
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::{Watched, follow};

/// Labels and annotations with one of these in their name are ours.
const OURS: &str = "weir.dev/";

type Known = HashMap<String, Arc<NamespaceContext>>;

#[derive(Clone)]
pub struct Namespaces {
    known: Arc<watch::Sender<Known>>,
    lookups: Arc<Lookups>,
}

impl Namespaces {
    pub fn new(client: Client) -> Self {
        Self {
            known: Arc::new(watch::Sender::new(Known::new())),
            lookups: Arc::new(Lookups::new(client)),
        }
    }

    /// Keeps itself up to date, for as long as the process runs.
    pub async fn follow(self, client: Client, contact: Contact, listed: watch::Sender<bool>) {
        let watched = Watched {
            resource: resource(),
            newer: None,
            fields: None,
        };
        let mut listing = Known::new();
        let hear = |event| match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                let context = context(&object);
                listing.insert(context.name.clone(), Arc::new(context));
            }
            Event::InitDone => {
                self.known.send_replace(std::mem::take(&mut listing));
            }
            Event::Apply(object) => {
                let context = context(&object);
                self.known.send_modify(|known| {
                    known.insert(context.name.clone(), Arc::new(context));
                });
            }
            Event::Delete(object) => self.known.send_modify(|known| {
                known.remove(&context(&object).name);
            }),
        };
        follow(client, contact, watched, hear, listed).await;
    }

    /// As the watch has told of it; `None`: it has not.
    pub fn get(&self, name: &str) -> Option<Arc<NamespaceContext>> {
        self.known.borrow().get(name).cloned()
    }

    /// As it is now: no older than the question. Waits a little for one that is not there yet.
    pub async fn read(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Arc<NamespaceContext>, Unread> {
        let deadline = tokio::time::Instant::now() + patience;
        let read = tokio::time::timeout_at(deadline, self.lookups.read(name)).await;
        match read.unwrap_or(Err(Unread::TooSlow(patience))) {
            Err(Unread::Missing) => {
                let mut known = self.known.subscribe();
                let made = known.wait_for(|known| known.contains_key(name));
                let made = tokio::time::timeout_at(deadline, made).await;
                let made = made.ok().and_then(Result::ok);
                made.and_then(|known| known.get(name).cloned())
                    .ok_or(Unread::Missing)
            }
            read => read,
        }
    }

    /// Those that ask for sidecars.
    pub fn enabled(&self) -> Vec<String> {
        let known = self.known.borrow();
        let enabled = known.values().filter(|namespace| {
            let label = namespace.labels.get("weir.dev/inject");
            label.is_some_and(|label| injector::asks(label) == Some(true))
        });
        enabled.map(|namespace| namespace.name.clone()).collect()
    }

    pub fn changes(&self) -> watch::Receiver<HashMap<String, Arc<NamespaceContext>>> {
        self.known.subscribe()
    }
}

fn resource() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        plural: "namespaces".to_owned(),
    }
}

fn context(object: &DynamicObject) -> NamespaceContext {
    let ours = |map: &Option<BTreeMap<String, String>>| {
        let entries = map.iter().flatten();
        entries
            .filter(|(key, _)| key.contains(OURS))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    NamespaceContext {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: ours(&object.metadata.labels),
        annotations: ours(&object.metadata.annotations),
    }
}
