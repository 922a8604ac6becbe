//! Endpoints that are DNS names, kept fresh: each is asked for again when its answer ends.
//!
//! A name that does not answer keeps its last good addresses. The number of names, of queries at a time and of
//! addresses is bounded, and an answer that is good for no time is good for a second.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::TokioResolver;
use tokio::time::{Instant, sleep_until};

use crate::mesh::Mesh;

const NAMES_MAX: usize = 1000;
const QUERIES_MAX: usize = 32;
const ADDRESSES_MAX: usize = 1000;
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);
const RETRY_AFTER: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Where names are looked up.
pub trait Lookup: Clone + Send + Sync + 'static {
    /// The addresses, and for how long.
    fn lookup(
        &self,
        name: String,
    ) -> impl Future<Output = Result<(Vec<IpAddr>, Duration), String>> + Send;
}

impl Lookup for TokioResolver {
    async fn lookup(&self, name: String) -> Result<(Vec<IpAddr>, Duration), String> {
        let answer = self
            .lookup_ip(name)
            .await
            .map_err(|error| error.to_string())?;
        let left =
            Instant::from_std(answer.valid_until()).saturating_duration_since(Instant::now());
        Ok((answer.iter().collect(), left))
    }
}

/// Runs for as long as the process does.
pub async fn keep_resolved(mesh: Mesh, lookup: impl Lookup) {
    let mut wanted = mesh.names();
    let mut due: HashMap<String, Instant> = HashMap::new();
    let mut queries = FuturesUnordered::new();
    loop {
        follow(&wanted.borrow_and_update(), &mut due);
        // The earliest first, as many as may be under way; one that is under way has no time to be due.
        while queries.len() < QUERIES_MAX
            && let Some(name) = take_due(&mut due, Instant::now())
        {
            queries.push(query(lookup.clone(), name));
        }
        let next = due
            .values()
            .min()
            .copied()
            .filter(|_| queries.len() < QUERIES_MAX);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some((name, again_at, addresses)) = queries.next() => {
                if let Some(addresses) = addresses {
                    mesh.resolved(&name, addresses);
                }
                due.insert(name, again_at);
            }
        }
    }
}

/// New names are due at once; those that nobody wants are forgotten (one under way comes back and is forgotten then).
fn follow(wanted: &BTreeSet<String>, due: &mut HashMap<String, Instant>) {
    if wanted.len() > NAMES_MAX {
        tracing::warn!(
            names = wanted.len(),
            "more names among the endpoints than are kept resolved"
        );
    }
    due.retain(|name, _| wanted.contains(name));
    for name in wanted.iter().take(NAMES_MAX) {
        if !due.contains_key(name) {
            due.insert(name.clone(), Instant::now());
        }
    }
}

fn take_due(due: &mut HashMap<String, Instant>, now: Instant) -> Option<String> {
    let (name, _) = due
        .iter()
        .filter(|(_, at)| **at <= now)
        .min_by_key(|(_, at)| **at)?;
    let name = name.clone();
    // Until it is answered: not forgotten, and not asked again.
    due.insert(name.clone(), now + QUERY_TIMEOUT + RETRY_AFTER);
    Some(name)
}

async fn query(lookup: impl Lookup, name: String) -> (String, Instant, Option<Vec<IpAddr>>) {
    let answer = tokio::time::timeout(QUERY_TIMEOUT, lookup.lookup(name.clone())).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    match answer {
        Ok((mut addresses, ttl)) if !addresses.is_empty() => {
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(ADDRESSES_MAX);
            (
                name,
                Instant::now() + ttl.clamp(TTL_MIN, TTL_MAX),
                Some(addresses),
            )
        }
        Ok(_) => (name, Instant::now() + RETRY_AFTER, None),
        Err(error) => {
            tracing::warn!(
                name,
                error,
                "the name does not resolve; its last good addresses stay in force"
            );
            (name, Instant::now() + RETRY_AFTER, None)
        }
    }
}

#[cfg(test)]
mod tests;
