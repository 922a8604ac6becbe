use std::sync::Arc;

use kube::{Client, Config};
use serde_json::json;

use super::*;
use crate::journal::{Journal, RedbStore};
use crate::mesh::Mesh;
use crate::source::kubernetes::contact::Contact;
use crate::source::kubernetes::register::Register;
use crate::source::memory::Memory;
use crate::version::Versions;

/// An API server that nobody asks.
fn shared(folder: &tempfile::TempDir) -> Shared {
    let store = RedbStore::open(&folder.path().join("journal"), 100).expect("opens");
    let journal = Journal::open(store).expect("a journal");
    let config = Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    Shared {
        client: Client::try_from(config).expect("a client"),
        mesh: Mesh::new("weir.local", Versions::in_memory()),
        contact: Contact::new(journal.clone()),
        journal,
        register: Register::default(),
        memory: Arc::new(Memory::new(folder.path().join("memory"))),
    }
}

fn policy(name: &str, rules: &Value) -> DynamicObject {
    let object = json!({
        "metadata": { "name": name, "namespace": "shop", "creationTimestamp": "2026-11-26T03:00:00Z" },
        "spec": { "targetRefs": [{ "kind": "Namespace", "name": "shop" }], "rules": rules },
    });
    serde_json::from_value(object).expect("an object")
}

fn good() -> Value {
    json!([{ "from": [{ "namespace": "shop" }] }])
}

/// Unreadable, and so refused.
fn bad() -> Value {
    json!([{ "fom": [] }])
}

fn is_in_force(shared: &Shared, name: &str) -> bool {
    let resource = ResourceRef {
        kind: Kind::AuthorizationPolicy,
        name: ObjectName::new("shop", name),
    };
    let found = shared.mesh.enforcement(&resource, &Default::default());
    found.is_some()
}

/// The server lists in pages, and one of them may fail. What had been read of the last good content of a policy was lost with
/// it: the list that came next found it known, and nothing was in force.
#[tokio::test]
async fn a_list_that_breaks_off_loses_no_last_good_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let shared = shared(&folder);
    let kind = Kind::AuthorizationPolicy;
    let read = object::read(kind, &policy("kept", &good()), "weir.local").expect("a policy");
    let title = read.resource.reference().to_string();
    let remembered = HashMap::from([(title, read.text)]);
    let mut listener = Listener::new(kind, shared.clone(), remembered);
    listener.hear(Event::Init);
    listener.hear(Event::InitApply(policy("kept", &bad())));
    listener.hear(Event::InitApply(policy("broken", &good())));
    listener.hear(Event::InitApply(policy("gone", &good())));
    assert!(!is_in_force(&shared, "kept"), "nobody sees half of a list");

    listener.hear(Event::Init);
    listener.hear(Event::InitApply(policy("kept", &bad())));
    listener.hear(Event::InitApply(policy("broken", &bad())));
    listener.hear(Event::InitDone);
    assert!(is_in_force(&shared, "kept"), "as it was before a restart");
    assert!(is_in_force(&shared, "broken"), "as it was a moment ago");
    assert!(!is_in_force(&shared, "gone"));
}
