//! Virtual addresses: who gets a call, and who does not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::echo::{PATIENCE, builder, deployment, eventually, get, get_over, up};

#[test]
fn calls_to_a_service_take_turns_between_its_pods_from_the_node_and_from_a_pod() {
    let lab = up(&(deployment("web", 2, "", "") + "---" + &deployment("caller", 1, "", "")));
    for from in [None, Some("caller/0")] {
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..10 {
            *answers
                .entry(get(&lab, from, "web:80", "/").unwrap())
                .or_default() += 1;
        }
        let expected = [("web-0".to_owned(), 5), ("web-1".to_owned(), 5)];
        assert_eq!(answers, expected.into(), "from {from:?}");
    }
}

#[test]
fn a_pod_that_calls_its_own_service_reaches_itself_too() {
    let lab = up(&deployment("web", 1, "", ""));
    assert_eq!(get(&lab, Some("web/0"), "web:80", "/").unwrap(), "web-0");
}

#[test]
fn a_pod_that_says_it_is_sick_gets_no_calls_and_comes_back_after_a_restart() {
    let lab = up(&deployment("web", 2, "", ""));
    get(&lab, None, "web-1:8080", "/sick").unwrap();
    eventually("the sick pod is out", || {
        (0..4).all(|_| get(&lab, None, "web:80", "/").unwrap() == "web-0")
    });
    lab.kill("web/1").unwrap();
    eventually("it is back", || {
        get(&lab, None, "web:80", "/").unwrap() == "web-1"
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let lab = up(&(deployment("web", 1, "", "") + "---" + &deployment("caller", 1, "", "")));
    lab.scale("web", 0).unwrap();
    for from in [None, Some("caller/0")] {
        let begun = Instant::now();
        let refusal = lab.dial(from, "web:80").unwrap_err().to_string();
        assert!(refusal.contains("refused"), "from {from:?}: {refusal}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn names_of_services_resolve_in_pods_and_unknown_names_fail_at_once() {
    let lab = up(&deployment("web", 1, "", ""));
    let known = "getent hosts web web.tests web.tests.svc web.tests.svc.cluster.local";
    let output = lab.exec(Some("web/0"), &["sh", "-c", known]).unwrap();
    assert_eq!(output.stdout.lines().count(), 4, "{output:?}");
    let begun = Instant::now();
    let output = lab
        .exec(Some("web/0"), &["getent", "hosts", "nobody.example"])
        .unwrap();
    assert_ne!(output.code, 0);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_published_port_reaches_the_service_from_outside() {
    let lab = builder()
        .yaml(deployment("web", 1, "", ""))
        .publish("web:80".parse().unwrap())
        .start()
        .unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    let address = lab.published("web").unwrap();
    assert!(address.ip().is_loopback());
    let stream = std::net::TcpStream::connect(address).unwrap();
    assert_eq!(get_over(stream, "/").unwrap(), "web-0");
}

#[test]
fn a_service_that_asks_for_both_families_has_an_address_of_each() {
    let yaml = deployment("web", 1, "", "").replace(
        "selector: {app: web}",
        "selector: {app: web}\n  ipFamilies: [IPv4, IPv6]",
    );
    let lab = up(&(yaml + "---" + &deployment("caller", 1, "", "")));
    let services = lab.status().unwrap().services;
    let web = services
        .iter()
        .find(|service| service.name == "web")
        .unwrap();
    let v6 = web.ports.iter().find(|(address, _)| address.is_ipv6());
    let (address, endpoints) = v6.expect("an IPv6 address; this kernel may have no IPv6");
    assert_eq!(endpoints.len(), 1);
    for from in [None, Some("caller/0")] {
        for to in [address, &endpoints[0]] {
            let answer = get(&lab, from, &to.to_string(), "/").unwrap();
            assert_eq!(answer, "web-0", "from {from:?} to {to}");
        }
    }
}
