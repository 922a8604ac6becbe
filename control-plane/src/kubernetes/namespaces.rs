//! The namespaces there are, as far as injection asks about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::injector::{self, NamespaceContext};
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::{Watched, follow};

/// Labels and annotations with one of these in their name are ours.
const OURS: &str = "weir.dev/";

type Known = HashMap<String, Arc<NamespaceContext>>;

#[derive(Clone)]
pub struct Namespaces(Arc<watch::Sender<Known>>);

impl Default for Namespaces {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Known::new())))
    }
}

impl Namespaces {
    /// Keeps itself up to date, for as long as the process runs.
    pub async fn follow(self, client: Client, contact: Contact, listed: watch::Sender<bool>) {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            plural: "namespaces".to_owned(),
        };
        let watched = Watched {
            resource,
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
                self.0.send_replace(std::mem::take(&mut listing));
            }
            Event::Apply(object) => {
                let context = context(&object);
                self.0.send_modify(|known| {
                    known.insert(context.name.clone(), Arc::new(context));
                });
            }
            Event::Delete(object) => self.0.send_modify(|known| {
                known.remove(&context(&object).name);
            }),
        };
        follow(client, contact, watched, hear, listed).await;
    }

    /// Waits a little for one that is not known.
    pub async fn get_soon(&self, name: &str, patience: Duration) -> Option<Arc<NamespaceContext>> {
        let mut known = self.0.subscribe();
        let found = known.wait_for(|known| known.contains_key(name));
        let found = tokio::time::timeout(patience, found).await.ok()?.ok()?;
        found.get(name).cloned()
    }

    /// Those that ask for sidecars.
    pub fn enabled(&self) -> Vec<String> {
        let known = self.0.borrow();
        let enabled = known.values().filter(|namespace| {
            let label = namespace.labels.get("weir.dev/inject");
            label.is_some_and(|label| injector::asks(label) == Some(true))
        });
        enabled.map(|namespace| namespace.name.clone()).collect()
    }

    pub fn changes(&self) -> watch::Receiver<HashMap<String, Arc<NamespaceContext>>> {
        self.0.subscribe()
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
