//! A pod that has its sidecar, and to which another admission webhook, or its author, has added since. For webhooks of
//! `reinvocationPolicy: IfNeeded` the API server asks again after such a change: the probes of new containers go by the
//! sidecar, too, new init containers do not run ahead of it, and nobody becomes the sidecar's user.
//!
//! Of the sidecar itself nothing changes but what it is told of the others: another webhook may have set its image, or a
//! quota its limits. And the pod's grace, where another has changed that: the sidecar ends within it.

use serde_json::{Map, Value};

use super::knobs::Knobs;
use super::{
    HASH_ANNOTATION, INIT_CONTAINER, PROXY_CONTAINER, VALIDATE_CONTAINER, name, patch, probes,
};

/// `pod` must have a sidecar of these `knobs`. One to which nothing was added comes out as it was.
pub(super) fn complete(pod: &Value, knobs: &Knobs) -> Value {
    let mut pod = pod.clone();
    let hash = Value::from(knobs.hash());
    let told = pod.pointer_mut("/metadata/annotations");
    let told = told.and_then(|annotations| annotations.get_mut(HASH_ANNOTATION));
    let told = told.map(|told| std::mem::replace(told, hash.clone()));
    // Of all that the hash is of, nothing else can be another here.
    let has_other_grace = told.is_some_and(|told| told != hash);
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return pod;
    };
    let first = take(spec, &[INIT_CONTAINER, VALIDATE_CONTAINER]);
    let Some(mut proxy) = take(spec, &[PROXY_CONTAINER]) else {
        return pod;
    };
    let originals = probes::originals(&proxy);
    if has_other_grace {
        tell(&mut proxy, patch::GRACE, knobs.grace_seconds.to_string());
        tell(&mut proxy, patch::DRAIN, knobs.drain_seconds.to_string());
        // How long the app is not told to end is a part of it, and said anew below.
        probes::do_not_delay_stop(spec, &originals);
    }
    let mut probers = probes::still_asked(spec, &originals);
    probers.extend(patch::probers(spec, knobs));
    if probers != originals {
        tell(
            &mut proxy,
            probes::PROBERS,
            patch::without_references(&probers),
        );
    }
    tell(&mut proxy, patch::PORTS, patch::app_ports(spec));
    patch::place(spec, knobs, first, proxy);
    pod
}

fn take(spec: &mut Map<String, Value>, names: &[&str]) -> Option<Value> {
    ["initContainers", "containers"]
        .into_iter()
        .find_map(|list| {
            let list = spec.get_mut(list)?.as_array_mut()?;
            let place = list.iter().position(|item| names.contains(&name(item)))?;
            Some(list.remove(place))
        })
}

fn tell(proxy: &mut Value, variable: &str, value: String) {
    let env = proxy.get_mut("env").and_then(Value::as_array_mut);
    let mut env = env.into_iter().flatten();
    if let Some(told) = env.find(|told| name(told) == variable) {
        told["value"] = value.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::injector::{InjectorSettings, NamespaceContext, Outcome, Refusal, inject};

    use super::*;

    fn namespace() -> NamespaceContext {
        NamespaceContext::enabled("shop")
    }

    fn pod() -> Value {
        let probe = json!({ "httpGet": { "path": "/ready", "port": 80 } });
        let app =
            json!({ "name": "app", "ports": [{ "containerPort": 80 }], "readinessProbe": probe });
        json!({ "metadata": {}, "spec": { "initContainers": [{ "name": "wait" }], "containers": [app] } })
    }

    fn injected(pod: &Value) -> Value {
        match inject(pod, &namespace(), &InjectorSettings::default()) {
            Ok(Outcome::Injected(pod)) => pod,
            other => panic!("{other:?}"),
        }
    }

    fn later() -> Value {
        let probe = json!({ "tcpSocket": { "port": "agent" }, "periodSeconds": 3 });
        json!({
            "name": "agent", "ports": [{ "name": "agent", "containerPort": 9000 }],
            "livenessProbe": probe,
        })
    }

    fn add(pod: &mut Value, list: &str, container: Value) {
        let list = pod["spec"][list].as_array_mut().expect("a list");
        list.insert(0, container);
    }

    /// What a sidecar is told is read, for in which order it is told does not matter.
    fn read(mut pod: Value) -> Value {
        for told in pod["spec"]["initContainers"][1]["env"]
            .as_array_mut()
            .expect("it is told")
        {
            if told["name"] == probes::PROBERS {
                let text = told["value"].as_str().expect("text");
                told["value"] = serde_json::from_str(text).expect("JSON");
            }
        }
        pod
    }

    /// The API server asked again, as it had been told to, and was told that all was well: the kubelet's plain text came to an
    /// agent of another webhook, and was refused.
    #[test]
    fn who_comes_after_the_sidecar_is_in_the_mesh_as_if_it_had_been_there_before() {
        let mut all = pod();
        add(&mut all, "containers", later());
        add(&mut all, "initContainers", json!({ "name": "early" }));
        let mut added = injected(&pod());
        add(&mut added, "containers", later());
        add(&mut added, "initContainers", json!({ "name": "early" }));
        let completed = injected(&added);
        assert_eq!(read(completed.clone()), read(injected(&all)));
        let again = inject(&completed, &namespace(), &InjectorSettings::default());
        assert!(matches!(again, Ok(Outcome::Skipped(_))), "{again:?}");
    }

    #[test]
    fn who_comes_after_the_sidecar_may_not_pass_by_it_either() {
        let mut added = injected(&pod());
        let user = json!({ "name": "agent", "securityContext": { "runAsUser": 14102 } });
        add(&mut added, "containers", user);
        let refused = inject(&added, &namespace(), &InjectorSettings::default());
        assert!(
            matches!(refused, Err(Refusal::ProxyUser { .. })),
            "{refused:?}"
        );
    }

    /// Whoever had changed the grace kept the pod from being completed: the hash that says who made it is of the grace, too.
    #[test]
    fn who_comes_with_another_grace_is_in_the_mesh_as_if_both_had_been_there_before() {
        for (then, now) in [
            (None, 5),
            (Some(5), 60),
            (Some(2), 30),
            (Some(30), 2),
            (Some(60), 61),
        ] {
            let with_grace = |mut pod: Value, seconds: Option<u64>| {
                if let Some(seconds) = seconds {
                    pod["spec"]["terminationGracePeriodSeconds"] = seconds.into();
                }
                pod
            };
            let mut all = with_grace(pod(), Some(now));
            add(&mut all, "containers", later());
            let mut added = with_grace(injected(&with_grace(pod(), then)), Some(now));
            add(&mut added, "containers", later());
            let completed = injected(&added);
            assert_eq!(
                read(completed.clone()),
                read(injected(&all)),
                "{then:?} {now}"
            );
            let again = inject(&completed, &namespace(), &InjectorSettings::default());
            assert!(matches!(again, Ok(Outcome::Skipped(_))), "{again:?}");

            let user = json!({ "name": "agent", "securityContext": { "runAsUser": 14102 } });
            added["spec"]["containers"][0] = user;
            let refused = inject(&added, &namespace(), &InjectorSettings::default());
            assert!(
                matches!(refused, Err(Refusal::ProxyUser { .. })),
                "{refused:?}"
            );
        }
    }

    /// It was made with other settings, and wants to start anew: what it has fits together.
    #[test]
    fn a_pod_of_other_settings_is_left_alone_whatever_its_grace_is() {
        let mut other = injected(&pod());
        other["spec"]["terminationGracePeriodSeconds"] = 5.into();
        other["metadata"]["annotations"]["config.weir.dev/log-level"] = "debug".into();
        add(&mut other, "containers", later());
        let left = inject(&other, &namespace(), &InjectorSettings::default());
        assert!(matches!(left, Ok(Outcome::Skipped(_))), "{left:?}");
    }

    #[test]
    fn what_others_have_done_to_the_sidecar_stays() {
        let mut changed = injected(&pod());
        let proxy = &mut changed["spec"]["initContainers"][1];
        proxy["image"] = "mirror.example/weir-proxy:1".into();
        proxy["livenessProbe"]["timeoutSeconds"] = 1.into();
        let mounts = proxy["volumeMounts"].as_array_mut().expect("a list");
        mounts.push(json!({ "name": "kube-api-access", "mountPath": "/var/run" }));
        let proxy = proxy.clone();
        add(&mut changed, "containers", json!({ "name": "agent" }));
        let mut completed = injected(&changed);
        let agent = &completed["spec"]["containers"][0];
        let hook = &agent["lifecycle"]["preStop"]["httpGet"]["path"];
        assert_eq!(hook, "/app-probe/agent/pre-stop");
        let own = &mut completed["spec"]["initContainers"][1];
        let told = own["env"].clone();
        own["env"] = proxy["env"].clone();
        assert_eq!(*own, proxy);
        assert_ne!(told, proxy["env"]);
    }

    /// It is asked as its author wants, and what was there before is forgotten.
    #[test]
    fn a_probe_that_another_put_in_place_of_the_sidecars_is_taken_as_it_is() {
        let mut changed = injected(&pod());
        let app = &mut changed["spec"]["containers"][0];
        app["readinessProbe"] = json!({ "exec": { "command": ["ready"] } });
        app["lifecycle"]["preStop"] = json!({ "exec": { "command": ["leave"] } });
        let completed = injected(&changed);
        let app = &completed["spec"]["containers"][0];
        assert_eq!(
            app["lifecycle"]["preStop"]["exec"]["command"],
            json!(["leave"])
        );
        assert_eq!(
            probes::originals(&completed["spec"]["initContainers"][1]),
            Map::new()
        );
        let bare = crate::injector::uninject(&completed).expect("it has a sidecar");
        assert_eq!(bare["spec"]["containers"][0], *app);
    }
}
