//! On which node each sidecar is.

use weir_config::resource::Pod;
use weir_config::snapshot::ServiceKey;

use super::Board;

impl Board {
    /// A sidecar is on its pod's node, which may be heard of later than the pod; some services it calls only there.
    pub(in crate::mesh) fn place(&mut self, pod: &Pod) {
        let node = pod.node().unwrap_or_default();
        let sessions = self.sessions_of_pod.get(&pod.metadata.object_name());
        for id in sessions.into_iter().flatten() {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            if session.node == node {
                continue;
            }
            session.node = node.to_owned();
            let wanted = session.services.keys().chain(&session.others);
            let is_node_local = |key: &&ServiceKey| {
                let wanted = self.services.get(*key);
                let published = wanted.and_then(|wanted| wanted.published.as_ref());
                published.is_some_and(|published| published.of_node.is_some())
            };
            for key in wanted.filter(is_node_local) {
                session.mailbox.mark(|dirty| {
                    dirty.services.insert(key.clone());
                    dirty.urgent = true;
                });
            }
        }
    }
}
