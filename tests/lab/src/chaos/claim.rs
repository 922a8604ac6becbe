//! What must hold, as data: a measure, a part of the run, and a bound.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::scenario::{Scenario, Step};
use super::shown;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Claim {
    /// In words, for whoever reads the result.
    pub claim: String,
    pub measure: Measure,
    #[serde(default, rename = "in")]
    pub phase: Phase,
    /// Only of this journey.
    #[serde(default)]
    pub journey: Option<String>,
    /// Of `facts`: their kind, and a part of what they are about. Of `memory` and `replaced`: the workload;
    /// of `certificatesShown` and `certificateLeft`: with the port at which its pods are connected to.
    #[serde(default)]
    pub fact: Option<String>,
    #[serde(default)]
    pub about: Option<String>,
    /// What is bounded is the ratio of the two.
    #[serde(default)]
    pub relative_to: Option<Relative>,
    /// With `relativeTo: base`: a difference of so much is none, in the unit of the measure. Two percentiles of a few hundred
    /// requests differ by tens of milliseconds when nothing has happened at all.
    #[serde(default)]
    pub negligible: Option<f64>,
    #[serde(default)]
    pub at_least: Option<f64>,
    #[serde(default)]
    pub at_most: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Base,
    #[default]
    Fault,
    Recovery,
    /// The three together.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Relative {
    /// Itself, before the fault.
    Base,
    /// `load.capacity`.
    Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// Shares of what was offered: served (also degraded), each class, and all that is neither served nor shed.
    Success,
    Ok,
    Degraded,
    Shed,
    Failed,
    /// Of what was shed, the share that was told when to come back.
    RetryAfter,
    /// Served a second.
    Goodput,
    /// Milliseconds from the intended time, of everything sent.
    P50,
    P99,
    /// The same of what was served.
    ServedP99,
    /// Tries that the watched sidecars sent to the focus, a request offered.
    Attempts,
    /// Tries to the focus from the beginning of the fault until the breaker opened.
    AttemptsUntilOpen,
    /// Tries to the focus while its breaker was open or half-open, for each time that it was half-open.
    AttemptsPerProbing,
    /// Calls to the focus that the watched sidecars made a second time while the first had no answer, and those that they
    /// made again after it had failed.
    Hedges,
    Retries,
    /// What the app itself counted (`counter`), a request offered.
    Arrivals,
    /// Seconds from the beginning of the fault to the first sign that the mesh acts on it.
    Detected,
    /// Seconds from the end of the fault to the sign that the mesh takes it as over.
    Healed,
    /// Seconds from the end of the fault until visitors get what they got before.
    Recovered,
    /// Facts of a kind.
    Facts,
    /// Orders that are neither confirmed nor cancelled some time after the end.
    OrdersOpen,
    /// Confirmed, of those that the log took in this run or that visitors were told it took, whichever are more.
    OrdersConfirmed,
    /// The fewest and the most charges, less refunds, that any order has that was confirmed in this run.
    FewestCharges,
    MostCharges,
    /// MiB that the sidecars of a workload grew by.
    Memory,
    /// Streams that ended before they were to.
    StreamBreaks,
    /// MiB of facts that wait in the log for the notifier at the end of the fault, more than at its beginning.
    Backlog,
    /// What came by the streams.
    StreamEvents,
    /// The share of looks at which a watched sidecar said that it has no control plane.
    Disconnected,
    /// Sidecars that had to be started again.
    Crashes,
    /// Pods of a workload that were not there before the fault.
    Replaced,
    /// Different certificates that new connections were shown by the pod of a workload that showed the fewest, and the seconds
    /// that were left of the one that was nearest to its end.
    CertificatesShown,
    CertificateLeft,
    /// Of the packets from and to pods that lose some, the share that was lost.
    PacketsLost,
}

impl Measure {
    pub fn unit(self) -> &'static str {
        match self {
            Self::Success | Self::Ok | Self::Degraded | Self::Shed | Self::Failed => "%",
            Self::RetryAfter | Self::OrdersConfirmed | Self::Disconnected | Self::PacketsLost => {
                "%"
            }
            Self::Goodput => "/s",
            Self::P50 | Self::P99 | Self::ServedP99 => "ms",
            Self::Detected | Self::Healed | Self::Recovered | Self::CertificateLeft => "s",
            Self::Memory | Self::Backlog => "MiB",
            _ => "",
        }
    }
}

impl Claim {
    /// Whose certificates it is about, if it is about certificates.
    pub(super) fn shown_by(&self) -> Option<&str> {
        let measures = [Measure::CertificatesShown, Measure::CertificateLeft];
        let about = self.about.as_deref().unwrap_or_default();
        measures.contains(&self.measure).then_some(about)
    }

    pub(super) fn mistake(&self, scenario: &Scenario) -> Option<String> {
        let refuse = |why: &str| Some(format!("the claim {:?}: {why}", self.claim));
        if self.at_least.is_none() && self.at_most.is_none() {
            return refuse("has no bound");
        }
        if self.relative_to == Some(Relative::Capacity) && scenario.load.capacity.is_none() {
            return refuse("is relative to a capacity, and `load` has none");
        }
        let of_focus = matches!(
            self.measure,
            Measure::Attempts
                | Measure::AttemptsUntilOpen
                | Measure::AttemptsPerProbing
                | Measure::Hedges
                | Measure::Retries
        );
        if of_focus && scenario.focus.is_none() {
            return refuse("counts calls to the focus, and there is none");
        }
        if self.negligible.is_some() && self.relative_to != Some(Relative::Base) {
            return refuse("has a negligible difference, and nothing that it differs from");
        }
        if self.measure == Measure::Facts && self.fact.is_none() {
            return refuse("counts facts, and does not say which");
        }
        if self.measure == Measure::Memory && self.about.is_none() {
            return refuse("is about memory, and does not say of whom");
        }
        if self
            .shown_by()
            .is_some_and(|about| shown::parse(about).is_none())
        {
            return refuse(
                "is about certificates, and does not say of whom: `about: catalog:3550`",
            );
        }
        if self.measure == Measure::Replaced && self.about.is_none() {
            return refuse("is about other pods, and does not say whose");
        }
        let loses = |step: &Step| matches!(step.action, Action::Loss(_));
        if self.measure == Measure::PacketsLost && !scenario.fault.iter().any(loses) {
            return refuse("is about packets that are lost, and none are");
        }
        if self.measure == Measure::Arrivals && scenario.counter.is_none() {
            return refuse("is about what the app counts, and there is no `counter`");
        }
        let streams = matches!(self.measure, Measure::StreamBreaks | Measure::StreamEvents);
        if streams && scenario.streams.is_empty() {
            return refuse("is about streams, and there are none");
        }
        let signs = [
            (Measure::Detected, scenario.detected_by.is_none()),
            (Measure::Healed, scenario.healed_by.is_none()),
        ];
        if signs.contains(&(self.measure, true)) {
            return refuse("waits for a sign, and there is none");
        }
        None
    }
}
