//! One sidecar's part in the mesh: what it asks for, what is new for it, what it has taken over.

use std::net::SocketAddr;
use std::sync::Arc;

use prost::bytes::Bytes;
use weir_config::pb::destination::Target;
use weir_config::snapshot::ServiceKey;

use super::{Dirty, Mailbox, Mesh, Published, SessionId};

/// A sidecar's place on the board; leaving it is dropping it.
pub struct Membership {
    mesh: Mesh,
    id: SessionId,
    mailbox: Arc<Mailbox>,
}

/// What a sidecar has acknowledged of one push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub policies: Vec<(ServiceKey, Bytes)>,
    pub gone: Vec<ServiceKey>,
    pub workload: Option<Bytes>,
}

/// The news behind a [`Dirty`], as of `version`.
pub struct News {
    pub version: u64,
    pub destinations: Vec<(SocketAddr, Target)>,
    pub services: Vec<Arc<Published>>,
    /// Services that none of the sidecar's addresses leads to any more.
    pub gone: Vec<ServiceKey>,
    pub workload: Option<Bytes>,
    pub trust_bundle: Option<Arc<[Bytes]>>,
}

impl Membership {
    pub(super) fn new(mesh: Mesh, id: SessionId, mailbox: Arc<Mailbox>) -> Self {
        Self { mesh, id, mailbox }
    }

    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub fn subscribe(&self, address: SocketAddr) {
        let mut state = self.mesh.state();
        state.subscribe(self.id, address);
        let names = state.names();
        drop(state);
        self.mesh.publish_names(names);
    }

    pub fn unsubscribe(&self, address: SocketAddr) {
        let mut state = self.mesh.state();
        state.board.unsubscribe(self.id, address);
        state.settle(self.id);
        let names = state.names();
        drop(state);
        self.mesh.publish_names(names);
    }

    pub fn subscriptions(&self) -> usize {
        self.mesh.state().board.subscriptions(self.id)
    }

    /// The sidecar has put this in force.
    pub fn acknowledged(&self, held: &Held) {
        self.mesh.state().board.acknowledged(self.id, held);
    }

    /// The news behind `dirty`.
    pub fn collect(&self, dirty: &Dirty) -> News {
        let state = self.mesh.state();
        let workload = dirty
            .workload
            .then(|| state.board.wanted_workload(self.id, &state.index))
            .flatten();
        let wants = |key: &&ServiceKey| state.board.wants(self.id, key);
        let (wanted, gone): (Vec<_>, Vec<_>) = dirty.services.iter().partition(wants);
        let services = wanted
            .into_iter()
            .filter_map(|key| state.board.published_to(self.id, key))
            .collect();
        let gone = gone.into_iter().cloned().collect();
        News {
            version: state.versions.current(),
            destinations: state.board.destinations(self.id, dirty),
            services,
            gone,
            workload,
            trust_bundle: dirty.trust_bundle.then(|| state.trust_bundle.clone()),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.mesh.state();
        state.board.leave(self.id);
        let names = state.names();
        drop(state);
        self.mesh.publish_names(names);
    }
}
