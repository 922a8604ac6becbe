//! Runs the cases: all subjects of a case side by side, so that they see the same machine, and as many cases side by side as the
//! driver has time for. A case that is too much for two cores so is run for one subject after the other. Repeats one after the other,
//! each with another seed and with fresh processes.

use std::rc::Rc;
use std::time::Duration;

use crate::arguments::Effort;
use crate::evidence::{Evidence, Second};
use crate::figure::{Figure, Value};
use crate::plan::Case;
use crate::subject::{Kind, Lane, Ports, World};
use crate::trouble::Trouble;

/// Requests a second, of cases that are put side by side: above that the driver begins to be late.
const RATE_MAX: f64 = 6000.0;
/// The same, of one case for all subjects: what is refused, as most of it is then, takes less time.
const RATE_OF_ONE_MAX: f64 = 9000.0;
/// A driver that sends later than this measures itself.
const LATE_P99_MAX: Duration = Duration::from_millis(5);
/// Proxies that wait for their core measure each other.
const CORE_BUSY_MAX: f64 = 0.9;
/// Of one run, before it is said that the machine has no time for it.
const TRIES_MAX: u16 = 3;
/// Of a run, for all its processes to start: only to say how long it all takes.
const SETTING_UP: Duration = Duration::from_secs(4);

/// What is run side by side: cases, by their place in the plan, and for whom.
type Batch = Vec<(usize, Kind)>;

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
    /// Share of their core that all proxies had that ran beside each other.
    pub core_busy: f64,
}

impl Record {
    /// The machine was measured, and not the proxies.
    fn is_spoilt(&self) -> bool {
        let [_, p99, _] = self.late;
        p99 > LATE_P99_MAX.as_secs_f64() * 1000.0 || self.core_busy > CORE_BUSY_MAX
    }
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
    pub async fn run(&self, world: &Rc<World>, results: &mut Results) {
        let batches = self.batches();
        let runs = batches.len() * usize::from(self.effort.repeats);
        let all = self.lasts(&batches) * u32::from(self.effort.repeats);
        eprintln!("{runs} runs, about {} min", all.as_secs().div_ceil(60));
        let mut lanes = 0;
        for repeat in 0..self.effort.repeats {
            for (which, batch) in batches.iter().enumerate() {
                let run = usize::from(repeat) * batches.len() + which + 1;
                self.say(&format!("{run} of {runs}"), batch);
                self.side_by_side(batch, repeat, world, &mut lanes, results)
                    .await;
            }
        }
    }

    /// Again, when the driver was late: that is nobody's result but the machine's.
    async fn side_by_side(
        &self,
        batch: &Batch,
        repeat: u16,
        world: &Rc<World>,
        lanes: &mut u16,
        results: &mut Results,
    ) {
        let mut tries = 1;
        loop {
            let mut fresh = Results::default();
            self.once(batch, repeat, world, lanes, &mut fresh).await;
            match fresh.records.iter().find(|record| record.is_spoilt()) {
                None => {
                    results.records.append(&mut fresh.records);
                    results.left_out.append(&mut fresh.left_out);
                    return;
                }
                Some(late) if tries == TRIES_MAX => {
                    let [_, p99, worst] = late.late;
                    let busy = late.core_busy * 100.0;
                    let trouble = Trouble::Failed(format!(
                        "a hundredth of the requests was sent more than {p99:.1} ms late (the worst {worst:.1} ms), and the proxies' core \
                         was busy to {busy:.0} %, {tries} times: these figures mean nothing. Use a quiet machine, --only or --subject"
                    ));
                    for (case, kind) in batch {
                        results.leave_out(*case, *kind, &trouble);
                    }
                    return;
                }
                Some(late) => {
                    let [_, p99, _] = late.late;
                    eprintln!(
                        "  the driver was late, {p99:.1} ms at p99: that does not count, and is done again"
                    );
                    tries += 1;
                }
            }
        }
    }

    async fn once(
        &self,
        batch: &Batch,
        repeat: u16,
        world: &Rc<World>,
        lanes: &mut u16,
        results: &mut Results,
    ) {
        // All of the last batch has ended, and its ports are free.
        let mut ports = Ports::default();
        let mut running = Vec::new();
        let seed = self.seed * 1_000_003 + u64::from(repeat);
        for (case, kind) in batch {
            *lanes += 1;
            let lane = Lane {
                kind: *kind,
                number: *lanes,
            };
            let script = &self.cases[*case].script;
            match script.prepare(lane, world, &mut ports, &self.effort, seed) {
                Ok(run) => running.push(async move { (*case, *kind, run.await) }),
                Err(trouble) => results.leave_out(*case, *kind, &trouble),
            }
        }
        let mut core_busy = 0.0;
        for (case, kind, ended) in futures_util::future::join_all(running).await {
            match ended {
                Ok(evidence) => {
                    core_busy += evidence.cpu.div_duration_f64(evidence.end);
                    results
                        .records
                        .push(self.record(case, kind, repeat, &evidence));
                }
                Err(trouble) => results.leave_out(case, kind, &trouble),
            }
        }
        for record in &mut results.records {
            record.core_busy = core_busy;
        }
    }

    /// What fits beside each other; of what lasts as long together.
    fn batches(&self) -> Vec<Batch> {
        let mut cases: Vec<usize> = (0..self.cases.len()).collect();
        cases.sort_by_key(|case| self.length(*case));
        let of_all = |case| self.kinds.iter().map(|kind| (case, *kind)).collect();
        let (together, apart): (Vec<Batch>, Vec<Batch>) = cases
            .into_iter()
            .map(of_all)
            .partition(|batch| self.rate(batch) <= RATE_OF_ONE_MAX);
        let mut batches: Vec<Batch> = Vec::new();
        for mut case in together {
            match batches.last_mut() {
                Some(batch) if self.rate(batch) + self.rate(&case) <= RATE_MAX => {
                    batch.append(&mut case);
                }
                _ => batches.push(case),
            }
        }
        batches.extend(apart.into_iter().flatten().map(|one| vec![one]));
        batches
    }

    fn rate(&self, batch: &Batch) -> f64 {
        let rates = batch.iter();
        rates
            .map(|(case, _)| self.cases[*case].script.rate_max())
            .sum()
    }

    fn length(&self, case: usize) -> Duration {
        let [fault, after] = self.cases[case].script.at_least();
        self.effort.at_least(fault, after).total()
    }

    fn lasts(&self, batches: &[Batch]) -> Duration {
        let each = batches.iter().map(|batch| {
            let longest = batch.iter().map(|(case, _)| self.length(*case)).max();
            longest.unwrap_or_default() + SETTING_UP
        });
        each.sum()
    }

    fn say(&self, run: &str, batch: &Batch) {
        let mut cases: Vec<usize> = batch.iter().map(|(case, _)| *case).collect();
        cases.dedup();
        let names = cases.iter().map(|case| {
            let case = &self.cases[*case];
            format!("{} {}", case.experiment, case.name)
        });
        let names = names.collect::<Vec<_>>().join(" | ");
        match batch[..] {
            [(_, only)] => eprintln!("{run}: {names}, {only}"),
            _ => eprintln!("{run}: {names}"),
        }
    }

    fn record(&self, number: usize, kind: Kind, repeat: u16, evidence: &Evidence) -> Record {
        let case = &self.cases[number];
        let late = |quantile| evidence.late.value_at_quantile(quantile) as f64 / 1000.0;
        let late = [late(0.5), late(0.99), late(1.0)];
        let value = |figure: Figure| {
            let missing = case.missing.iter().find(|(missing, _)| *missing == figure);
            missing.map_or_else(|| figure.of(evidence), |(_, reason)| Value::Missing(reason))
        };
        let figures = case
            .figures
            .iter()
            .map(|(figure, _)| (*figure, value(*figure)));
        let requests = evidence.samples.len().max(1) as u32;
        Record {
            case: number,
            kind,
            repeat,
            figures: figures.collect(),
            seconds: evidence.seconds(),
            late,
            cpu_per_request: evidence.cpu / requests,
            core_busy: 0.0,
        }
    }
}

impl Results {
    fn leave_out(&mut self, case: usize, kind: Kind, trouble: &Trouble) {
        eprintln!("left out: {kind}: {trouble}");
        self.left_out.push((case, kind, trouble.to_string()));
    }

    /// Runs of Weir that came to nothing.
    pub fn unmeasured(&self) -> usize {
        let left_out = self.left_out.iter();
        left_out.filter(|(_, kind, _)| *kind == Kind::Weir).count()
    }

    /// Whether this case was run, or tried.
    pub fn has(&self, case: usize) -> bool {
        let ran = self.records.iter().any(|record| record.case == case);
        ran || self.left_out.iter().any(|(tried, ..)| *tried == case)
    }

    pub fn values(&self, case: usize, kind: Kind, figure: Figure) -> Vec<Value> {
        let records = self.records.iter();
        let of_both = records.filter(|record| (record.case, record.kind) == (case, kind));
        let of_figure = of_both.flat_map(|record| &record.figures);
        let values = of_figure.filter(|(other, _)| *other == figure);
        values.map(|(_, value)| *value).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plan::{Script, cases};

    fn rounds(cases: &[Case]) -> Rounds<'_> {
        Rounds {
            cases,
            kinds: &[Kind::Weir, Kind::EnvoyDefault, Kind::EnvoyBest],
            effort: Effort {
                name: "test",
                repeats: 1,
                warm_up: Duration::from_secs(4),
                fault: Duration::from_secs(6),
                after: Duration::from_secs(4),
            },
            seed: 1,
        }
    }

    #[test]
    fn each_case_is_run_once_for_each_subject() {
        let cases = cases();
        let rounds = rounds(&cases);
        let ran: Vec<_> = rounds.batches().into_iter().flatten().collect();
        let different: HashSet<_> = ran
            .iter()
            .map(|(case, kind)| (*case, kind.name()))
            .collect();
        assert_eq!(ran.len(), cases.len() * rounds.kinds.len());
        assert_eq!(different.len(), ran.len());
    }

    /// Side by side, the sixty proxies of three subjects took 102 % of their core: such a run never counts, and `--only G5` failed.
    #[test]
    fn what_twenty_proxies_each_see_is_run_for_one_subject_after_the_other() {
        let cases = cases();
        let rounds = rounds(&cases);
        let mut apart = 0;
        for batch in rounds.batches() {
            let proxies = batch.iter().map(|(case, _)| match &cases[*case].script {
                Script::Outage(outage) => outage.proxies,
                _ => 1,
            });
            if proxies.max().is_some_and(|most| most > 1) {
                assert_eq!(batch.len(), 1, "{batch:?}");
                apart += 1;
            }
        }
        assert_eq!(apart, 6 * rounds.kinds.len());
    }

    #[test]
    fn subjects_see_the_same_machine_where_there_is_room() {
        let cases = cases();
        let rounds = rounds(&cases);
        let first = cases.iter().position(|case| case.experiment == "G1");
        let alike = rounds
            .batches()
            .into_iter()
            .find(|batch| batch.iter().any(|(case, _)| Some(*case) == first));
        let subjects = alike
            .expect("it is run")
            .iter()
            .filter(|(case, _)| Some(*case) == first)
            .count();
        assert_eq!(subjects, 3);
    }
}
