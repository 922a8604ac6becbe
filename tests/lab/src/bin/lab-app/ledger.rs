//! How many bytes each named stream has moved so far, or how many are open: what a test looks at to see whether a sender
//! is blocked, or a call gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

static LEDGER: LazyLock<Mutex<BTreeMap<String, Arc<AtomicU64>>>> = LazyLock::new(Mutex::default);

/// The entry of one stream; a test gives each stream a name of its own.
pub(crate) fn entry(name: &str) -> Arc<AtomicU64> {
    let mut ledger = LEDGER.lock().expect("no panic while locked");
    ledger.entry(name.to_owned()).or_default().clone()
}

/// One more that is open under this name, for as long as this lives.
pub(crate) struct Open(Arc<AtomicU64>);

impl Open {
    pub(crate) fn new(name: &str) -> Self {
        let open = entry(name);
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `name number`, a line each.
pub(crate) fn render() -> String {
    let ledger = LEDGER.lock().expect("no panic while locked");
    let lines = ledger
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", bytes.load(Ordering::Relaxed)));
    lines.collect()
}
