//! A sidecar's metrics, as it shows them to Prometheus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use crate::client::Client;
use crate::error::{Doing, Error, Result};

const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Series>);

#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Asks the sidecar whose admin port this is, from the node.
    pub fn scrape(client: &Client, address: &str) -> Result<Self> {
        let mut stream = client.dial(None, address)?;
        let mut ask = || {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(
                b"GET /metrics HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n",
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text: std::io::Result<String> = ask();
        let text = text.doing(|| format!("read the metrics of {address}"))?;
        let (_, body) = text
            .split_once("\r\n\r\n")
            .ok_or_else(|| Error::Request(format!("{address} does not speak HTTP")))?;
        Ok(Self::parse(body))
    }

    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(Series::parse)
                .collect(),
        )
    }

    /// Whoever did not answer said nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of all series of that name with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> + 'a {
        self.0.iter().filter(move |series| {
            series.name == name
                && labels.iter().all(|(label, wanted)| {
                    series
                        .labels
                        .get(*label)
                        .is_some_and(|found| found == wanted)
                })
        })
    }

    /// Upper bound and count of each bucket of a histogram, cumulative, all series together.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut all: Vec<(f64, f64)> = Vec::new();
        for series in self.matching(&format!("{name}_bucket"), labels) {
            let Some(bound) = series
                .labels
                .get("le")
                .and_then(|le| le.parse::<f64>().ok())
            else {
                continue;
            };
            match all.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += series.value,
                None => all.push((bound, series.value)),
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }
}

impl Series {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    pub fn value(&self) -> f64 {
        self.value
    }

    /// `name{label="value",…} 1.5`; our label values hold no quotes or commas.
    fn parse(line: &str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (head, ""),
        };
        let labels = labels.split("\",").filter_map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some(Self {
            name: name.to_owned(),
            labels: labels.collect(),
            value: value.parse().ok()?,
        })
    }
}

/// The value below which `share` of what was counted lies: the upper bound of its bucket, in seconds.
pub fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    (total > 0.0).then_some(())?;
    buckets
        .iter()
        .find(|(_, count)| *count >= share * total)
        .map(|(bound, _)| *bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_histograms_read() {
        let metrics = Metrics::parse(
            "# HELP a b\nr{class=\"success\",service=\"x/y:1\"} 3\nr{class=\"success\",service=\"x/z:1\"} 4\n\
             d_bucket{le=\"0.1\"} 50\nd_bucket{le=\"1\"} 99\nd_bucket{le=\"+Inf\"} 100\nplain 7\n",
        );
        assert_eq!(metrics.sum("r", &[("class", "success")]), 7.0);
        assert_eq!(metrics.sum("r", &[("service", "x/z:1")]), 4.0);
        assert_eq!(metrics.sum("plain", &[]), 7.0);
        let buckets = metrics.buckets("d", &[]);
        assert_eq!(quantile(&buckets, 0.5), Some(0.1));
        assert_eq!(quantile(&buckets, 0.99), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
