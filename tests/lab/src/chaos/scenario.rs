//! A scenario as data: `demo-boutique/chaos/scenarios/*.yaml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boutique_load::{Journey, Journeys, parse_span};
use serde::{Deserialize, Deserializer, Serialize};

use super::action::Action;
use super::claim::Claim;
use crate::error::{Doing, Error, Result};

/// Longer than any fault of ours, and short enough to wait for.
const PHASE_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// As people call it on the command line: `frozen-replica`.
    pub name: String,
    /// Its number in the design: `C2`.
    pub id: String,
    pub title: String,
    /// One or two sentences: what there is to see.
    pub shows: String,
    /// Part of what every submission must pass.
    #[serde(default)]
    pub gate: bool,
    /// Why there is nothing to see without the mesh; compared with it unless this says so.
    #[serde(default)]
    pub only_with_mesh: Option<String>,
    #[serde(default)]
    pub shop: Needs,
    pub load: Load,
    pub phases: Phases,
    /// What `--quick` shortens them to.
    #[serde(default)]
    pub quick: Option<Phases>,
    /// In force from before the visitors come until after they have gone.
    #[serde(default)]
    pub setup: Vec<Action>,
    /// Begins when its phase begins, and is taken back when that ends.
    pub fault: Vec<Step>,
    /// A file of `demo-boutique/faults` by which the mesh itself makes the same go wrong.
    #[serde(default)]
    pub fault_policy: Option<String>,
    /// `namespace/name:port` of the service whose calls are counted.
    #[serde(default)]
    pub focus: Option<String>,
    /// Workloads whose sidecars are looked at all the time.
    #[serde(default = "storefront")]
    pub watch: Vec<String>,
    /// Where an app tells how often it was called.
    #[serde(default)]
    pub counter: Option<Counter>,
    /// Pages of the storefront that never end, held open all the time.
    #[serde(default)]
    pub streams: Vec<String>,
    /// The fact by which the mesh shows that it acts on the fault.
    #[serde(default)]
    pub detected_by: Option<Sign>,
    /// The fact by which it shows that it is over.
    #[serde(default)]
    pub healed_by: Option<Sign>,
    /// What must hold with the mesh.
    pub must: Vec<Claim>,
    /// What is to be expected without; told, and no reason to fail.
    #[serde(default)]
    pub without: Vec<Claim>,
}

/// What the shop has to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Needs {
    /// Workload → variables.
    #[serde(default)]
    pub env: BTreeMap<String, BTreeMap<String, String>>,
    /// Without the mesh in place of `env`.
    #[serde(default)]
    pub env_without: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// Files of `demo-boutique/chaos/policies`: each takes the place of the shop's of that name.
    #[serde(default)]
    pub policies: Vec<String>,
    /// More pods, from `demo-boutique/chaos/pods`.
    #[serde(default)]
    pub pods: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Load {
    /// Requests a second.
    pub rate: f64,
    /// While the fault lasts, if that is different.
    #[serde(default)]
    pub fault_rate: Option<f64>,
    /// What visitors do, by weight.
    #[serde(default)]
    pub journeys: Option<String>,
    /// What a visitor waits for a page.
    #[serde(default = "patience", deserialize_with = "span")]
    pub patience: Duration,
    /// In place of journeys, and of the storefront.
    #[serde(default)]
    pub get: Option<Get>,
    /// Requests a second that there is room for; some claims are relative to it.
    #[serde(default)]
    pub capacity: Option<f64>,
}

/// One request, over and over, to a Service that is no storefront.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Get {
    /// `front:80`
    pub service: String,
    pub path: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Not measured: connections are made, and compilers of other languages wake up.
    #[serde(deserialize_with = "span")]
    pub warm: Duration,
    #[serde(deserialize_with = "span")]
    pub base: Duration,
    #[serde(deserialize_with = "span")]
    pub fault: Duration,
    #[serde(deserialize_with = "span")]
    pub recovery: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// After the beginning of the fault.
    #[serde(default, deserialize_with = "span")]
    pub after: Duration,
    /// Again and again, for as long as the fault lasts.
    #[serde(default, deserialize_with = "some_span")]
    pub every: Option<Duration>,
    #[serde(rename = "do")]
    pub action: Action,
}

/// A number that a GET inside a pod answers with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    pub pod: String,
    pub port: u16,
    pub path: String,
}

/// Facts of the journal.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// Any of these.
    pub facts: Vec<String>,
    /// A part of what the fact is about, such as `boutique/catalog`.
    pub about: String,
    #[serde(default)]
    pub by: By,
}

/// Whose facts count. Every caller has a sidecar that finds out for itself: the first is not always the one that visitors call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    #[default]
    Any,
    Watched,
}

fn patience() -> Duration {
    Duration::from_secs(5)
}

fn storefront() -> Vec<String> {
    vec!["storefront".to_owned()]
}

fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_span(&text).map_err(serde::de::Error::custom)
}

fn some_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    span(from).map(Some)
}

impl Phases {
    pub fn total(&self) -> Duration {
        self.warm + self.base + self.fault + self.recovery
    }
}

impl Load {
    pub fn journeys(&self) -> Result<Journeys, boutique_load::Refused> {
        match (&self.get, &self.journeys) {
            (Some(get), _) => Journeys::of(vec![Journey::get("get", &get.path)]),
            (None, Some(weights)) => Journeys::shop().weighted(weights),
            (None, None) => Ok(Journeys::shop()),
        }
    }
}

impl Scenario {
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let wrong = |message: String| Error::Manifest {
            file: file.to_path_buf(),
            message,
        };
        let scenario: Self =
            serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match scenario.mistake() {
            Some(mistake) => Err(wrong(mistake)),
            None => Ok(scenario),
        }
    }

    /// The same with its fault from the mesh, and none of it without one.
    pub fn by_fault_policy(&self) -> Option<Self> {
        let step = Step {
            after: Duration::ZERO,
            every: None,
            action: Action::Inject(self.fault_policy.clone()?),
        };
        Some(Self {
            fault: vec![step],
            only_with_mesh: Some("Without the mesh nobody injects it.".to_owned()),
            ..self.clone()
        })
    }

    /// Whether this pod, such as `boutique/storefront-0`, is one of a watched workload.
    pub fn watches(&self, pod: &str) -> bool {
        let name = pod.rsplit('/').next().unwrap_or(pod);
        let workload = name.rsplit_once('-').map_or(name, |(workload, _)| workload);
        self.watch.iter().any(|watched| watched == workload)
    }

    /// What a type cannot say.
    fn mistake(&self) -> Option<String> {
        for phases in [Some(self.phases), self.quick].into_iter().flatten() {
            for (name, phase) in [
                ("base", phases.base),
                ("fault", phases.fault),
                ("recovery", phases.recovery),
            ] {
                if phase < Duration::from_secs(1) || phase > PHASE_MAX {
                    return Some(format!("the phase `{name}` lasts 1 s to 2 min"));
                }
            }
            if let Some(late) = self.fault.iter().find(|step| step.after >= phases.fault) {
                return Some(format!(
                    "a step begins after {:?}, when the fault is over",
                    late.after
                ));
            }
        }
        if self.fault.is_empty() && self.load.fault_rate.is_none() {
            return Some("nothing happens: `fault` is empty and `load.faultRate` absent".into());
        }
        if self.fault.iter().any(|step| {
            step.every
                .is_some_and(|every| every < Duration::from_millis(100))
        }) {
            return Some("a step is repeated every 100 ms at most".into());
        }
        if let Err(refused) = self.load.journeys() {
            return Some(format!("load: {refused}"));
        }
        if self.load.get.is_some() && self.load.journeys.is_some() {
            return Some("load: `get` and `journeys` exclude each other".into());
        }
        if self.must.is_empty() {
            return Some("nothing must hold: a scenario that cannot fail proves nothing".into());
        }
        let injected = self.by_fault_policy().map(|one| one.fault);
        let steps = self.fault.iter().chain(injected.iter().flatten());
        let actions = steps.map(|step| &step.action);
        let mistake = self.setup.iter().chain(actions).find_map(Action::mistake);
        let claims = self.must.iter().chain(&self.without);
        mistake.or_else(|| claims.filter_map(|claim| claim.mistake(self)).next())
    }
}

pub fn folder(root: &Path) -> PathBuf {
    root.join("demo-boutique/chaos")
}

/// Where the FaultPolicies are, for the shop in a cluster as in the lab.
pub fn faults(root: &Path) -> PathBuf {
    root.join("demo-boutique/faults")
}

/// Every scenario, in the order of their numbers.
pub fn all(root: &Path) -> Result<Vec<Scenario>> {
    let folder = folder(root).join("scenarios");
    let entries = fs::read_dir(&folder).doing(|| format!("list {}", folder.display()))?;
    let mut scenarios = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
            scenarios.push(Scenario::parse(&text, &path)?);
        }
    }
    scenarios.sort_by_key(|one| {
        let number = one.id.trim_start_matches('C').parse().unwrap_or(u32::MAX);
        (number, one.name.clone())
    });
    Ok(scenarios)
}

/// The scenarios with these names or numbers; `all` are all, `gate` those of every submission.
pub fn find(root: &Path, names: &[String]) -> Result<Vec<Scenario>> {
    let all = all(root)?;
    let matches = |one: &Scenario, name: &str| {
        name == "all"
            || (name == "gate" && one.gate)
            || one.name == name
            || one.id.eq_ignore_ascii_case(name)
    };
    if let Some(stranger) = names
        .iter()
        .find(|name| !all.iter().any(|one| matches(one, name)))
    {
        let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        return Err(Error::Request(format!(
            "no scenario is called {stranger}; there are {}, `gate` and `all`",
            known.join(", ")
        )));
    }
    let wanted = all
        .into_iter()
        .filter(|one| names.iter().any(|name| matches(one, name)));
    Ok(wanted.collect())
}

/// The same scenarios with their faults from the mesh. Of a set those that can; who is asked for by name must.
pub fn by_fault_policy(scenarios: &[Scenario], names: &[String]) -> Result<Vec<Scenario>> {
    let is_set = |name: &String| name == "all" || name == "gate";
    let cannot = scenarios.iter().find(|one| one.fault_policy.is_none());
    let injected: Vec<Scenario> = scenarios
        .iter()
        .filter_map(Scenario::by_fault_policy)
        .collect();
    match cannot {
        Some(one) if injected.is_empty() || !names.iter().any(is_set) => {
            Err(Error::Request(format!(
                "{} has no `faultPolicy`: what fails there is not a call, so no FaultPolicy can do it",
                one.name
            )))
        }
        _ => Ok(injected),
    }
}

#[cfg(test)]
mod tests;
