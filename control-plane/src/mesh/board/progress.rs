//! What each sidecar has in force, as it acknowledged it.

use std::sync::Arc;

use prost::bytes::Bytes;
use weir_config::compile;
use weir_config::index::Index;
use weir_config::resource::ObjectName;
use weir_config::snapshot::ServiceKey;

use super::{Board, SessionId};
use crate::mesh::{Held, Published};

impl Board {
    pub(in crate::mesh) fn acknowledged(&mut self, id: SessionId, held: &Held) {
        self.acknowledgements += 1;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        for key in &held.gone {
            session.holds.remove(key);
        }
        session.holds.extend(held.policies.iter().cloned());
        if let Some(workload) = &held.workload {
            session.workload = Some(workload.clone());
        }
    }

    pub(in crate::mesh) fn acknowledgements(&self) -> u64 {
        self.acknowledgements
    }

    /// What it should hold: as callers in its namespace and on its node are to have it.
    pub(in crate::mesh) fn published_to(
        &self,
        id: SessionId,
        key: &ServiceKey,
    ) -> Option<Arc<Published>> {
        let session = self.sessions.get(&id)?;
        let published = self.services.get(key)?.published.as_ref()?;
        let published = published.for_callers_in(&session.pod.namespace);
        Some(published.for_callers_on(&session.node).clone())
    }

    pub(in crate::mesh) fn holds(&self, id: SessionId, key: &ServiceKey) -> Option<&Bytes> {
        self.sessions.get(&id)?.holds.get(key)
    }

    pub(in crate::mesh) fn workload(&self, id: SessionId) -> Option<&Bytes> {
        self.sessions.get(&id)?.workload.as_ref()
    }

    /// What its own workload should be: compiled once, however many ask, until something that it follows from changes.
    /// `None`: its pod is not known.
    pub(in crate::mesh) fn wanted_workload(&self, id: SessionId, index: &Index) -> Option<Bytes> {
        let session = self.sessions.get(&id)?;
        let mut known = session.wanted_workload.borrow_mut();
        if known.is_none() {
            *known = compile::workload(index, &session.pod).map(|workload| {
                serde_json::to_vec(&workload)
                    .expect("a workload is plain data")
                    .into()
            });
        }
        known.clone()
    }

    pub(in crate::mesh) fn pod_of(&self, id: SessionId) -> Option<ObjectName> {
        self.sessions.get(&id).map(|session| session.pod.clone())
    }

    pub(in crate::mesh) fn sessions(&self) -> impl Iterator<Item = (SessionId, &ObjectName)> {
        self.sessions
            .iter()
            .map(|(id, session)| (*id, &session.pod))
    }

    /// Service ports that anybody wants.
    pub(in crate::mesh) fn wanted(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    pub(in crate::mesh) fn wanting(&self, key: &ServiceKey) -> impl Iterator<Item = SessionId> {
        let wanted = self.services.get(key).map(|wanted| &wanted.by);
        wanted.into_iter().flatten().copied()
    }
}
