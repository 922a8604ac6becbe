//! Runs the cases: all subjects of a case side by side, so that they see the same machine, and as many cases side by side as the
//! driver has time for. Repeats one after the other, each with another seed and with fresh processes.

use std::rc::Rc;
use std::time::Duration;

use crate::arguments::Effort;
use crate::evidence::{Evidence, Second};
use crate::figure::{Figure, Value};
use crate::plan::Case;
use crate::subject::{Kind, Lane, Ports, World};
use crate::trouble::Trouble;

/// Requests a second, of all that goes on side by side: above that the driver begins to be late.
const RATE_MAX: f64 = 6000.0;
/// A driver that sends later than this measures itself.
const LATE_P99_MAX: Duration = Duration::from_millis(5);

/// One run of one subject.
pub struct Record {
    /// Its place in the plan.
    pub case: usize,
    pub kind: Kind,
    pub repeat: u16,
    pub figures: Vec<(Figure, Value)>,
    pub seconds: Vec<Second>,
    /// Milliseconds: p50, p99, and the worst.
    pub late: [f64; 3],
    pub cpu_per_request: Duration,
}

#[derive(Default)]
pub struct Results {
    pub records: Vec<Record>,
    /// Who could not be measured, and why.
    pub left_out: Vec<(usize, Kind, String)>,
}

pub struct Rounds<'a> {
    pub cases: &'a [Case],
    pub kinds: &'a [Kind],
    pub effort: Effort,
    pub seed: u64,
}

impl Rounds<'_> {
    pub async fn run(&self, world: &Rc<World>, results: &mut Results) -> Result<(), Trouble> {
        let mut number = 0;
        for repeat in 0..self.effort.repeats {
            for batch in self.batches() {
                self.say(repeat, &batch);
                // All of the last batch has ended, and its ports are free.
                let mut ports = Ports::default();
                let mut running = Vec::new();
                for case in batch {
                    for kind in self.kinds {
                        number += 1;
                        let lane = Lane {
                            kind: *kind,
                            number,
                        };
                        let script = &self.cases[case].script;
                        let seed = self.seed * 1_000_003 + u64::from(repeat);
                        match script.prepare(lane, world, &mut ports, &self.effort, seed) {
                            Ok(run) => running.push(async move { (case, *kind, run.await) }),
                            Err(trouble) => results.leave_out(case, *kind, &trouble),
                        }
                    }
                }
                for (case, kind, ended) in futures_util::future::join_all(running).await {
                    match ended {
                        Ok(evidence) => {
                            let record = self.record(case, kind, repeat, &evidence)?;
                            results.records.push(record);
                        }
                        Err(trouble) => results.leave_out(case, kind, &trouble),
                    }
                }
            }
        }
        Ok(())
    }

    /// Cases that fit beside each other, by their place in the plan; those that last as long together.
    fn batches(&self) -> Vec<Vec<usize>> {
        let mut cases: Vec<usize> = (0..self.cases.len()).collect();
        cases.sort_by_key(|case| self.length(*case));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for case in cases {
            match batches.last_mut() {
                Some(batch) if self.rate(batch) + self.rate(&[case]) <= RATE_MAX => {
                    batch.push(case);
                }
                _ => batches.push(vec![case]),
            }
        }
        batches
    }

    fn rate(&self, batch: &[usize]) -> f64 {
        let rates = batch.iter().map(|case| self.cases[*case].script.rate_max());
        rates.sum::<f64>() * self.kinds.len() as f64
    }

    fn length(&self, case: usize) -> Duration {
        let [fault, after] = self.cases[case].script.at_least();
        self.effort.at_least(fault, after).total()
    }

    fn say(&self, repeat: u16, batch: &[usize]) {
        let names = batch.iter().map(|case| {
            let case = &self.cases[*case];
            format!("{} {}", case.experiment, case.name)
        });
        let names = names.collect::<Vec<_>>().join(" | ");
        eprintln!("repeat {} of {}: {names}", repeat + 1, self.effort.repeats);
    }

    fn record(
        &self,
        number: usize,
        kind: Kind,
        repeat: u16,
        evidence: &Evidence,
    ) -> Result<Record, Trouble> {
        let case = &self.cases[number];
        let late = |quantile| evidence.late.value_at_quantile(quantile) as f64 / 1000.0;
        let late = [late(0.5), late(0.99), late(1.0)];
        if late[1] > LATE_P99_MAX.as_secs_f64() * 1000.0 {
            return Err(Trouble::Failed(format!(
                "{} {}: a hundredth of the requests was sent more than {:.1} ms late (the worst {:.1} ms): the driver \
                 was the bottleneck, and its figures mean nothing. Use a quiet machine, or --only",
                case.experiment, case.name, late[1], late[2]
            )));
        }
        let value = |figure: Figure| {
            let missing = case.missing.iter().find(|(missing, _)| *missing == figure);
            missing.map_or_else(|| figure.of(evidence), |(_, reason)| Value::Missing(reason))
        };
        let figures = case
            .figures
            .iter()
            .map(|(figure, _)| (*figure, value(*figure)));
        let requests = evidence.samples.len().max(1) as u32;
        Ok(Record {
            case: number,
            kind,
            repeat,
            figures: figures.collect(),
            seconds: evidence.seconds(),
            late,
            cpu_per_request: evidence.cpu / requests,
        })
    }
}

impl Results {
    fn leave_out(&mut self, case: usize, kind: Kind, trouble: &Trouble) {
        eprintln!("left out: {kind}: {trouble}");
        self.left_out.push((case, kind, trouble.to_string()));
    }

    pub fn values(&self, case: usize, kind: Kind, figure: Figure) -> Vec<Value> {
        let records = self.records.iter();
        let of_both = records.filter(|record| (record.case, record.kind) == (case, kind));
        let of_figure = of_both.flat_map(|record| &record.figures);
        let values = of_figure.filter(|(other, _)| *other == figure);
        values.map(|(_, value)| *value).collect()
    }
}
