//! The status of routes of the Gateway API that have a Service as parent: whether they are routed by, and if not why.
//!
//! `status.parents` is one list for all controllers of a cluster, so it is read, changed in our own entries, and
//! written with the version that was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_config::index::{Parent, ROUTES_MAX, Unresolved};
use weir_config::pattern::PATTERNS_MAX;
use weir_config::{Kind, ResourceRef};

use super::status::CONTROLLER;
use crate::journal::now_ms;
use crate::mesh::{Mesh, RouteParent};
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::object::{self, concerns_the_mesh, is_service};
use crate::source::kubernetes::register::{Entry, Register};
use crate::source::kubernetes::{Watched, chain, follow, resource};

const KINDS: [Kind; 2] = [Kind::HttpRoute, Kind::GrpcRoute];
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// In one round.
const WRITES_MAX: usize = 50;
/// The API allows eight times that, and nobody reads it.
const MESSAGE_CHARS_MAX: usize = 4000;

#[derive(Clone)]
pub struct Routes {
    mesh: Mesh,
    register: Register,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Routes that have a Service as parent, or had one when we answered last.
    routes: BTreeMap<ResourceRef, DynamicObject>,
    /// Grows with every change.
    revision: u64,
}

impl Known {
    /// That it was written is known at once, unless the watch has brought something newer meanwhile.
    fn wrote(&mut self, route: &ResourceRef, before: Option<&str>, written: DynamicObject) {
        if let Some(known) = self.routes.get_mut(route)
            && known.metadata.resource_version.as_deref() == before
        {
            *known = written;
        }
    }
}

/// What there is to say of a route.
enum Verdict {
    Refused(Entry),
    Read(Vec<RouteParent>),
}

impl Routes {
    pub fn new(mesh: Mesh, register: Register) -> Self {
        Self {
            mesh,
            register,
            known: Arc::default(),
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(self, client: Client, contact: Contact, mut held: watch::Receiver<bool>) {
        let mut watches = tokio::task::JoinSet::new();
        for kind in KINDS {
            let watched = Watched {
                resource: resource(kind),
                newer: None,
                fields: None,
            };
            let routes = self.clone();
            let hear = move |event| routes.hear(kind, event);
            // Its source has said already whether the kind is there.
            let (listed, _) = watch::channel(true);
            watches.spawn(follow(
                client.clone(),
                contact.clone(),
                watched,
                hear,
                listed,
            ));
        }
        let mut settled = None;
        while held.wait_for(|held| *held).await.is_ok() {
            let now = (
                self.mesh.version(),
                self.register.revision(),
                self.lock().revision,
            );
            if settled != Some(now) && self.round(&client).await {
                settled = Some(now);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn hear(&self, kind: Kind, event: Event<DynamicObject>) {
        let mut known = self.lock();
        known.revision += 1;
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let route = reference(kind, &object);
                match concerns_the_mesh(kind, &object) || has_our_answer(&object) {
                    true => known.routes.insert(route, object),
                    false => known.routes.remove(&route),
                };
            }
            Event::Delete(object) => {
                known.routes.remove(&reference(kind, &object));
            }
            Event::Init => known.routes.retain(|route, _| route.kind != kind),
            Event::InitDone => {}
        }
    }

    /// Whether every status is as it should be.
    async fn round(&self, client: &Client) -> bool {
        let now = crate::time::rfc3339(now_ms() / 1000 * 1000).replace(".000Z", "Z");
        let routes: Vec<(ResourceRef, DynamicObject)> = {
            let known = self.lock();
            let routes = known.routes.iter();
            routes
                .map(|(route, object)| (route.clone(), object.clone()))
                .collect()
        };
        let due = routes.into_iter().filter_map(|(route, object)| {
            let parents = answered(&object, &self.verdict(&route, &object)?, &now)?;
            Some((route, object, parents))
        });
        let due: Vec<_> = due.take(WRITES_MAX).collect();
        let mut settled = due.len() < WRITES_MAX;
        for (route, object, parents) in due {
            let before = object.metadata.resource_version.clone();
            let writing = write(client, &route, object, parents);
            match tokio::time::timeout(PATIENCE, writing).await {
                Ok(Ok(written)) => {
                    self.lock().wrote(&route, before.as_deref(), written);
                }
                // It has changed or is gone: the watch brings it as it is then.
                Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {}
                Ok(Err(error)) => {
                    let (route, error) = (route.to_string(), chain(&error));
                    tracing::warn!(route, error, "its status was not written");
                    settled = false;
                }
                Err(_) => return false,
            }
        }
        settled
    }

    /// `None`: what is known of it is of another version of it.
    fn verdict(&self, route: &ResourceRef, object: &DynamicObject) -> Option<Verdict> {
        if !concerns_the_mesh(route.kind, object) {
            // It did once: our answer goes, and the route is somebody else's.
            return Some(Verdict::Read(Vec::new()));
        }
        let entry = self.register.get(route)?;
        if entry.generation != object.metadata.generation {
            return None;
        }
        if !entry.refused.is_empty() {
            return Some(Verdict::Refused(entry));
        }
        let parents = self.mesh.route_parents(route.kind, &route.name)?;
        Some(Verdict::Read(parents))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reference(kind: Kind, object: &DynamicObject) -> ResourceRef {
    ResourceRef {
        kind,
        name: object::name(object, kind),
    }
}

fn has_our_answer(object: &DynamicObject) -> bool {
    let answers = object.data.pointer("/status/parents");
    let mut answers = answers.and_then(Value::as_array).into_iter().flatten();
    answers.any(|entry| entry["controllerName"] == CONTROLLER)
}

async fn write(
    client: &Client,
    route: &ResourceRef,
    mut object: DynamicObject,
    parents: Value,
) -> kube::Result<DynamicObject> {
    let resource = resource(route.kind);
    let namespace = &route.name.namespace;
    let routes: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    object.types = Some(kube::core::TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    object.metadata.managed_fields = None;
    object.data["status"]["parents"] = parents;
    routes
        .replace_status(&route.name.name, &PostParams::default(), &object)
        .await
}

/// `status.parents` with our answers; `None`: it is so already. A route without `parentRefs` has no parents.
fn answered(object: &DynamicObject, verdict: &Verdict, now: &str) -> Option<Value> {
    let parents = object.data.pointer("/spec/parentRefs");
    let parents = parents.and_then(Value::as_array).into_iter().flatten();
    let before = object.data.pointer("/status/parents");
    let before = before
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let (old, others): (Vec<Value>, Vec<Value>) = before
        .into_iter()
        .partition(|entry| entry["controllerName"] == CONTROLLER);
    let of_services = parents.filter(|parent| is_service(parent));
    let ours = of_services.enumerate().map(|(place, parent)| {
        let conditions = match verdict {
            Verdict::Refused(entry) => vec![refused(entry)],
            Verdict::Read(parents) => parents.get(place).map(conditions).unwrap_or_default(),
        };
        let same_parent = old.iter().find(|entry| entry["parentRef"] == *parent);
        let conditions = conditions.into_iter().map(|mut condition| {
            condition["observedGeneration"] = json!(object.metadata.generation);
            condition["lastTransitionTime"] = since(&condition, same_parent, now);
            condition
        });
        let conditions: Vec<Value> = conditions.collect();
        json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions })
    });
    let ours: Vec<Value> = ours.collect();
    (old != ours).then(|| Value::Array([others, ours].concat()))
}

/// Since when its status is what it is.
fn since(condition: &Value, before: Option<&Value>, now: &str) -> Value {
    let before = before.and_then(|before| before["conditions"].as_array());
    let same = before.into_iter().flatten().find(|before| {
        before["type"] == condition["type"] && before["status"] == condition["status"]
    });
    let since = same.and_then(|same| same["lastTransitionTime"].as_str());
    json!(since.unwrap_or(now))
}

fn condition(name: &str, holds: bool, reason: &str, message: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    json!({ "type": name, "status": status, "reason": reason, "message": message })
}

fn refused(entry: &Entry) -> Value {
    let in_force = match entry.has_last_good {
        true => "What it said before stays in force.\n",
        false => "",
    };
    let message = format!("{in_force}{}", entry.refused.join("\n"));
    condition("Accepted", false, "UnsupportedValue", &message)
}

fn conditions(parent: &RouteParent) -> Vec<Value> {
    let name = &parent.parent.name;
    let too_many = format!("{ROUTES_MAX} older routes of its namespace are attached there");
    let too_many_patterns = format!(
        "with older routes of its namespace there it has more than {PATTERNS_MAX} regular expressions"
    );
    let (holds, reason, message) = match parent.fares {
        Parent::Accepted => (true, "Accepted", "it is routed by".to_owned()),
        Parent::NoMatchingParent => {
            let message = format!("there is no Service {name}, or it has no such port");
            (false, "NoMatchingParent", message)
        }
        Parent::TooMany => (false, "UnsupportedValue", too_many),
        Parent::TooManyPatterns => (false, "UnsupportedValue", too_many_patterns),
        Parent::Conflicted => {
            let message = "a GRPCRoute of its namespace is attached there, too: on a port one kind is routed by, and GRPCRoutes come first";
            (false, "Conflicted", message.to_owned())
        }
        Parent::PartlyConflicted => {
            let message =
                "it is routed by, but for ports with GRPCRoutes of its namespace, which come first";
            (true, "Accepted", message.to_owned())
        }
        Parent::NoAddress(why) => (false, "UnsupportedValue", why.to_string()),
        // As of a Gateway that listens for TCP: a port is what a listener is there.
        Parent::Opaque(by) => (false, "NotAllowedByListeners", by.to_string()),
    };
    let accepted = condition("Accepted", holds, reason, &message);
    let resolved = match &parent.unresolved {
        None => condition("ResolvedRefs", true, "ResolvedRefs", "all are there"),
        Some((why, title)) => {
            let (reason, message) = match why {
                Unresolved::InvalidKind => ("InvalidKind", format!("{title} is no Service")),
                Unresolved::RefNotPermitted => (
                    "RefNotPermitted",
                    format!("no ReferenceGrant of its namespace lets this route name {title}"),
                ),
                Unresolved::BackendNotFound => ("BackendNotFound", format!("there is no {title}")),
                Unresolved::ExternalName => (
                    "InvalidKind",
                    format!(
                        "{title} is of type ExternalName: its name may lead anywhere, so no call is sent there"
                    ),
                ),
            };
            condition("ResolvedRefs", false, reason, &message)
        }
    };
    vec![accepted, resolved]
}

#[cfg(test)]
mod tests {
    use weir_config::index::OpaqueBy;
    use weir_config::resource::{NoAddress, ParentRef};

    use super::*;

    fn route(parents: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "name": "cart", "namespace": "boutique", "generation": 2 },
            "spec": { "parentRefs": parents, "rules": [] },
            "status": { "parents": status },
        }))
        .expect("an object")
    }

    fn read(fares: Parent, unresolved: Option<Unresolved>) -> Verdict {
        Verdict::Read(vec![RouteParent {
            parent: ParentRef {
                name: "cart".into(),
                ..ParentRef::default()
            },
            fares,
            unresolved: unresolved.map(|why| (why, "Service boutique/next".into())),
        }])
    }

    fn reasons(answer: &Value) -> Vec<(String, String)> {
        let conditions = answer["conditions"].as_array().expect("conditions");
        let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
        let told = conditions
            .iter()
            .map(|it| (text(it, "status"), text(it, "reason")));
        told.collect()
    }

    #[test]
    fn a_route_of_a_service_is_answered_once_and_others_answers_stay() {
        let service = json!({ "group": "", "kind": "Service", "name": "cart" });
        let gateway = json!({ "name": "front" });
        let theirs = json!({ "parentRef": gateway, "controllerName": "other.example/controller", "conditions": [] });
        let fresh = route(json!([gateway, service]), json!([theirs]));
        let verdict = read(Parent::Accepted, None);
        let answer = answered(&fresh, &verdict, "2026-11-26T03:00:00Z").expect("an answer");
        assert_eq!(answer.as_array().map(Vec::len), Some(2));
        assert_eq!(answer[0], theirs);
        assert_eq!(answer[1]["parentRef"], service);
        assert_eq!(answer[1]["conditions"][0]["observedGeneration"], 2);
        let is = |told: &str| ("True".to_owned(), told.to_owned());
        assert_eq!(reasons(&answer[1]), [is("Accepted"), is("ResolvedRefs")]);
        let left = route(json!([gateway]), answer.clone());
        let gone = answered(&left, &Verdict::Read(Vec::new()), "");
        assert_eq!(gone, Some(json!([theirs])), "it is a Gateway's now");
        let told = route(json!([gateway, service]), answer);
        let later = "2026-11-27T03:00:00Z";
        assert_eq!(answered(&told, &verdict, later), None, "said already");
        let verdict = read(Parent::Accepted, Some(Unresolved::BackendNotFound));
        let answer = answered(&told, &verdict, later).expect("it has changed");
        let [accepted, resolved] = [0, 1].map(|it| &answer[1]["conditions"][it]);
        assert_eq!(accepted["lastTransitionTime"], "2026-11-26T03:00:00Z");
        assert_eq!(resolved["lastTransitionTime"], later);
    }

    /// Then nothing that changed meanwhile was ever answered.
    #[test]
    fn what_was_written_does_not_take_the_place_of_what_has_come_since() {
        let version = |number: &str| {
            let mut object = route(json!([]), json!([]));
            object.metadata.resource_version = Some(number.to_owned());
            object
        };
        let mut known = Known::default();
        let key = reference(Kind::HttpRoute, &version("1"));
        let known_version = |known: &Known| known.routes[&key].metadata.resource_version.clone();
        known.routes.insert(key.clone(), version("1"));
        known.wrote(&key, Some("1"), version("2"));
        assert_eq!(known_version(&known).as_deref(), Some("2"));
        known.routes.insert(key.clone(), version("4"));
        known.wrote(&key, Some("2"), version("3"));
        assert_eq!(known_version(&known).as_deref(), Some("4"));
        known.routes.clear();
        known.wrote(&key, Some("4"), version("5"));
        assert!(known.routes.is_empty(), "it is gone");
    }

    /// The API server leaves the list out when nothing is in it: our `Accepted: True` stayed for ever.
    #[test]
    fn the_answer_goes_with_the_last_of_the_parents() {
        let theirs = json!({ "parentRef": { "name": "front" }, "controllerName": "other.example/controller", "conditions": [] });
        let service = json!({ "group": "", "kind": "Service", "name": "cart" });
        let fresh = route(json!([service]), json!([theirs]));
        let answer = answered(&fresh, &read(Parent::Accepted, None), "").expect("an answer");
        let mut left = route(json!([]), answer);
        for parents in [json!([]), Value::Null] {
            left.data["spec"]["parentRefs"] = parents;
            let gone = answered(&left, &Verdict::Read(Vec::new()), "");
            assert_eq!(gone, Some(json!([theirs])));
        }
        let spec = left.data["spec"].as_object_mut().expect("a spec");
        spec.remove("parentRefs");
        let gone = answered(&left, &Verdict::Read(Vec::new()), "");
        assert_eq!(gone, Some(json!([theirs])));
        left.data["status"]["parents"] = json!([theirs]);
        assert_eq!(answered(&left, &Verdict::Read(Vec::new()), ""), None);
    }

    #[test]
    fn what_is_wrong_has_the_reason_of_the_standard() {
        let fresh = route(
            json!([{ "group": "", "kind": "Service", "name": "cart" }]),
            json!([]),
        );
        let told = |verdict: Verdict| {
            let answer = answered(&fresh, &verdict, "").expect("an answer");
            let reasons = reasons(&answer[0]).into_iter();
            reasons.map(|(_, reason)| reason).collect::<Vec<_>>()
        };
        for (fares, unresolved, accepted, resolved) in [
            (
                Parent::NoMatchingParent,
                None,
                "NoMatchingParent",
                "ResolvedRefs",
            ),
            (Parent::TooMany, None, "UnsupportedValue", "ResolvedRefs"),
            (
                Parent::TooManyPatterns,
                None,
                "UnsupportedValue",
                "ResolvedRefs",
            ),
            (Parent::Conflicted, None, "Conflicted", "ResolvedRefs"),
            (Parent::PartlyConflicted, None, "Accepted", "ResolvedRefs"),
            (
                Parent::NoAddress(NoAddress::Headless),
                None,
                "UnsupportedValue",
                "ResolvedRefs",
            ),
            (
                Parent::Opaque(OpaqueBy::Service),
                None,
                "NotAllowedByListeners",
                "ResolvedRefs",
            ),
            (
                Parent::Accepted,
                Some(Unresolved::ExternalName),
                "Accepted",
                "InvalidKind",
            ),
            (
                Parent::Accepted,
                Some(Unresolved::InvalidKind),
                "Accepted",
                "InvalidKind",
            ),
            (
                Parent::Accepted,
                Some(Unresolved::RefNotPermitted),
                "Accepted",
                "RefNotPermitted",
            ),
            (
                Parent::Accepted,
                Some(Unresolved::BackendNotFound),
                "Accepted",
                "BackendNotFound",
            ),
        ] {
            assert_eq!(told(read(fares, unresolved)), [accepted, resolved]);
        }
        let refused = Entry {
            refused: vec!["error: CORS is not supported".into()],
            ..Entry::default()
        };
        assert_eq!(told(Verdict::Refused(refused)), ["UnsupportedValue"]);
    }
}
