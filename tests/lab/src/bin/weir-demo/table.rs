//! The table: one line a service, as those who call it see it.

use std::collections::BTreeMap;
use std::fmt::Write;

use boutique_load::Tick;
use tokio::time::Instant;

use crate::AnyError;
use weir_lab::metrics::{Metrics, quantile};
use weir_lab::shop::Shop;

/// Nobody has to call these while visitors look around and order: they say what became of orders when
/// somebody asks, or follow the facts about them.
const QUIET: [&str; 3] = ["orderview", "fulfilment", "notifier"];

/// What all sidecars together say of one service since the table was made.
#[derive(Clone, Debug, Default)]
struct Row {
    requests: f64,
    failures: f64,
    /// Over mutual TLS, of those that got an answer.
    mutual_tls: f64,
    answered: f64,
    opaque: f64,
    opaque_plain: f64,
    retries: f64,
    ejections: f64,
    /// The worst that any caller says.
    breaker: Option<f64>,
    buckets: Vec<(f64, f64)>,
    /// Streams that its app serves now.
    streams: f64,
    /// Called from outside the mesh: in plain text, as browsers do.
    edge: bool,
}

pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
    /// Before there were visitors: who follows the log asks for it while it still starts.
    before: BTreeMap<String, Row>,
    started: Instant,
    workloads: Vec<String>,
}

impl Table {
    pub(crate) async fn new(shop: &Shop) -> Result<Self, AnyError> {
        let mut workloads: Vec<String> = shop
            .pods()
            .into_iter()
            .map(|(workload, _)| workload)
            .collect();
        workloads.dedup();
        let mut table = Self {
            rows: BTreeMap::new(),
            before: BTreeMap::new(),
            started: Instant::now(),
            workloads,
        };
        table.refresh(shop).await?;
        table.before = std::mem::take(&mut table.rows);
        Ok(table)
    }

    pub(crate) async fn refresh(&mut self, shop: &Shop) -> Result<(), AnyError> {
        // Pods are replaced, and become more or fewer.
        tokio::task::block_in_place(|| shop.look())?;
        let metrics = shop.metrics().await;
        let mut rows = BTreeMap::new();
        for workload in &self.workloads {
            let mut row = Row::default();
            for (of, metrics) in &metrics {
                row.add_callers(workload, metrics);
                if of == workload {
                    row.add_edge(workload, metrics);
                    row.add_streams(metrics);
                }
            }
            if let Some(before) = self.before.get(workload) {
                row.since(before);
            }
            rows.insert(workload.clone(), row);
        }
        self.rows = rows;
        Ok(())
    }

    /// In 80 columns, as wide as any terminal is.
    pub(crate) fn render(&self, tick: Option<&Tick>) -> String {
        let mut text = String::new();
        let seconds = self.started.elapsed().as_secs_f64().max(1.0);
        let _ = writeln!(
            text,
            "{:<14} {:>9} {:>8} {:>8} {:>8} {:>6} {:>5} {:>9} {:>5}",
            "SERVICE", "RATE", "SUCCESS", "P50", "P99", "RETRY", "EJECT", "BREAKER", "MTLS"
        );
        for (name, row) in &self.rows {
            let _ = writeln!(
                text,
                "{:<14} {:>9} {:>8} {:>8} {:>8} {:>6} {:>5} {:>9} {:>5}",
                name,
                row.rate(seconds),
                row.success(),
                millis(quantile(&row.buckets, 0.5)),
                millis(quantile(&row.buckets, 0.99)),
                row.retries,
                row.ejections,
                row.breaker(),
                row.mtls(),
            );
        }
        if let Some(tick) = tick {
            let latency = tick.latest.served.map_or(String::from("–"), |served| {
                format!("p50 {:.0} ms, p99 {:.0} ms", served.p50, served.p99)
            });
            let _ = writeln!(
                text,
                "\n{:>4} s  visitors: {} requests, {} served, {latency}\n        (Ctrl-C ends it)",
                tick.elapsed.as_secs(),
                tick.totals.offered,
                tick.totals.served(),
            );
        }
        text
    }

    /// What sidecars say that does not keep the demo's promises.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, row) in &self.rows {
            if row.requests + row.opaque == 0.0 && !QUIET.contains(&name.as_str()) {
                broken.push(format!("{name} had no traffic"));
            }
            if row.failures > 0.0 {
                broken.push(format!(
                    "{name}: {} of {} requests failed",
                    row.failures, row.requests
                ));
            }
            if !row.edge && (row.mutual_tls < row.answered || row.opaque_plain > 0.0) {
                broken.push(format!(
                    "{name}: {} requests and {} connections came without mutual TLS",
                    row.answered - row.mutual_tls,
                    row.opaque_plain
                ));
            }
        }
        broken
    }
}

impl Row {
    /// As the sidecars of those who call it say.
    fn add_callers(&mut self, workload: &str, metrics: &Metrics) {
        let services: Vec<&str> = metrics
            .matching("weir_requests_total", &[("direction", "outbound")])
            .chain(metrics.matching("weir_connections_total", &[("direction", "outbound")]))
            .map(|series| series.label("service"))
            .filter(|service| is_of(service, workload))
            .collect();
        let Some(service) = services.first() else {
            return;
        };
        let outbound = [("direction", "outbound"), ("service", *service)];
        self.add_requests(&outbound, metrics);
        let opaque = |tls| {
            let labels = [
                ("direction", "outbound"),
                ("service", *service),
                ("protocol", "opaque"),
                ("tls", tls),
            ];
            metrics.sum("weir_connections_total", &labels)
        };
        self.opaque += opaque("mtls") + opaque("none");
        self.opaque_plain += opaque("none");
        self.retries += metrics.sum("weir_retries_total", &[("service", service)]);
        self.ejections += metrics.sum("weir_ejections_total", &[("service", service)]);
        for breaker in metrics.matching("weir_breaker_state", &[("service", service)]) {
            // Open is worse than half-open, and that is worse than closed.
            let badness = |state: f64| [0.0, 2.0, 1.0][(state as usize).min(2)];
            let worst = self
                .breaker
                .is_none_or(|known| badness(breaker.value()) > badness(known));
            if worst {
                self.breaker = Some(breaker.value());
            }
        }
    }

    /// As its own sidecar says of callers that are not in the mesh.
    fn add_edge(&mut self, workload: &str, metrics: &Metrics) {
        let service = metrics
            .matching(
                "weir_requests_total",
                &[("direction", "inbound"), ("tls", "none")],
            )
            .find(|series| is_of(series.label("service"), workload) && series.value() > 0.0);
        let Some(service) = service else { return };
        self.edge = true;
        self.add_requests(
            &[
                ("direction", "inbound"),
                ("service", service.label("service")),
            ],
            metrics,
        );
    }

    /// Nobody counts a stream as a request before it has ended.
    fn add_streams(&mut self, metrics: &Metrics) {
        self.streams += metrics.sum("weir_inbound_streams", &[]);
    }

    fn add_requests(&mut self, of: &[(&str, &str)], metrics: &Metrics) {
        let count =
            |more: &[(&str, &str)]| metrics.sum("weir_requests_total", &[of, more].concat());
        self.requests += count(&[]);
        self.failures += count(&[("class", "failure")]);
        self.mutual_tls += count(&[("class", "success"), ("tls", "mtls")]);
        self.answered += count(&[("class", "success")]);
        for (bound, more) in metrics.buckets("weir_request_duration_seconds", of) {
            match self.buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += more,
                None => self.buckets.push((bound, more)),
            }
        }
    }

    /// Takes away what was there before; the breaker's state is of now. Where a counter went back, whoever counted before
    /// is gone: then all is new, as shares of what is not counted together would be none.
    fn since(&mut self, before: &Self) {
        let mut since = self.clone();
        let known = |bound: f64| before.buckets.iter().find(|(known, _)| *known == bound);
        let buckets = since.buckets.iter_mut().map(|(bound, count)| {
            let before = known(*bound).map_or(0.0, |(_, count)| *count);
            (count, before)
        });
        let counters = [
            (&mut since.requests, before.requests),
            (&mut since.failures, before.failures),
            (&mut since.mutual_tls, before.mutual_tls),
            (&mut since.answered, before.answered),
            (&mut since.opaque, before.opaque),
            (&mut since.opaque_plain, before.opaque_plain),
            (&mut since.retries, before.retries),
            (&mut since.ejections, before.ejections),
        ];
        for (count, before) in counters.into_iter().chain(buckets) {
            if *count < before {
                return;
            }
            *count -= before;
        }
        *self = since;
    }

    fn rate(&self, seconds: f64) -> String {
        let rate = self.requests / seconds;
        if self.requests > 0.0 {
            let decimals = if rate < 1e4 { 1 } else { 0 };
            format!("{rate:.decimals$}/s")
        } else if self.opaque > 0.0 {
            format!("{} conn", self.opaque)
        } else if self.streams > 0.0 {
            format!("{} open", self.streams)
        } else {
            "–".into()
        }
    }

    fn success(&self) -> String {
        let ended = self.answered + self.failures;
        if ended > 0.0 {
            format!("{:.2} %", self.answered / ended * 100.0)
        } else {
            "–".into()
        }
    }

    fn breaker(&self) -> &'static str {
        match self.breaker {
            None => "–",
            Some(0.0) => "closed",
            Some(1.0) => "open",
            Some(_) => "half-open",
        }
    }

    fn mtls(&self) -> String {
        if self.edge {
            return "edge".into();
        }
        let (secure, all) = (
            self.mutual_tls + self.opaque - self.opaque_plain,
            self.answered + self.opaque,
        );
        if all > 0.0 {
            format!("{:.0} %", secure / all * 100.0)
        } else {
            "–".into()
        }
    }
}

/// `namespace/name:port`
fn is_of(service: &str, workload: &str) -> bool {
    service.split(['/', ':']).nth(1) == Some(workload)
}

fn millis(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds.is_infinite() => "> 10 s".into(),
        Some(seconds) if seconds >= 1.0 => format!("≤ {seconds} s"),
        Some(seconds) => format!("≤ {} ms", seconds * 1e3),
        None => "–".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use boutique_load::{Percentiles, Summary, Totals};

    use super::*;

    /// Of a shop in which nobody has seen anything yet.
    pub(crate) fn table(workloads: &[&str]) -> Table {
        let row = |name: &&str| ((*name).to_owned(), Row::default());
        Table {
            rows: workloads.iter().map(row).collect(),
            before: BTreeMap::new(),
            started: Instant::now(),
            workloads: Vec::new(),
        }
    }

    #[test]
    fn a_service_shows_its_requests_else_its_connections_else_its_streams_and_one_that_nobody_calls_nothing()
     {
        let mut row = Row::default();
        assert_eq!(row.rate(2.0), "–");
        row.streams = 3.0;
        assert_eq!(row.rate(2.0), "3 open");
        row.opaque = 4.0;
        assert_eq!(row.rate(2.0), "4 conn");
        row.requests = 5.0;
        assert_eq!(row.rate(2.0), "2.5/s");
    }

    #[test]
    fn what_was_counted_before_is_taken_away_and_where_a_counter_went_back_all_is_new() {
        let row = |requests, mutual_tls, slow| Row {
            requests,
            answered: requests,
            mutual_tls,
            breaker: Some(1.0),
            buckets: vec![(0.1, requests - slow), (1.0, requests)],
            ..Row::default()
        };
        let since = |mut now: Row, before: &Row| {
            now.since(before);
            assert_eq!(now.breaker, Some(1.0));
            (now.requests, now.mutual_tls, now.buckets)
        };
        let before = row(100.0, 90.0, 10.0);
        let more = since(row(150.0, 140.0, 20.0), &before);
        assert_eq!(more, (50.0, 50.0, vec![(0.1, 40.0), (1.0, 50.0)]));
        // The pod of a caller was replaced.
        let anew = since(row(95.0, 95.0, 1.0), &before);
        assert_eq!(anew, (95.0, 95.0, vec![(0.1, 94.0), (1.0, 95.0)]));
        let fewer_slow = since(row(101.0, 101.0, 20.0), &before);
        assert_eq!(fewer_slow, (101.0, 101.0, vec![(0.1, 81.0), (1.0, 101.0)]));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_of_80_columns() {
        let busy = Row {
            requests: 1e5,
            failures: 1.0,
            answered: 1e5,
            mutual_tls: 1e5,
            retries: 1e5,
            ejections: 1e4,
            breaker: Some(2.0),
            buckets: vec![(0.3, 5e4), (1.5, 1e5)],
            ..Row::default()
        };
        let opaque = Row {
            opaque: 9999.0,
            ..Row::default()
        };
        let mut table = table(&[]);
        table.rows.insert("recommendation".into(), busy);
        table.rows.insert("redis".into(), opaque);
        let totals = Totals {
            offered: 180_000_000,
            ok: 180_000_000,
            ..Totals::default()
        };
        let mut latest = Summary::of([]);
        latest.served = Some(Percentiles {
            mean: 5e3,
            p50: 5e3,
            p90: 5e3,
            p99: 5e3,
            p999: 5e3,
            max: 5e3,
        });
        let text = table.render(Some(&Tick {
            elapsed: Duration::from_secs(3600),
            in_flight: 0,
            totals,
            latest,
        }));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for word in ["≤ 300 ms", "≤ 1.5 s", "half-open", "100000", "9999 conn"] {
            assert!(text.contains(word), "no {word} in\n{text}");
        }
    }
}
