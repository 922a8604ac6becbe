//! Looks at the watched sidecars all the time, and at whatever else a claim is about before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, sleep};

use super::action::get;
use super::backlog;
use super::claim::Measure;
use super::orders::Orders;
use super::record::Look;
use super::scenario::Scenario;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::ruleset::lost;

const EVERY: Duration = Duration::from_millis(200);
/// After a stream broke, before the next is opened.
const REOPEN: Duration = Duration::from_millis(500);
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Looks until it is aborted.
pub async fn keep_looking(
    stage: Stage,
    scenario: Scenario,
    start: Instant,
    looks: tokio::sync::mpsc::UnboundedSender<Look>,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Some(look) = look(&stage, &scenario, start).await
            && looks.send(look).is_err()
        {
            return;
        }
    }
}

async fn look(stage: &Stage, scenario: &Scenario, start: Instant) -> Option<Look> {
    let watched = |workload: &str| scenario.watch.iter().any(|watched| watched == workload);
    let all = stage.shop().metrics_where(watched).await;
    let first = &all.first()?.1;
    let silent = all.iter().any(|(_, metrics)| metrics.is_empty());
    let focus = scenario.focus.as_deref();
    let attempts = focus.filter(|_| !silent).map(|focus| {
        let of = [("service", focus)];
        let each = all.iter();
        each.map(|(_, metrics)| metrics.sum("weir_attempts_total", &of))
            .sum()
    });
    Some(Look {
        t: start.elapsed().as_secs_f64(),
        attempts,
        in_flight: first.sum("weir_inbound_in_flight", &[]),
        limit: first.sum("weir_inbound_limit", &[]),
        connected: silent || first.sum("weir_control_plane_connected", &[]) == 1.0,
    })
}

/// Holds a page open that never ends; whenever it ends all the same, that is counted, and it is opened again.
pub async fn hold(stage: Stage, path: String, counts: tokio::sync::watch::Sender<(u64, u64)>) {
    loop {
        let _ = follow(&stage, &path, &counts).await;
        counts.send_modify(|(_, breaks)| *breaks += 1);
        sleep(REOPEN).await;
    }
}

async fn follow(
    stage: &Stage,
    path: &str,
    counts: &tokio::sync::watch::Sender<(u64, u64)>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(stage.shop().address()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = vec![0; 4096];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let events = bytes[..read]
            .windows(6)
            .filter(|six| six == b"data: ")
            .count();
        counts.send_modify(|(seen, _)| *seen += events as u64);
    }
}

/// What is counted before and after.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    numbers: BTreeMap<String, f64>,
    /// Of the workloads that a claim about memory names: their sidecars, none of one that does not run.
    sidecars: BTreeMap<String, Vec<Option<Sidecar>>>,
    /// Of the workloads that a claim about other pods names: their pods' uids.
    pods: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sidecar {
    pid: i32,
    mib: f64,
}

impl Counts {
    pub async fn of(stage: &Stage, scenario: &Scenario) -> Result<Self> {
        let mut counts = Self::default();
        if let Some(counter) = &scenario.counter {
            let text = get(stage, &counter.pod, counter.port, &counter.path).await?;
            let number = text.trim().parse();
            let number = number.map_err(|_| {
                Error::Request(format!(
                    "{}{}: {text:?} is no number",
                    counter.pod, counter.path
                ))
            })?;
            counts.numbers.insert("arrivals".to_owned(), number);
        }
        for claim in scenario.must.iter().chain(&scenario.without) {
            match (claim.measure, &claim.about) {
                (Measure::Memory, Some(workload)) => {
                    let sidecars = sidecars(stage, workload)?;
                    counts.sidecars.insert(workload.clone(), sidecars);
                }
                (Measure::Replaced, Some(workload)) => {
                    let pods = stage.shop().lab().status()?.pods.into_iter();
                    let pods = pods.filter(|pod| pod.workload == *workload && pod.ready);
                    let uids = pods.map(|pod| pod.uid).collect();
                    counts.pods.insert(workload.clone(), uids);
                }
                (Measure::Hedges | Measure::Retries, _) => {
                    counts.numbers.extend(second_tries(stage, scenario).await);
                }
                (Measure::Backlog, _) => {
                    let waiting = backlog::waiting(stage).await?;
                    counts.numbers.insert("backlog".into(), waiting);
                }
                (Measure::PacketsLost, _) => {
                    let (packets, lost) = packets(stage)?;
                    counts.numbers.insert("packets".into(), packets as f64);
                    counts.numbers.insert("packets lost".into(), lost as f64);
                }
                _ => {}
            }
        }
        let crashes = sidecar_restarts(stage)?;
        counts.numbers.insert("crashes".to_owned(), crashes);
        Ok(counts)
    }

    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let mut since = self.numbers.clone();
        // What was not known before is no growth.
        since.retain(|name, _| before.numbers.contains_key(name));
        for (name, value) in &mut since {
            *value -= before.numbers[name];
        }
        for (workload, after) in &self.sidecars {
            let before = before.sidecars.get(workload);
            if let Some(mib) = before.and_then(|before| grown(before, after)) {
                since.insert(format!("memory of {workload}"), mib);
            }
        }
        for (workload, after) in &self.pods {
            if let Some(before) = before.pods.get(workload) {
                let replaced = after.difference(before).count() as f64;
                since.insert(format!("replaced of {workload}"), replaced);
            }
        }
        since
    }
}

/// By how many MiB these sidecars grew. None unless there are some, all of them run, and they are the same processes
/// still: one that was started again in between is small, and proves nothing.
fn grown(before: &[Option<Sidecar>], after: &[Option<Sidecar>]) -> Option<f64> {
    let all = |sidecars: &[Option<Sidecar>]| -> Option<(BTreeSet<i32>, f64)> {
        let all: Vec<Sidecar> = sidecars.iter().copied().collect::<Option<_>>()?;
        let pids = all.iter().map(|one| one.pid).collect();
        Some((pids, all.iter().map(|one| one.mib).sum()))
    };
    let ((then, mib_then), (now, mib_now)) = (all(before)?, all(after)?);
    (!now.is_empty() && then == now).then_some(mib_now - mib_then)
}

/// The sidecars of a workload, and what they have in memory.
fn sidecars(stage: &Stage, workload: &str) -> Result<Vec<Option<Sidecar>>> {
    let lab = stage.shop().lab();
    let pods = lab.status()?.pods.into_iter();
    let sidecars = pods
        .filter(|pod| pod.workload == workload)
        .flat_map(|pod| pod.containers)
        .filter(|container| container.name == "weir-proxy");
    let mut all = Vec::new();
    for sidecar in sidecars {
        let Some(pid) = sidecar.state.pid else {
            all.push(None);
            continue;
        };
        let path = format!("/proc/{pid}/status");
        let said = lab.exec(None, &["grep", "VmRSS", &path])?.stdout;
        let kib = said
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<f64>().ok());
        let mib = kib.map(|kib| kib / 1024.0);
        all.push(mib.map(|mib| Sidecar { pid, mib }));
    }
    Ok(all)
}

/// Calls to the focus that the watched sidecars made more than once. Nothing when one of them does not answer.
async fn second_tries(stage: &Stage, scenario: &Scenario) -> BTreeMap<String, f64> {
    let watched = |workload: &str| scenario.watch.iter().any(|watched| watched == workload);
    let all = stage.shop().metrics_where(watched).await;
    let silent = all.is_empty() || all.iter().any(|(_, metrics)| metrics.is_empty());
    let Some(focus) = scenario.focus.as_deref().filter(|_| !silent) else {
        return BTreeMap::new();
    };
    let sum = |name: &str| {
        all.iter()
            .map(|(_, one)| one.sum(name, &[("service", focus)]))
            .sum()
    };
    let families = [
        ("hedges", "weir_hedges_total"),
        ("retries", "weir_retries_total"),
    ];
    families
        .map(|(name, family)| (name.to_owned(), sum(family)))
        .into()
}

/// That there were to lose, and that were lost.
fn packets(stage: &Stage) -> Result<(u64, u64)> {
    let list = ["nft", "-j", "list", "table", "inet", "weir_faults"];
    let output = stage.shop().lab().exec(None, &list)?;
    let listed = serde_json::from_str(&output.stdout);
    let listed = listed.map_err(|error| Error::Lab(format!("nft: {error}: {}", output.stderr)))?;
    Ok(lost(&listed))
}

fn sidecar_restarts(stage: &Stage) -> Result<f64> {
    let pods = stage.shop().lab().status()?.pods.into_iter();
    let containers = pods.flat_map(|pod| pod.containers);
    let sidecars = containers.filter(|container| container.name == "weir-proxy");
    Ok(sidecars
        .map(|sidecar| f64::from(sidecar.state.restarts))
        .sum())
}

/// The orders that were not there before. Waits until none of them is open, for a while.
pub async fn orders_since(stage: &Stage, before: &Orders) -> Result<Orders> {
    let until = Instant::now() + SETTLED_WITHIN;
    let run = stage.root().join("demo-boutique/orderview/run");
    let run = std::path::absolute(run).map_err(|error| Error::Request(error.to_string()))?;
    let run = run.display().to_string();
    loop {
        let stage = stage.clone();
        let argv = [run.clone(), "--facts".to_owned()];
        let asked = tokio::task::spawn_blocking(move || {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            stage.shop().lab().exec(Some("orderview/0"), &argv)
        });
        let output = asked.await.expect("asking does not panic")?;
        if output.code != 0 {
            let why = format!("orderview --facts: {}: {}", output.code, output.stderr);
            return Err(Error::Request(why));
        }
        let orders = Orders::parse(&output.stdout)?.since(before);
        if orders.open() == 0 || Instant::now() >= until {
            return Ok(orders);
        }
        sleep(REOPEN).await;
    }
}

/// Payment's, as it is in its file.
pub async fn ledger(stage: &Stage) -> Result<String> {
    let stage = stage.clone();
    let read = move || {
        let ledger = "cat \"${LEDGER_FILE:-/var/lib/payment/ledger.txt}\"";
        stage
            .shop()
            .lab()
            .exec(Some("payment/0"), &["sh", "-c", ledger])
    };
    let output = tokio::task::spawn_blocking(read)
        .await
        .expect("reading does not panic")?;
    match output.code {
        0 => Ok(output.stdout),
        code => Err(Error::Request(format!(
            "payment's ledger: {code}: {}",
            output.stderr
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the notifier's sidecars grew by, of which these were there.
    fn growth(before: &[Option<(i32, f64)>], after: &[Option<(i32, f64)>]) -> Option<f64> {
        let counts = |sidecars: &[Option<(i32, f64)>]| {
            let sidecars = sidecars.iter();
            let sidecars = sidecars.map(|one| one.map(|(pid, mib)| Sidecar { pid, mib }));
            Counts {
                numbers: [("crashes".to_owned(), 1.0)].into(),
                sidecars: [("notifier".to_owned(), sidecars.collect())].into(),
                ..Counts::default()
            }
        };
        let since = counts(after).since(&counts(before));
        assert_eq!(since["crashes"], 0.0);
        since.get("memory of notifier").copied()
    }

    #[test]
    fn memory_that_was_not_measured_of_the_same_processes_is_not_measured() {
        let (one, other) = (Some((7, 10.0)), Some((8, 20.0)));
        assert_eq!(growth(&[one, other], &[Some((8, 20.5)), one]), Some(0.5));
        assert_eq!(growth(&[one], &[Some((7, 9.0))]), Some(-1.0));
        assert_eq!(growth(&[one], &[Some((9, 5.0))]), None, "started again");
        assert_eq!(growth(&[one, other], &[one, None]), None, "does not run");
        assert_eq!(growth(&[None], &[one]), None);
        assert_eq!(growth(&[one, other], &[one]), None, "one is gone");
        assert_eq!(growth(&[], &[]), None, "there is none");
    }

    #[test]
    fn pods_that_were_there_before_are_no_others_and_a_number_that_was_not_known_is_no_growth() {
        let counts = |uids: &[&str], retries: Option<f64>| {
            let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
            let retries = retries.map(|retries| ("retries".to_owned(), retries));
            Counts {
                numbers: retries.into_iter().collect(),
                pods: [("catalog".to_owned(), uids)].into(),
                ..Counts::default()
            }
        };
        let before = counts(&["a", "b", "c"], Some(4.0));
        let since = counts(&["c", "d", "e"], Some(6.0)).since(&before);
        assert_eq!((since["replaced of catalog"], since["retries"]), (2.0, 2.0));
        assert_eq!(before.since(&before)["replaced of catalog"], 0.0);
        let since = before.since(&counts(&["a"], None));
        assert!(!since.contains_key("retries"), "{since:?}");
    }
}
