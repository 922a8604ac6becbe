//! What each of several control planes counts of the sidecars that are connected to it, for the one that writes status.
//!
//! ```text
//!   everybody but the holder ──▶ its own counts, in an annotation of the shared Lease, with each look at it
//!   the holder ──▶ reads them with each renewal, drops whose stay as they are, and adds the rest to its own
//! ```
//!
//! A count is of one generation of a policy: a sidecar that has acknowledged another one has not acknowledged this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use weir_config::ResourceRef;
use weir_config::index::Attachment;

use crate::breakers::NotClosed;
use crate::mesh::{Enforcement, Mesh};
use crate::source::kubernetes::register::Register;
use crate::spiffe::is_name;

const PREFIX: &str = "counts.weir.dev/";
/// Of one control plane: several hundred policies.
const BYTES_MAX: usize = 48 * 1024;
/// Of all of them. An object may have annotations of 256 KiB, and the Lease must never be refused for its own.
const ALL_BYTES_MAX: usize = 192 * 1024;

pub(super) type Annotations = BTreeMap<String, String>;

/// What one control plane says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    pod: String,
    /// Another one each time, so that whoever is gone is told from whoever has no news.
    beat: u64,
    /// There was no room for all of its policies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    /// By kind and name; only those that any sidecar of its is concerned with.
    policies: BTreeMap<String, Counted>,
}

/// Of one generation of a policy, target by target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counted(Option<i64>, Vec<Count>);

/// Sidecars concerned, those that have it in force, and one that has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count(usize, usize, #[serde(default)] Option<String>);

/// This control plane's own counts, and those of the others as it has read them.
pub struct Peers {
    pod: String,
    mesh: Mesh,
    register: Register,
    beat: u64,
    /// What the counts follow from, and the counts.
    counted: Option<(Cause, BTreeMap<String, Counted>)>,
    /// By annotation: as it was last, and since when.
    seen: BTreeMap<String, (String, Instant)>,
    others: Others,
}

type Cause = (u64, u64, u64);

/// A handle for whoever adds them up.
#[derive(Clone, Default)]
pub struct Others(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    said: Vec<Said>,
    /// The other control planes, by the names of their pods.
    pods: BTreeSet<String>,
    revision: u64,
}

impl Peers {
    pub fn new(pod: &str, mesh: Mesh, register: Register) -> Self {
        Self {
            pod: pod.to_owned(),
            mesh,
            register,
            beat: 0,
            counted: None,
            seen: BTreeMap::new(),
            others: Others::default(),
        }
    }

    pub fn others(&self) -> Others {
        self.others.clone()
    }

    /// For a control plane that does not write status: says what it counts.
    pub fn tell(&mut self, annotations: &mut Annotations) {
        self.others.replace(Vec::new());
        self.seen.clear();
        self.beat += 1;
        let own = key(&self.pod);
        annotations.remove(&own);
        let others = annotations
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let room = ALL_BYTES_MAX.saturating_sub(others.sum()).min(BYTES_MAX);
        let said = Said {
            pod: self.pod.clone(),
            beat: self.beat,
            cut: false,
            policies: self.counts(),
        };
        annotations.extend(fitted(said, room).map(|text| (own, text)));
    }

    /// For the one that writes status: takes over what the others say, and forgets those who have said nothing for
    /// `patience`.
    pub fn learn(&mut self, annotations: &mut Annotations, patience: Duration) {
        annotations.remove(&key(&self.pod));
        let now = Instant::now();
        self.seen.retain(|key, _| annotations.contains_key(key));
        let mut said = Vec::new();
        annotations.retain(|key, text| {
            if !key.starts_with(PREFIX) {
                return true;
            }
            let (before, since) = self.seen.entry(key.clone()).or_insert((text.clone(), now));
            if before != text {
                (*before, *since) = (text.clone(), now);
            }
            let is_fresh = now.saturating_duration_since(*since) < patience;
            let parsed = serde_json::from_str::<Said>(text).ok();
            let fresh =
                parsed.filter(|it| is_fresh && text.len() <= BYTES_MAX && key_is_of(key, it));
            let is_kept = fresh.is_some();
            said.extend(fresh);
            is_kept
        });
        self.others.replace(said);
    }

    /// Notes who there is beside this one: whoever says what it counts, and `holder`, who does not.
    pub fn meet(&self, annotations: &Annotations, holder: &str) {
        let ours = annotations
            .iter()
            .filter(|(key, _)| key.starts_with(PREFIX));
        let counting = ours.filter_map(|(key, text)| {
            let said = serde_json::from_str::<Said>(text).ok()?;
            key_is_of(key, &said).then_some(said.pod)
        });
        let all = counting.chain([holder.to_owned()]);
        let pods = all.filter(|pod| *pod != self.pod && is_name(pod)).collect();
        self.others.lock().pods = pods;
    }

    fn counts(&mut self) -> BTreeMap<String, Counted> {
        let cause = (
            self.mesh.version(),
            self.mesh.acknowledgements(),
            self.register.revision(),
        );
        if let Some((known, counts)) = &self.counted
            && *known == cause
        {
            return counts.clone();
        }
        let mut counts = BTreeMap::new();
        for (resource, entry) in self.register.entries() {
            if !resource.kind.is_ours() || !entry.refused.is_empty() {
                continue;
            }
            let enforcement = self.mesh.enforcement(&resource, &NotClosed::default());
            let targets: Vec<Count> = enforcement.iter().flatten().map(count).collect();
            if targets.iter().any(|count| count.0 > 0) {
                counts.insert(resource.to_string(), Counted(entry.generation, targets));
            }
        }
        self.counted = Some((cause, counts.clone()));
        counts
    }
}

impl Others {
    /// The names of their pods, as they were told last.
    pub fn pods(&self) -> Vec<String> {
        self.lock().pods.iter().cloned().collect()
    }

    /// Grows with every change.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Adds the others' counts of one policy, of which `generation` is in force here.
    pub fn add(
        &self,
        resource: &ResourceRef,
        generation: Option<i64>,
        enforcement: &mut [Enforcement],
    ) {
        let state = self.lock();
        if state.said.is_empty() {
            return;
        }
        let name = resource.to_string();
        for said in &state.said {
            let Some(Counted(of, counts)) = said.policies.get(&name) else {
                if said.cut {
                    for found in &mut *enforcement {
                        found.untold.get_or_insert_with(|| said.pod.clone());
                    }
                }
                continue;
            };
            for (found, Count(proxies, acknowledged, behind)) in enforcement.iter_mut().zip(counts)
            {
                if found.attachment != Attachment::Accepted {
                    continue;
                }
                found.proxies += proxies;
                if *of == generation {
                    found.acknowledged += acknowledged;
                    found.behind = found.behind.take().or_else(|| behind.clone());
                } else if *proxies > 0 {
                    let theirs = || format!("those of {}", said.pod);
                    found.behind = Some(found.behind.take().unwrap_or_else(theirs));
                }
            }
        }
    }

    fn replace(&self, said: Vec<Said>) {
        let mut state = self.lock();
        let same =
            |(a, b): (&Said, &Said)| (&a.pod, a.cut, &a.policies) == (&b.pod, b.cut, &b.policies);
        let is_news = state.said.len() != said.len() || !state.said.iter().zip(&said).all(same);
        if is_news {
            state.said = said;
            state.revision += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(found: &Enforcement) -> Count {
    Count(found.proxies, found.acknowledged, found.behind.clone())
}

/// As JSON, without what there is no room for; `None`: not even who says it.
fn fitted(mut said: Said, room: usize) -> Option<String> {
    loop {
        let text = serde_json::to_string(&said).expect("counts are plain data");
        if text.len() <= room {
            return Some(text);
        }
        let kept = said.policies.len() / 2;
        let rest = said.policies.keys().nth(kept).cloned()?;
        said.policies.split_off(&rest);
        said.cut = true;
    }
}

/// A pod's name may be longer than an annotation's.
fn key(pod: &str) -> String {
    format!("{PREFIX}{}", digest(pod))
}

/// Short, and another one for each name.
pub(super) fn digest(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let bytes = digest.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn key_is_of(own: &str, said: &Said) -> bool {
    own == key(&said.pod)
}

#[cfg(test)]
mod tests;
