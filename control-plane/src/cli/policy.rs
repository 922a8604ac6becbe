//! `weir proxy policy`: what holds for a pod's sidecar, and who said so.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_config::pb;

use super::client::{connect, failure};
use super::table::Table;
use super::{Failure, Output, print};

pub(super) async fn run(
    control_plane: &str,
    pod: &str,
    service: Option<&str>,
    said: bool,
    output: Output,
) -> Result<(), Failure> {
    let parts = pod.split_once('/');
    let Some((namespace, name)) =
        parts.filter(|(of, name)| !of.is_empty() && !name.is_empty() && !name.contains('/'))
    else {
        let wrong = format!("expected namespace/name of a pod, found {pod:?}");
        return Err(Failure::Usage(wrong));
    };
    let request = pb::PolicyRequest {
        pod_namespace: namespace.to_owned(),
        pod_name: name.to_owned(),
    };
    let mut client = connect(control_plane).await?;
    let answer = client.policy(request).await.map_err(failure)?.into_inner();
    let wanted = |value: &&pb::PolicyValue| {
        let of_service = service.is_none_or(|service| is_meant(service, &value.service));
        of_service && (!said || value.source != "default")
    };
    let values: Vec<&pb::PolicyValue> = answer.values.iter().filter(wanted).collect();
    match output {
        Output::Json => {
            let values: Vec<Value> = values.into_iter().map(as_json).collect();
            let all = json!({ "version": answer.version, "pod": pod, "values": values });
            print(&format!("{all:#}\n"))
        }
        Output::Text if values.is_empty() => {
            eprintln!("{}", nothing(&answer.values, pod, service, said));
            Ok(())
        }
        Output::Text => {
            let mut table = Table::new(&["SERVICE", "FIELD", "VALUE", "FROM"]);
            for value in values {
                table.row([
                    value.service.clone(),
                    value.field.clone(),
                    shown(&value.field, &value.value_json),
                    value.source.clone(),
                ]);
            }
            print(&table.render())
        }
    }
}

/// `namespace/name`, or with the port.
fn is_meant(wanted: &str, service: &str) -> bool {
    let name = service.rsplit_once(':').map(|(name, _)| name);
    service == wanted || name == Some(wanted)
}

/// Why there is nothing to tell.
fn nothing(all: &[pb::PolicyValue], pod: &str, service: Option<&str>, said: bool) -> String {
    let Some(service) = service else {
        return format!("nothing that anybody said holds for {pod}: all are defaults");
    };
    let services = all.iter().map(|value| value.service.as_str());
    // All others have a port.
    let known: BTreeSet<&str> = services.filter(|it| it.contains(':')).collect();
    if said && known.iter().any(|known| is_meant(service, known)) {
        return format!(
            "nothing that anybody said holds for {pod} and {service}: all are defaults"
        );
    }
    let known = match known.is_empty() {
        true => "no Service, and its app has called none yet".to_owned(),
        false => format!("or has called {}", Vec::from_iter(known).join(", ")),
    };
    format!("nothing of {service}: {pod} serves {known}")
}

fn as_json(value: &pb::PolicyValue) -> Value {
    json!({
        "direction": value.direction,
        "service": value.service,
        "field": value.field,
        "value": serde_json::from_str::<Value>(&value.value_json).unwrap_or_default(),
        "from": value.source,
    })
}

/// As one would write it in YAML.
fn shown(field: &str, value: &str) -> String {
    match serde_json::from_str(value) {
        Ok(Value::Null) if field.ends_with("outbound.deadline") => "Unlimited".to_owned(),
        Ok(Value::Null) => "-".to_owned(),
        Ok(Value::String(text)) => text,
        _ => value.to_owned(),
    }
}
