//! Routes of the Gateway API with a Service as parent: this version does not route by them, and says so in their
//! status rather than nowhere.
//!
//! `status.parents` is one list for all controllers of a cluster, so it is read, changed in our own entries, and
//! written with the version that was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::status::CONTROLLER;
use super::trust::builtin;
use crate::journal::now_ms;
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::{Watched, chain, follow};

const GROUP: &str = "gateway.networking.k8s.io";
const KINDS: [(&str, &str); 2] = [("HTTPRoute", "httproutes"), ("GRPCRoute", "grpcroutes")];
const EVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// In one round.
const WRITES_MAX: usize = 50;

/// Kind, namespace, name.
type Key = (&'static str, String, String);

/// Routes whose status does not say yet what it should.
#[derive(Clone, Default)]
pub struct Routes(Arc<Mutex<BTreeMap<Key, DynamicObject>>>);

impl Routes {
    /// Runs for as long as the process does.
    pub async fn run(self, client: Client, contact: Contact, mut held: watch::Receiver<bool>) {
        let mut watches = tokio::task::JoinSet::new();
        for (kind, plural) in KINDS {
            let watched = Watched {
                resource: builtin(GROUP, "v1", kind, plural),
                fields: None,
            };
            let routes = self.clone();
            let hear = move |event| routes.hear(kind, event);
            let (listed, _) = watch::channel(false);
            watches.spawn(follow(
                client.clone(),
                contact.clone(),
                watched,
                hear,
                listed,
            ));
        }
        while held.wait_for(|held| *held).await.is_ok() {
            self.round(&client).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    fn hear(&self, kind: &'static str, event: Event<DynamicObject>) {
        let key = |object: &DynamicObject| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let metadata = &object.metadata;
            (kind, text(&metadata.namespace), text(&metadata.name))
        };
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let key = key(&object);
                match answered(&object, "") {
                    Some(_) => self.lock().insert(key, object),
                    None => self.lock().remove(&key),
                };
            }
            Event::Delete(object) => {
                self.lock().remove(&key(&object));
            }
            Event::Init => self.lock().retain(|(of, ..), _| *of != kind),
            Event::InitDone => {}
        }
    }

    async fn round(&self, client: &Client) {
        let waiting: Vec<(Key, DynamicObject)> = {
            let waiting = self.lock();
            let some = waiting.iter().take(WRITES_MAX);
            some.map(|(key, object)| (key.clone(), object.clone()))
                .collect()
        };
        for (key, object) in waiting {
            let written = tokio::time::timeout(PATIENCE, answer(client, &key, &object)).await;
            match written {
                // The watch brings it back as it is then.
                Ok(Ok(())) => {
                    self.lock().remove(&key);
                }
                Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {
                    self.lock().remove(&key);
                }
                Ok(Err(error)) => {
                    let (kind, namespace, name) = &key;
                    let error = chain(&error);
                    tracing::warn!(kind, namespace, name, error, "its status was not written");
                }
                Err(_) => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, DynamicObject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(client: &Client, key: &Key, object: &DynamicObject) -> kube::Result<()> {
    let (kind, namespace, name) = key;
    let plural = KINDS.iter().find(|(known, _)| known == kind);
    let resource: ApiResource = builtin(GROUP, "v1", kind, plural.map_or("", |(_, plural)| plural));
    let routes: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let now = crate::time::rfc3339(now_ms() / 1000 * 1000).replace(".000Z", "Z");
    let Some(parents) = answered(object, &now) else {
        return Ok(());
    };
    let mut object = object.clone();
    object.types = Some(kube::core::TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    object.metadata.managed_fields = None;
    object.data["status"]["parents"] = parents;
    routes
        .replace_status(name, &PostParams::default(), &object)
        .await
        .map(|_| ())
}

/// `status.parents` with our answers; `None`: it is so already, or none of its parents is a Service.
fn answered(object: &DynamicObject, now: &str) -> Option<Value> {
    let parents = object.data.pointer("/spec/parentRefs")?.as_array()?;
    let of_services = parents.iter().filter(|parent| {
        parent["kind"] == "Service" && matches!(parent["group"].as_str(), Some("" | "core"))
    });
    let generation = object.metadata.generation;
    let ours: Vec<Value> = of_services
        .map(|parent| refusal(parent, generation, now))
        .collect();
    if ours.is_empty() {
        return None;
    }
    let before = object.data.pointer("/status/parents");
    let before = before
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let (old, others): (Vec<Value>, Vec<Value>) = before
        .into_iter()
        .partition(|entry| entry["controllerName"] == CONTROLLER);
    if same(&old, &ours) {
        return None;
    }
    Some(Value::Array([others, ours].concat()))
}

fn refusal(parent: &Value, generation: Option<i64>, now: &str) -> Value {
    json!({
        "parentRef": parent,
        "controllerName": CONTROLLER,
        "conditions": [{
            "type": "Accepted", "status": "False", "reason": "UnsupportedValue",
            "message": "this version of Weir does not route by the Gateway API: the route has no effect on calls in \
                        the mesh. What differs by method or path can be said in `routes` of a ResiliencePolicy.",
            "observedGeneration": generation, "lastTransitionTime": now,
        }],
    })
}

/// But for when it was said.
fn same(old: &[Value], new: &[Value]) -> bool {
    let timeless = |entries: &[Value]| {
        let mut entries = entries.to_vec();
        for entry in &mut entries {
            entry["conditions"][0]["lastTransitionTime"] = Value::Null;
        }
        entries
    };
    timeless(old) == timeless(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(parents: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "name": "cart", "namespace": "boutique", "generation": 2 },
            "spec": { "parentRefs": parents, "rules": [] },
            "status": { "parents": status },
        }))
        .expect("an object")
    }

    #[test]
    fn a_route_of_a_service_is_answered_once_and_others_answers_stay() {
        let service = json!({ "group": "", "kind": "Service", "name": "cart" });
        let theirs = json!({ "parentRef": service, "controllerName": "other.example/controller", "conditions": [] });
        let fresh = route(json!([service]), json!([theirs]));
        let answer = answered(&fresh, "2026-11-26T03:00:00Z").expect("an answer");
        assert_eq!(answer[0], theirs);
        assert_eq!(answer[1]["controllerName"], CONTROLLER);
        assert_eq!(answer[1]["conditions"][0]["status"], "False");
        assert_eq!(answer[1]["conditions"][0]["observedGeneration"], 2);
        let told = route(json!([service]), answer);
        assert_eq!(
            answered(&told, "2026-11-27T03:00:00Z"),
            None,
            "said already"
        );
    }

    #[test]
    fn a_route_of_a_gateway_is_none_of_our_business() {
        let gateway = json!({ "group": GROUP, "kind": "Gateway", "name": "front" });
        let implied = json!({ "name": "front" });
        for parents in [json!([gateway]), json!([implied]), json!([]), json!(7)] {
            assert_eq!(answered(&route(parents, json!([])), ""), None);
        }
    }
}
