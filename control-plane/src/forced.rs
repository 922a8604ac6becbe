//! Breakers that an operator holds open or closed: until when, and that it ends.
//!
//! The journal is the truth: what is held after a restart is what it says and what is not over. Sidecars know the end as
//! well, so it comes also when the control plane does not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weir_config::pb;
use weir_config::resource::ObjectName;
use weir_config::snapshot::{Force, Forced, ServiceKey};

use crate::journal::{Event, Fact, Journal, StoreError, now_ms};
use crate::mesh::Mesh;

/// Nobody remembers after a day that it was meant to be for a while.
pub const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// At once: they have to fit where control planes tell each other.
pub const HOLDS_MAX: usize = 200;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const REPLAY_BATCH: usize = 4096;

/// Why it is not done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("expected namespace/name or namespace/name:port, found {0:?}")]
    Name(String),
    #[error("there is no service {0}")]
    Unknown(String),
    #[error("for how long? More than nothing and at most 24h: what is forced ends by itself")]
    Span,
    #[error("it is not said what to")]
    To,
    #[error("there may be {HOLDS_MAX} service ports that are held at once: let go of others first")]
    TooMany,
}

/// Puts it in force and on record. The ports that it holds for, and until when.
pub async fn force(
    request: &pb::ForceBreakerRequest,
    mesh: &Mesh,
    journal: &Journal,
) -> Result<pb::ForceBreakerResponse, ForceError> {
    let (name, port) = parse(&request.service)?;
    let to = match request.to() {
        pb::Force::Unspecified => return Err(Refusal::To.into()),
        pb::Force::Auto => None,
        pb::Force::Open => Some(Force::Open),
        pb::Force::Closed => Some(Force::Closed),
    };
    let longest = u64::try_from(FOR_MAX.as_millis()).unwrap_or(u64::MAX);
    if to.is_some() && !(1..=longest).contains(&request.for_ms) {
        return Err(Refusal::Span.into());
    }
    let forced = to.map(|to| Forced {
        to,
        until_ms: now_ms() + request.for_ms,
    });
    let keys = mesh.ports_of(&name, port);
    if keys.is_empty() {
        return Err(Refusal::Unknown(request.service.clone()).into());
    }
    let held = mesh.forced();
    let others = held.keys().filter(|key| !keys.contains(key));
    if forced.is_some() && others.count() + keys.len() > HOLDS_MAX {
        return Err(Refusal::TooMany.into());
    }
    // On record first: what is in force and would be forgotten by a restart is worse than the other way round.
    for key in &keys {
        let fact = fact(key, forced, "an operator let go of it");
        journal.record(fact).await?;
    }
    mesh.force(keys.iter().map(|key| (key.clone(), forced)));
    let notes = keys.iter().filter_map(|key| mesh.breaker_is_not_asked(key));
    Ok(pb::ForceBreakerResponse {
        services: keys.iter().map(ServiceKey::to_string).collect(),
        until_ms: forced.map_or(0, |forced| forced.until_ms),
        notes: notes.filter(|_| forced.is_some()).collect(),
    })
}

/// `why`: nothing is held there any more.
pub(crate) fn fact(key: &ServiceKey, forced: Option<Forced>, why: &str) -> Fact {
    let service = key.to_string();
    match forced {
        Some(Forced { to, until_ms }) => Fact::BreakerForced {
            service,
            to: to.as_str().to_owned(),
            until_ms,
        },
        None => Fact::BreakerReleased {
            service,
            reason: why.to_owned(),
        },
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Journal(#[from] StoreError),
}

fn parse(service: &str) -> Result<(ObjectName, Option<u16>), Refusal> {
    let refused = || Refusal::Name(service.to_owned());
    let (namespace, rest) = service.split_once('/').ok_or_else(refused)?;
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| refused())?)),
        None => (rest, None),
    };
    Ok((ObjectName::new(namespace, name), port))
}

/// Of `namespace/name:port`.
pub(crate) fn key_of(text: &str) -> Option<ServiceKey> {
    let (name, port) = parse(text).ok()?;
    Some(ServiceKey {
        namespace: name.namespace,
        name: name.name,
        port: port?,
    })
}

/// What is held, from before a restart.
pub fn replay(journal: &Journal) -> Result<BTreeMap<ServiceKey, Forced>, StoreError> {
    let mut held = BTreeMap::new();
    let mut from = 0;
    loop {
        let events = journal.read(from, REPLAY_BATCH)?;
        let Some(last) = events.last() else {
            let now = now_ms();
            held.retain(|_, forced: &mut Forced| forced.until_ms > now);
            return Ok(held);
        };
        from = last.seq + 1;
        for event in &events {
            match change_of(event) {
                Some((key, Some(forced))) => held.insert(key, forced),
                Some((key, None)) => held.remove(&key),
                None => None,
            };
        }
    }
}

/// `None`: a fact about something else.
fn change_of(event: &Event) -> Option<(ServiceKey, Option<Forced>)> {
    let text = |field: &str| event.details.get(field).and_then(Value::as_str);
    let key = key_of(text("service")?)?;
    match event.kind.as_str() {
        "BreakerForced" => {
            let to = match text("to")? {
                "open" => Force::Open,
                "closed" => Force::Closed,
                _ => return None,
            };
            let until_ms = event.details.get("untilMs")?.as_u64()?;
            Some((key, Some(Forced { to, until_ms })))
        }
        "BreakerReleased" => Some((key, None)),
        _ => None,
    }
}

/// Lets go of what is over.
pub async fn expire(mesh: Mesh, journal: Journal) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for key in mesh.expire_forced(now_ms()) {
            journal.note(Fact::BreakerReleased {
                service: key.to_string(),
                reason: "its time is over".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::RedbStore;
    use crate::mesh::Change;
    use crate::version::Versions;

    #[test]
    fn a_service_is_named_with_or_without_a_port() {
        let name = ObjectName::new("boutique", "cart");
        assert_eq!(parse("boutique/cart"), Ok((name.clone(), None)));
        assert_eq!(parse("boutique/cart:7070"), Ok((name, Some(7070))));
        for wrong in ["cart", "boutique/cart:http", "boutique/cart:", ""] {
            assert_eq!(parse(wrong), Err(Refusal::Name(wrong.into())), "{wrong:?}");
        }
    }

    /// All control planes tell each other of what is held, in one object that has a size.
    #[tokio::test]
    async fn one_port_more_than_may_be_held_is_refused_and_one_of_those_may_be_held_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = RedbStore::open(&folder.path().join("journal"), 1000).expect("a store");
        let journal = Journal::open(store).expect("a journal");
        let mesh = Mesh::new("weir.local", Versions::in_memory());
        let ports: Vec<String> = (1..=HOLDS_MAX + 1)
            .map(|port| format!("{{name: p{port}, port: {port}}}"))
            .collect();
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: boutique}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{}]}}\n",
            ports.join(", ")
        );
        let service = weir_config::parse("test", &service).expect("in order");
        mesh.change(
            service
                .into_iter()
                .map(|it| Change::Apply(Box::new(it.value))),
        );
        let to = async |service: &str, to: pb::Force| {
            let request = pb::ForceBreakerRequest {
                service: service.to_owned(),
                to: to.into(),
                for_ms: 60_000,
            };
            force(&request, &mesh, &journal)
                .await
                .map_err(|error| error.to_string())
        };
        let refused = Err(Refusal::TooMany.to_string());
        assert_eq!(to("boutique/cart", pb::Force::Open).await, refused);
        assert!(mesh.forced().is_empty(), "all of it or nothing");
        for port in 1..=HOLDS_MAX {
            let held = to(&format!("boutique/cart:{port}"), pb::Force::Open).await;
            held.expect("there is room");
        }
        let one_more = format!("boutique/cart:{}", HOLDS_MAX + 1);
        assert_eq!(to(&one_more, pb::Force::Open).await, refused);
        assert_eq!(mesh.forced().len(), HOLDS_MAX);
        to("boutique/cart:7", pb::Force::Closed)
            .await
            .expect("it is held already");
        to("boutique/cart:8", pb::Force::Auto)
            .await
            .expect("that makes room");
        to(&one_more, pb::Force::Open).await.expect("there is room");
    }
}
