//! Whatever happened, and in whichever order: who has listened all along knows what a newcomer to a control plane that
//! has just been started is told, and every status says the same.
//!
//! `WEIR_SEED=n` runs one world, `WEIR_SEEDS=n` another number of them.

mod objects;
mod sidecar;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kube::api::DynamicObject;
use serde_json::Value;
use weir_config::resource::ObjectName;
use weir_config::snapshot::{Force, Forced, ServiceKey};
use weir_config::{Kind, Resource, ResourceRef};

use self::objects::Dice;
use self::sidecar::Sidecar;
use crate::breakers::NotClosed;
use crate::mesh::{Change, Mesh};
use crate::source::kubernetes::object::{concerns_the_mesh, name, read};
use crate::version::Versions;

const SEEDS: u64 = 120;
const STEPS: usize = 120;
const STEPS_BEFORE: usize = 40;
const SIDECARS_MAX: usize = 5;
const DIALED_AT_FIRST: usize = 6;

struct World {
    dice: Dice,
    mesh: Mesh,
    sidecars: Vec<Sidecar>,
    /// What the API server has that is for the mesh.
    objects: BTreeMap<ResourceRef, Resource>,
    draining: BTreeSet<ObjectName>,
    written: u32,
    refused: u32,
    told: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(fastrand::Rng::with_seed(seed)),
            mesh: mesh(),
            sidecars: Vec::new(),
            objects: BTreeMap::new(),
            draining: BTreeSet::new(),
            written: 0,
            refused: 0,
            told: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.dice.0.u8(..20) {
            0..9 => self.objects_are_written(),
            9..12 => self.an_object_is_deleted(),
            12 | 13 if self.sidecars.len() < 3 => self.a_sidecar_comes(),
            12 => self.a_sidecar_comes(),
            13 if self.dice.chance(30) => self.a_sidecar_goes(),
            14 => self.a_sidecar_drains_or_does_not(),
            15 => self.an_operator_forces_or_lets_go(),
            16 | 17 => self.an_app_dials(),
            _ => self.a_sidecar_gets_round_to_it(),
        }
    }

    /// Often several at once, as when a list replaces what was known.
    fn objects_are_written(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..self.dice.one(&[1, 1, 1, 2, 4]) {
            let (kind, object) = self.dice.object();
            self.told.push(format!("{kind} {object}"));
            self.written += 1;
            match change(kind, object) {
                Some(change) => changes.push(change),
                None => self.refused += 1,
            }
        }
        self.change(changes);
    }

    fn an_object_is_deleted(&mut self) {
        let known: Vec<ResourceRef> = self.objects.keys().cloned().collect();
        if !known.is_empty() {
            let gone = known[self.dice.0.usize(..known.len())].clone();
            self.told.push(format!("{gone} is deleted"));
            self.change(vec![Change::Delete(gone)]);
        }
    }

    fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::Apply(resource) => {
                    let resource = Resource::clone(resource);
                    self.objects.insert(resource.reference(), resource);
                }
                Change::Delete(gone) => {
                    self.objects.remove(gone);
                }
            }
        }
        let objects = &self.objects;
        self.draining
            .retain(|pod| objects.contains_key(&pod_ref(pod)));
        self.mesh.change(changes);
    }

    fn a_sidecar_comes(&mut self) {
        let pods = self.objects.keys().filter(|it| it.kind == Kind::Pod);
        let pods: Vec<ObjectName> = pods.map(|it| it.name.clone()).collect();
        let (namespace, name) = self.dice.pod();
        let pod = match pods.is_empty() || self.dice.chance(20) {
            true => ObjectName::new(namespace, name),
            false => pods[self.dice.0.usize(..pods.len())].clone(),
        };
        if self.sidecars.len() < SIDECARS_MAX && self.sidecars.iter().all(|it| it.pod != pod) {
            self.told.push(format!("{pod} comes"));
            self.sidecars.push(Sidecar::join(&self.mesh, &pod));
            (0..DIALED_AT_FIRST).for_each(|_| self.an_app_dials());
        }
    }

    fn a_sidecar_goes(&mut self) {
        if let Some(place) = self.a_sidecar() {
            let gone = self.sidecars.remove(place);
            self.told.push(format!("{} goes", gone.pod));
        }
    }

    fn a_sidecar(&mut self) -> Option<usize> {
        let count = self.sidecars.len();
        (count > 0).then(|| self.dice.0.usize(..count))
    }

    fn a_sidecar_drains_or_does_not(&mut self) {
        let (namespace, name) = self.dice.pod();
        let (pod, drains) = (ObjectName::new(namespace, name), self.dice.chance(50));
        self.told.push(format!("{pod} drains: {drains}"));
        self.mesh.set_draining(&pod, drains);
        let is_there = self.objects.contains_key(&pod_ref(&pod));
        match drains && is_there {
            true => self.draining.insert(pod),
            false => self.draining.remove(&pod),
        };
    }

    fn an_operator_forces_or_lets_go(&mut self) {
        let (namespace, name, port) = self.dice.service();
        let key = ServiceKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        };
        let forced = Forced {
            to: Force::Open,
            until_ms: 1,
        };
        let forced = self.dice.chance(50).then_some(forced);
        self.told.push(format!("{key} is forced: {forced:?}"));
        self.mesh.force([(key, forced)]);
    }

    fn an_app_dials(&mut self) {
        let (ip, port) = self.dice.address();
        let address = SocketAddr::new(ip.parse().expect("an address"), port);
        if let Some(place) = self.a_sidecar() {
            let sidecar = &mut self.sidecars[place];
            self.told
                .push(format!("{} dials or forgets {address}", sidecar.pod));
            sidecar.toggle(address);
        }
    }

    fn a_sidecar_gets_round_to_it(&mut self) {
        let balks = self.dice.chance(20);
        if let Some(place) = self.a_sidecar() {
            let sidecar = &mut self.sidecars[place];
            match balks {
                true => sidecar.balk(),
                false => {
                    sidecar.advance();
                }
            }
        }
    }

    /// A control plane that has just been started, and the same sidecars with it.
    fn anew(&mut self) -> (Mesh, Vec<Sidecar>) {
        let fresh = mesh();
        let mut resources: Vec<Resource> = self.objects.values().cloned().collect();
        self.dice.0.shuffle(&mut resources);
        let changes = resources.into_iter().map(|it| Change::Apply(Box::new(it)));
        fresh.change(changes);
        let forced = self.mesh.forced().into_iter();
        fresh.force(forced.map(|(key, forced)| (key, Some(forced))));
        for pod in &self.draining {
            fresh.set_draining(pod, true);
        }
        let sidecars = self.sidecars.iter().map(|known| {
            let mut sidecar = Sidecar::join(&fresh, &known.pod);
            known
                .subscribed
                .iter()
                .for_each(|address| sidecar.toggle(*address));
            sidecar
        });
        let sidecars = sidecars.collect();
        (fresh, sidecars)
    }

    fn compare(&mut self, seed: u64) {
        // Whose pod is gone is about to go, and is told nothing of itself meanwhile.
        let objects = &self.objects;
        self.sidecars
            .retain(|it| objects.contains_key(&pod_ref(&it.pod)));
        let (fresh, mut newcomers) = self.anew();
        let names = [&self.mesh, &fresh].map(|mesh| mesh.names().borrow().clone());
        settle(&self.mesh, &mut self.sidecars);
        settle(&fresh, &mut newcomers);
        let told = || {
            let last = self.told.iter().rev().take(25).rev();
            last.cloned().collect::<Vec<_>>().join("\n")
        };
        for (known, new) in self.sidecars.iter().zip(&newcomers) {
            let why = || format!("WEIR_SEED={seed}: {} after\n{}\n", known.pod, told());
            pretty(&known.knows, &new.knows, why);
        }
        let names_differ = || format!("WEIR_SEED={seed}: names to resolve after\n{}\n", told());
        pretty(&names[0], &names[1], names_differ);
        let why = |what: &str| format!("WEIR_SEED={seed}: {what} after\n{}\n", told());
        for resource in self.objects.keys() {
            let title = resource.to_string();
            let says = |mesh: &Mesh| {
                let effective =
                    (resource.kind == Kind::Pod).then(|| mesh.effective(&resource.name));
                (
                    mesh.enforcement(resource, &NotClosed::default()),
                    mesh.route_parents(resource.kind, &resource.name),
                    effective.flatten().map(|(_, values)| values),
                )
            };
            pretty(&says(&self.mesh), &says(&fresh), || why(&title));
        }
    }
}

fn pretty<T: PartialEq + std::fmt::Debug>(known: &T, new: &T, why: impl Fn() -> String) {
    if known == new {
        return;
    }
    let (known, new) = (format!("{known:#?}"), format!("{new:#?}"));
    let beyond = |text: &str, other: &str| {
        let others: BTreeSet<&str> = other.lines().collect();
        let own = text.lines().filter(|line| !others.contains(line));
        own.collect::<Vec<_>>().join("\n")
    };
    panic!(
        "{}it is known:\n{}\nand is:\n{}",
        why(),
        beyond(&known, &new),
        beyond(&new, &known)
    );
}

/// Everybody has everything, and names are resolved: one after the other has more to ask.
fn settle(mesh: &Mesh, sidecars: &mut [Sidecar]) {
    let found: IpAddr = "192.0.2.7".parse().expect("an address");
    let names = mesh.names().borrow().clone();
    for name in names {
        mesh.resolved(&name, vec![found]);
    }
    sidecars.iter_mut().for_each(Sidecar::settle);
}

fn mesh() -> Mesh {
    Mesh::new("weir.local", Versions::in_memory())
}

fn pod_ref(name: &ObjectName) -> ResourceRef {
    ResourceRef {
        kind: Kind::Pod,
        name: name.clone(),
    }
}

/// What the watch of its kind makes of it; `None`: it is refused, and what was there before stays in force.
fn change(kind: Kind, object: Value) -> Option<Change> {
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    if !concerns_the_mesh(kind, &object) {
        let name = name(&object, kind);
        return Some(Change::Delete(ResourceRef { kind, name }));
    }
    let read = read(kind, &object, "weir.local").ok()?;
    Some(Change::Apply(Box::new(read.resource)))
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS_BEFORE {
        world.step();
    }
    for step in 0..STEPS {
        world.step();
        if step % 6 == 0 {
            world.compare(seed);
        }
    }
    world.compare(seed);
    let (written, refused) = (world.written, world.refused);
    assert!(
        refused * 4 < written,
        "{refused} of {written} objects mean nothing"
    );
}

#[test]
fn whoever_has_listened_all_along_knows_what_a_newcomer_is_told() {
    let number = |name: &str| {
        let said = std::env::var(name).ok();
        said.map(|said| said.parse::<u64>().expect("a number"))
    };
    match number("WEIR_SEED") {
        Some(seed) => run(seed),
        None => (0..number("WEIR_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
}
