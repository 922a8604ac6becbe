//! What holds for one pod's sidecar, value by value, and who said so.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_config::merge::Source;
use weir_config::resource::ObjectName;
use weir_config::snapshot::ServiceKey;
use weir_config::{compile, pb};

use super::{Mesh, State};

const OUTBOUND: &str = "outbound";
const INBOUND: &str = "inbound";
/// Of the pod, to which no service leads.
const OTHER_PORTS: &str = "other ports";
/// What holds whatever a sidecar takes or makes calls for.
const WHOLE_MESH: &str = "the mesh";

impl Mesh {
    /// The version of it, and all values; `None`: there is no such pod.
    pub fn effective(&self, pod: &ObjectName) -> Option<(u64, Vec<pb::PolicyValue>)> {
        let state = self.state();
        let mut values = Vec::new();
        let own = compile::workload(&state.index, pod)?;
        let itself = state.index.pod(pod)?;
        for (field, said, source) in compile::effective_mesh(&state.index) {
            values.push(value("", WHOLE_MESH, (field, said), &source));
        }
        for key in state.serves(pod)? {
            let Some(number) = compile::port_behind(&state.index, &key, pod) else {
                continue;
            };
            let speaks = own.ports.iter().find(|port| port.port == number);
            let another = speaks
                .and_then(|port| port.service.as_ref())
                .filter(|it| **it != key);
            if let Some(another) = another {
                let words = format!("as {another} says, which speaks for port {number}");
                values.push(pb::PolicyValue {
                    source: another.to_string(),
                    ..value(
                        INBOUND,
                        &key.to_string(),
                        ("inbound".to_owned(), words.into()),
                        &Source::BuiltIn,
                    )
                });
            }
            let holds = |field: &str| another.is_none() || field.contains("uthorization");
            if let Some(effective) = compile::effective_inbound(&state.index, &key, itself) {
                let told = effective.fields.into_iter().zip(effective.from);
                let told = told.filter(|((field, _), _)| holds(field));
                let key = key.to_string();
                values.extend(told.map(|(field, from)| value(INBOUND, &key, field, &from.1)));
            }
        }
        let elsewhere = compile::effective_inbound_elsewhere(&state.index, itself);
        let told = elsewhere.fields.into_iter().zip(elsewhere.from);
        values.extend(told.map(|(field, from)| value(INBOUND, OTHER_PORTS, field, &from.1)));
        for key in state.board.services_of(pod) {
            if let Some(forced) = state.forced.get(&key) {
                let forced = serde_json::to_value(forced).expect("it is plain data");
                values.push(pb::PolicyValue {
                    source: "operator".to_owned(),
                    ..value(
                        OUTBOUND,
                        &key.to_string(),
                        ("forced".to_owned(), forced),
                        &Source::BuiltIn,
                    )
                });
            }
            if let Some(effective) = compile::effective(&state.index, &key) {
                let told = effective.fields.into_iter().zip(effective.from);
                let key = key.to_string();
                values.extend(told.map(|(field, from)| value(OUTBOUND, &key, field, &from.1)));
            }
        }
        Some((state.versions.current(), values))
    }
}

impl State {
    /// The service ports that lead to the pod.
    fn serves(&self, pod: &ObjectName) -> Option<BTreeSet<ServiceKey>> {
        let pod = self.index.pod(pod)?;
        let mut keys = BTreeSet::new();
        for name in self.index.services_before(pod) {
            let Some(service) = self.index.service(&name) else {
                continue;
            };
            let ports = service.spec.ports.iter().filter(|port| port.is_tcp());
            keys.extend(ports.map(|port| ServiceKey {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: port.port,
            }));
        }
        Some(keys)
    }
}

fn value(
    direction: &str,
    service: &str,
    (field, value): (String, Value),
    source: &Source,
) -> pb::PolicyValue {
    pb::PolicyValue {
        direction: direction.to_owned(),
        service: service.to_owned(),
        field,
        value_json: value.to_string(),
        source: source.to_string(),
    }
}
