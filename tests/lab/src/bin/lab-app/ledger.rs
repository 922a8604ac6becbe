//! How many bytes each named stream has moved so far: what a test looks at to see whether a sender is blocked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

static LEDGER: LazyLock<Mutex<BTreeMap<String, Arc<AtomicU64>>>> = LazyLock::new(Mutex::default);

/// The entry of one stream; a test gives each stream a name of its own.
pub(crate) fn entry(name: &str) -> Arc<AtomicU64> {
    let mut ledger = LEDGER.lock().expect("no panic while locked");
    ledger.entry(name.to_owned()).or_default().clone()
}

/// `name bytes`, a line each.
pub(crate) fn render() -> String {
    let ledger = LEDGER.lock().expect("no panic while locked");
    let lines = ledger
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", bytes.load(Ordering::Relaxed)));
    lines.collect()
}
