//! The inbound half of an edited policy: buckets and what was learnt of the app stay, on old connections and on new.

use http::StatusCode;
use weir_config::units::Count;

use super::*;
use crate::backend::tests::{App as TestApp, answered, environment, request};
use crate::error::Error;

const PORT: u16 = 7000;

/// One request a second, after so many at once.
const BURST: usize = 50;

fn workload(queue: u32) -> snapshot::Workload {
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
