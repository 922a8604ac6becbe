//! The inbound half of an edited policy: buckets and what was learnt of the app stay, on old connections and on new.

use http::StatusCode;
use weir_config::pb;
use weir_config::units::Count;

use super::*;
use crate::backend::tests::{App as TestApp, answered, environment, policy, request};
use crate::endpoints::Described;
use crate::error::Error;

pub(crate) const PORT: u16 = 7000;

/// One request a second, after so many at once.
const BURST: usize = 50;

pub(crate) fn workload(queue: u32) -> snapshot::Workload {
    let limits = snapshot::InboundLimits {
        queue: Count::of(queue),
        ..snapshot::InboundLimits::default()
    };
    let inbound = snapshot::Inbound {
        port: PORT,
        service: None,
        protocol: snapshot::Protocol::Http,
        mode: snapshot::Mode::Enforce,
        limits,
        priorities: Vec::new(),
        rate_limits: vec![snapshot::RateLimit {
            requests_per_second: Count::of(1),
            burst: Count::of(BURST as u32),
            per: snapshot::RateLimitKey::Total,
        }],
        authorization: None,
    };
    snapshot::Workload {
        identity: "spiffe://cluster.local/ns/boutique/sa/cart".into(),
        zone: None,
        mtls: snapshot::MtlsMode::Permissive,
        access_log: snapshot::AccessLog::Disabled,
        ports: vec![inbound.clone()],
        default_port: inbound,
    }
}

async fn call(mesh: &Mesh, port: &InboundPort, app: &TestApp) -> Result<StatusCode, Error> {
    let stack = port.stack(app.address, &mesh.environment);
    answered(stack, request(false)).await
}

#[tokio::test]
async fn a_new_policy_keeps_the_buckets_and_who_is_in_the_app() {
    let (mesh, _) = Mesh::new(environment());
    let mesh = Arc::new(mesh);
    let app = TestApp::start(200).await;
    mesh.set_workload(workload(10));
    let old = mesh.inbound_port(PORT).expect("it has a policy");
    let emptied = Instant::now();
    for _ in 1..BURST {
        let status = call(&mesh, &old, &app).await;
        assert_eq!(status.expect("it is within its burst"), 200);
    }
    app.answers.forget_permits(1000);
    let inside = {
        let (mesh, old, app) = (mesh.clone(), old.clone(), app.clone());
        tokio::spawn(async move { call(&mesh, &old, &app).await })
    };
    while old.admission.load().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    mesh.set_workload(workload(20));
    let new = mesh.inbound_port(PORT).expect("it has a policy");
    assert!(!Arc::ptr_eq(&old, &new), "it was made anew");
    assert_eq!(new.admission.load().in_flight, 1, "who is in is in");
    app.answers.add_permits(1000);
    let mut passed = 0;
    for port in [&new, &old].into_iter().cycle().take(2 * BURST) {
        match call(&mesh, port, &app).await {
            Ok(_) => passed += 1,
            Err(error) => assert!(matches!(error, Error::RateLimited { .. }), "{error}"),
        }
    }
    let earned = emptied.elapsed().as_secs() + 1;
    assert!(passed <= earned, "{passed} of a bucket that was empty");
    assert_eq!(inside.await.expect("no panic").expect("an answer"), 200);
    assert_eq!(new.admission.load().in_flight, 0);
}

/// On connections that were there before, too: the layer that they hold went on refusing.
#[tokio::test]
async fn a_new_policy_that_only_observes_refuses_nobody_any_more() {
    let with = |mode, in_flight| {
        let mut workload = workload(0);
        workload.ports[0].mode = mode;
        workload.ports[0].limits.in_flight = Count::of(in_flight);
        workload
    };
    let (mesh, _) = Mesh::new(environment());
    let mesh = Arc::new(mesh);
    let app = TestApp::start(200).await;
    mesh.set_workload(with(snapshot::Mode::Enforce, 1));
    let old = mesh.inbound_port(PORT).expect("it has a policy");
    app.answers.forget_permits(1000);
    let begin = || {
        let (mesh, old, app) = (mesh.clone(), old.clone(), app.clone());
        tokio::spawn(async move { call(&mesh, &old, &app).await })
    };
    let first = begin();
    while old.admission.load().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = call(&mesh, &old, &app).await;
    assert!(matches!(refused, Err(Error::Shed { .. })), "{refused:?}");
    mesh.set_workload(with(snapshot::Mode::Observe, 1));
    let new = mesh.inbound_port(PORT).expect("it has a policy");
    assert!(old.doomed.observes() && new.doomed.observes());
    let second = begin();
    while old.admission.load().in_flight == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    app.answers.add_permits(1000);
    for call in [first, second] {
        assert_eq!(call.await.expect("no panic").expect("an answer"), 200);
    }
}

/// On connections that were there before: what they hold of the port is what the new policy says.
#[tokio::test]
async fn a_new_policy_that_takes_a_right_away_holds_for_connections_that_are_open() {
    let (mesh, _) = Mesh::new(environment());
    let app = TestApp::start(200).await;
    app.answers.add_permits(1000);
    mesh.set_workload(workload(10));
    let old = mesh.inbound_port(PORT).expect("it has a policy");
    let status = call(&mesh, &old, &app).await;
    assert_eq!(status.expect("nobody says who may"), 200);

    let nobody = snapshot::AccessRules {
        deny: Vec::new(),
        allow: Some(Vec::new()),
    };
    let mut denies = workload(10);
    denies.ports[0].authorization = Some(snapshot::Authorization {
        enforced: nobody,
        audited: None,
    });
    mesh.set_workload(denies);
    let new = mesh.inbound_port(PORT).expect("it has a policy");
    for port in [&old, &new] {
        let denied = call(&mesh, port, &app).await;
        assert!(matches!(denied, Err(Error::Denied { .. })));
        assert!(port.authorization().admit_bytes(None).is_err());
    }
    mesh.set_workload(workload(10));
    assert_eq!(call(&mesh, &old, &app).await.expect("given back"), 200);
}

/// Each port that somebody tried had an admission for good, some 20 KiB, and was looked at twenty times a second.
#[tokio::test]
async fn a_scan_of_all_ports_costs_a_few_of_them() {
    let (mesh, _) = Mesh::new(environment());
    mesh.set_workload(workload(10));
    for port in (1..=u16::MAX).rev() {
        assert!(mesh.inbound_port(port).is_some());
    }
    assert_eq!(mesh.inbound_ports().len(), 1 + UNNAMED_MAX + 1);
    let port = |number| mesh.inbound_port(number).expect("it has a policy");
    assert!(Arc::ptr_eq(&port(1), &port(2)));
    assert!(!Arc::ptr_eq(&port(PORT), &port(2)), "a service names it");
    assert!(!Arc::ptr_eq(&port(u16::MAX), &port(2)), "it came early");
    for number in 0..200 {
        let app = ([10, 0, 0, number], 1).into();
        port(2).stack(app, &mesh.environment);
    }
    let kept = port(2).stacks.lock().expect("free").len();
    assert_eq!(kept, STACKS_MAX);
}

/// An app that calls pods by their addresses, which come and go.
#[tokio::test(start_paused = true)]
async fn a_pod_that_has_long_not_been_called_is_forgotten_with_all_that_was_learnt_of_it() {
    let (mesh, _) = Mesh::new(environment());
    for number in 1..=100 {
        let address = format!("10.0.0.{number}:80");
        let endpoint = pb::Endpoint {
            address: address.clone(),
            ..pb::Endpoint::default()
        };
        let push = pb::ToProxy {
            destinations: vec![pb::Destination {
                address,
                target: Some(pb::destination::Target::Endpoint(endpoint)),
            }],
            ..pb::ToProxy::default()
        };
        crate::push::apply(&mesh, push).expect("it can be read");
    }
    assert_eq!(mesh.backends().len(), 100);
    let minute = Duration::from_secs(60);
    tokio::time::advance(2 * minute).await;
    assert_eq!(mesh.forget_idle(minute).len(), 100);
    assert_eq!((mesh.known().len(), mesh.backends().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_does_not_look_open_for_ever() {
    let (facts, mut told) = crate::facts::channel();
    let (mesh, _) = Mesh::new(Environment {
        facts,
        ..environment()
    });
    let policy = policy(snapshot::Outbound {
        breaker: Some(snapshot::Breaker {
            force: Some(snapshot::Force::Open),
            ..snapshot::Breaker::default()
        }),
        ..snapshot::Outbound::default()
    });
    let service = policy.key.to_string();
    let push = |policy_json: Vec<u8>| {
        let said = pb::ServicePolicy {
            service: service.clone(),
            policy_json: policy_json.into(),
        };
        let push = pb::ToProxy {
            services: vec![said],
            ..pb::ToProxy::default()
        };
        crate::push::apply(&mesh, push).expect("it can be read");
    };
    push(serde_json::to_vec(&policy).expect("plain data"));
    let backend = mesh.backends()[&service].clone();
    let described = |number| Described {
        address: ([127, 0, 8, number], 1).into(),
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    let all = (1..=3).map(described).collect();
    backend.endpoints.update(true, all, &[]);
    for _ in 0..5 {
        crate::endpoints::tests::fail(&backend.endpoints, 0, &[]);
    }
    push(Vec::new());
    let said = std::iter::from_fn(|| told.try_recv().ok()?.fact);
    let states = said.map(|fact| match fact {
        pb::fact::Fact::BreakerChanged(said) => said.to().as_str_name(),
        pb::fact::Fact::EndpointChanged(said) => said.to().as_str_name(),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        states.collect::<Vec<_>>(),
        [
            "BREAKER_STATE_OPEN",
            "GATE_STATE_OPEN",
            "BREAKER_STATE_CLOSED",
            "GATE_STATE_CLOSED"
        ]
    );
}
