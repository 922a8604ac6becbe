//! Single namespaces, read anew: one look-up for all who ask about the same one before it begins, and one at a time.
//!
//! ```text
//!   asked ─▶ joins the next look-up ─▶ the one before has ended, a turn ─▶ it begins ─▶ read ─▶ all of them are told
//!                                                                          └─ who asks from here on joins the next
//! ```
//!
//! One that has begun may have read what was before somebody's question: it answers nobody who came later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use tokio::sync::{OnceCell, Semaphore};

use super::{context, resource};
use crate::injector::NamespaceContext;
use crate::source::kubernetes::chain;

/// At a time. Whoever reaches the webhook's port can have them made: the API server must not feel it.
const LOOKUPS_MAX: usize = 4;
/// Of a name, which is a DNS label.
const NAME_BYTES_MAX: usize = 63;

/// Why nothing is known of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("there is no such namespace")]
    Missing,
    #[error("the Kubernetes API does not tell: {0}")]
    Failed(String),
    #[error("the Kubernetes API has not told within {} s", .0.as_secs())]
    TooSlow(Duration),
}

type Found = Result<Arc<NamespaceContext>, Unread>;

pub(super) struct Lookups {
    api: Api<DynamicObject>,
    turns: Semaphore,
    /// Of the namespaces that somebody asks about now.
    places: Mutex<HashMap<String, Weak<Place>>>,
}

#[derive(Default)]
struct Place {
    /// Held while the namespace is read.
    reading: tokio::sync::Mutex<()>,
    /// Has not begun.
    next: Mutex<Arc<Lookup>>,
}

type Lookup = OnceCell<Found>;

impl Lookups {
    pub(super) fn new(client: Client) -> Self {
        Self {
            api: Api::all_with(client, &resource()),
            turns: Semaphore::new(LOOKUPS_MAX),
            places: Mutex::default(),
        }
    }

    /// No older than the call.
    pub(super) async fn read(&self, name: &str) -> Found {
        if !is_name(name) {
            return Err(Unread::Missing);
        }
        let place = self.place(name);
        let lookup = place.next();
        // When whoever began it leaves, another who waits for it begins it again.
        let found = lookup.get_or_init(async || {
            let _alone = place.reading.lock().await;
            let _turn = self.turns.acquire().await;
            place.begin(&lookup);
            self.list(name).await
        });
        found.await.clone()
    }

    fn place(&self, name: &str) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(name).and_then(Weak::upgrade) {
            return place;
        }
        // Nobody asks about them any more.
        places.retain(|_, place| place.strong_count() > 0);
        let place = Arc::default();
        places.insert(name.to_owned(), Arc::downgrade(&place));
        place
    }

    /// A list of one needs no right that the watch has not, and without a version it is of what is written now, and not
    /// of what the API server remembers.
    async fn list(&self, name: &str) -> Found {
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        let listed = self.api.list(&only).await;
        let listed = listed.map_err(|error| Unread::Failed(chain(&error)))?;
        let mut found = listed.items.iter().map(context);
        let found = found.find(|found| found.name == name);
        found.map(Arc::new).ok_or(Unread::Missing)
    }
}

impl Place {
    fn next(&self) -> Arc<Lookup> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.clone()
    }

    /// Nobody joins it any more.
    fn begin(&self, lookup: &Arc<Lookup>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&next, lookup) {
            *next = Arc::default();
        }
    }
}

/// Nothing else may stand in a selector.
fn is_name(text: &str) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    fits && text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
