//! Hooks that are under way: each runs once at a time, whoever asks for it.
//!
//! ```text
//!   call ──▶ under way? ── no ──▶ ask the app ──▶ answer
//!                       └─ yes ─▶ wait ────────────▲
//! ```
//!
//! So nobody can have an app shut down twice at once, and a kubelet that comes second learns when the first is done. It
//! ends when it has an answer or when nobody waits for it any more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

use super::ProbeResult;

type Asking = Pin<Box<dyn Future<Output = ProbeResult> + Send>>;

#[derive(Default)]
pub(super) struct Hooks(Mutex<BTreeMap<String, WeakShared<Asking>>>);

impl Hooks {
    pub(super) async fn run(
        &self,
        key: &str,
        ask: impl Future<Output = ProbeResult> + Send + 'static,
    ) -> ProbeResult {
        self.under_way(key, ask).await
    }

    fn under_way(
        &self,
        key: &str,
        ask: impl Future<Output = ProbeResult> + Send + 'static,
    ) -> Shared<Asking> {
        let mut running = self.0.lock().expect("no panic while locked");
        let is_running = |asking: &Shared<Asking>| asking.peek().is_none();
        if let Some(asking) = running.get(key).and_then(WeakShared::upgrade)
            && is_running(&asking)
        {
            return asking;
        }
        let asking = (Box::pin(ask) as Asking).shared();
        let weak = asking.downgrade().expect("it has not been asked yet");
        running.insert(key.to_owned(), weak);
        asking
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hooks")
    }
}
