//! Breakers that an operator holds, for all control planes of a mesh: he asks one of them, and means every caller.
//!
//! ```text
//!   what was agreed ─┬─▶ changed here ───────▶ into the Lease's annotations
//!                    └─▶ changed over there ─▶ in force here, and on record
//! ```
//!
//! A merge of three, with each look at the Lease: what differs here from what was agreed goes out, whatever else differs comes
//! in. So it does not matter who is asked, who holds the Lease, or who was away meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_config::snapshot::{Force, Forced, ServiceKey};

use super::peers::{Annotations, digest};
use crate::forced::{self, HOLDS_MAX};
use crate::journal::{Journal, now_ms};
use crate::mesh::Mesh;

const PREFIX: &str = "forced.weir.dev/";
/// What an operator asks for is not to wait for the next look at the Lease.
const LOOK_EVERY: Duration = Duration::from_millis(250);

type Held = BTreeMap<ServiceKey, Forced>;

/// One hold, as an annotation has it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    service: String,
    to: String,
    until_ms: u64,
}

pub struct Holds {
    mesh: Mesh,
    journal: Journal,
    /// As the Lease had it after the last look.
    agreed: Held,
}

/// What is to be in force everywhere, once the Lease says so.
pub struct Merged {
    all: Held,
    /// What it was here when that was found out.
    here: Held,
}

impl Holds {
    /// What the journal remembers is known to all, unless the Lease says otherwise.
    pub fn new(mesh: Mesh, journal: Journal) -> Self {
        let agreed = mesh.forced();
        Self {
            mesh,
            journal,
            agreed,
        }
    }

    /// Returns when something is held here, or is no longer, that nobody else knows of.
    pub async fn news(&self) {
        while self.mesh.forced() == self.agreed {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Brings the annotations up to date. Nothing changes here before they are written.
    pub fn merge(&self, annotations: &mut Annotations) -> Merged {
        let (here, there) = (self.mesh.forced(), read(annotations, now_ms()));
        let mut all = Held::new();
        for key in keys([&self.agreed, &here, &there]) {
            let is_changed_here = here.get(&key) != self.agreed.get(&key);
            let held = if is_changed_here { &here } else { &there };
            all.extend(held.get(&key).map(|forced| (key, *forced)));
        }
        // Several may have been asked at once, each for as many as there may be: the Lease must never be refused for it.
        while all.len() > HOLDS_MAX {
            all.pop_last();
        }
        annotations.retain(|key, _| !key.starts_with(PREFIX));
        annotations.extend(all.iter().map(annotation));
        Merged { all, here }
    }

    /// For a Lease that is new: it has nothing to say of what was agreed.
    pub fn tell(&self, annotations: &mut Annotations) -> Merged {
        let here = self.mesh.forced();
        annotations.extend(here.iter().map(annotation));
        let all = here.clone();
        Merged { all, here }
    }

    /// They are written.
    pub fn agree(&mut self, merged: Merged) {
        let Merged { all, here } = merged;
        let now = self.mesh.forced();
        let changes: Vec<_> = keys([&all, &here])
            .into_iter()
            // What an operator has changed since then is news for the next look.
            .filter(|key| now.get(key) == here.get(key) && now.get(key) != all.get(key))
            .map(|key| {
                let forced = all.get(&key).copied();
                (key, forced)
            })
            .collect();
        for (key, held) in &changes {
            let why = "another control plane let go of it";
            self.journal.note(forced::fact(key, *held, why));
        }
        if !changes.is_empty() {
            self.mesh.force(changes);
        }
        self.agreed = all;
    }
}

fn keys<const N: usize>(of: [&Held; N]) -> BTreeSet<ServiceKey> {
    of.into_iter()
        .flat_map(|held| held.keys().cloned())
        .collect()
}

/// What is over, or cannot be read, is as if it were not there.
fn read(annotations: &Annotations, now_ms: u64) -> Held {
    let longest = u64::try_from(forced::FOR_MAX.as_millis()).unwrap_or(u64::MAX);
    let said = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(PREFIX));
    let held = said.filter_map(|(_, text)| {
        let Said {
            service,
            to,
            until_ms,
        } = serde_json::from_str(text).ok()?;
        let to = match to.as_str() {
            "open" => Force::Open,
            "closed" => Force::Closed,
            _ => return None,
        };
        let until_ms = until_ms.min(now_ms.saturating_add(longest));
        let forced = Forced { to, until_ms };
        (until_ms > now_ms).then_some((forced::key_of(&service)?, forced))
    });
    held.take(HOLDS_MAX).collect()
}

/// A service's name may be longer than an annotation's.
fn annotation((key, forced): (&ServiceKey, &Forced)) -> (String, String) {
    let said = Said {
        service: key.to_string(),
        to: forced.to.as_str().to_owned(),
        until_ms: forced.until_ms,
    };
    let text = serde_json::to_string(&said).expect("it is plain data");
    (format!("{PREFIX}{}", digest(&said.service)), text)
}

#[cfg(test)]
mod tests;
