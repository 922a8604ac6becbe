//! The sidecars there are, and how far each has come.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::spiffe::SpiffeId;

#[derive(Clone, Default)]
pub struct Proxies(Arc<Mutex<HashMap<ObjectName, Proxy>>>);

/// Tells a connection of a pod from the one that came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(u64);

#[derive(Debug)]
pub struct Proxy {
    identity: SpiffeId,
    proxy_version: String,
    connection: u64,
    /// While it is held, the connection stays; dropping it ends the connection.
    hold: Option<oneshot::Sender<()>>,
    connected_since_ms: u64,
    certificate_expires_ms: u64,
    pub sent_version: u64,
    pub acked_version: u64,
    pub last_nack: String,
    pub last_seen_ms: u64,
    pub destinations: usize,
    pub draining: bool,
}

impl Proxies {
    /// The receiver ends when a newer connection of the same pod takes this one's place.
    pub fn connected(
        &self,
        pod: &ObjectName,
        identity: &SpiffeId,
        proxy_version: &str,
        certificate_expires: SystemTime,
        now_ms: u64,
    ) -> (Connection, oneshot::Receiver<()>) {
        let (hold, replaced) = oneshot::channel();
        let mut proxies = self.lock();
        let before = proxies.get(pod);
        let connection = before.map_or(0, |before| before.connection + 1);
        let proxy = Proxy {
            identity: identity.clone(),
            proxy_version: proxy_version.to_owned(),
            connection,
            hold: Some(hold),
            connected_since_ms: now_ms,
            certificate_expires_ms: millis(certificate_expires),
            sent_version: 0,
            acked_version: 0,
            last_nack: String::new(),
            last_seen_ms: now_ms,
            destinations: 0,
            draining: false,
        };
        proxies.insert(pod.clone(), proxy);
        (Connection(connection), replaced)
    }

    pub fn disconnected(&self, pod: &ObjectName, connection: Connection, now_ms: u64) {
        if let Some(proxy) = self
            .lock()
            .get_mut(pod)
            .filter(|proxy| proxy.connection == connection.0)
        {
            proxy.hold = None;
            proxy.last_seen_ms = now_ms;
        }
    }

    /// Those that have a stream now.
    pub fn connected_pods(&self) -> BTreeSet<ObjectName> {
        let proxies = self.lock();
        let connected = proxies.iter().filter(|(_, proxy)| proxy.hold.is_some());
        connected.map(|(pod, _)| pod.clone()).collect()
    }

    /// Those that were draining when they left, at `before_ms` or earlier.
    pub fn left_draining(&self, before_ms: u64) -> Vec<ObjectName> {
        let proxies = self.lock();
        let left = proxies.iter().filter(|(_, proxy)| {
            proxy.draining && proxy.hold.is_none() && proxy.last_seen_ms <= before_ms
        });
        left.map(|(pod, _)| pod.clone()).collect()
    }

    pub fn update(&self, pod: &ObjectName, update: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.lock().get_mut(pod) {
            update(proxy);
        }
    }

    pub fn certified(&self, pod: &ObjectName, expires: SystemTime) {
        self.update(pod, |proxy| proxy.certificate_expires_ms = millis(expires));
    }

    /// Those that are not connected and whose pod is gone.
    pub fn forget(&self, is_gone: impl Fn(&ObjectName) -> bool) {
        self.lock()
            .retain(|pod, proxy| proxy.hold.is_some() || !is_gone(pod));
    }

    /// By name.
    pub fn rows(&self) -> Vec<pb::ProxyStatus> {
        let row = |(pod, proxy): (&ObjectName, &Proxy)| pb::ProxyStatus {
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            identity: proxy.identity.to_string(),
            proxy_version: proxy.proxy_version.clone(),
            connected: proxy.hold.is_some(),
            sent_version: proxy.sent_version,
            acked_version: proxy.acked_version,
            last_nack: proxy.last_nack.clone(),
            connected_since_ms: proxy.connected_since_ms,
            last_seen_ms: proxy.last_seen_ms,
            destinations: u32::try_from(proxy.destinations).unwrap_or(u32::MAX),
            certificate_expires_ms: proxy.certificate_expires_ms,
            draining: proxy.draining,
        };
        let mut rows: Vec<_> = self.lock().iter().map(row).collect();
        rows.sort_by(|a, b| (&a.pod_namespace, &a.pod_name).cmp(&(&b.pod_namespace, &b.pod_name)));
        rows
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectName, Proxy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
