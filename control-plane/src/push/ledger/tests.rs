use std::collections::BTreeSet;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "boutique".into(),
        name: name.into(),
        port: 80,
    }
}

fn service(name: &str, policy: &str, hosts: &[u8]) -> Arc<Published> {
    let endpoint = |host: &u8| pb::Endpoint {
        address: format!("10.0.0.{host}:80"),
        ..Default::default()
    };
    Arc::new(Published {
        alternates: Default::default(),
        backends: Default::default(),
        of_namespace: Default::default(),
        of_node: None,
        key: key(name),
        policy: policy.to_owned().into(),
        endpoints: hosts.iter().map(endpoint).collect(),
        names: BTreeSet::new(),
    })
}

fn news(services: &[Arc<Published>]) -> News {
    News {
        version: 1,
        destinations: Vec::new(),
        services: services.to_vec(),
        gone: Vec::new(),
        workload: None,
        trust_bundle: None,
    }
}

fn push(ledger: &mut Ledger, services: &[Arc<Published>]) -> Option<pb::ToProxy> {
    ledger.push(news(services), Instant::now())
}

fn put_in_force(ledger: &mut Ledger, services: &[Arc<Published>]) {
    let push = push(ledger, services).expect("something new");
    ledger.ack(push.nonce).expect("in flight");
}

#[test]
fn what_a_sidecar_has_is_not_sent_again() {
    let mut ledger = Ledger::default();
    put_in_force(&mut ledger, &[service("a", "1", &[1, 2])]);
    assert_eq!(push(&mut ledger, &[service("a", "1", &[1, 2])]), None);
    let delta = push(&mut ledger, &[service("a", "1", &[2, 3])]).expect("other endpoints");
    assert!(delta.services.is_empty());
    assert_eq!(delta.endpoints[0].removed, ["10.0.0.1:80"]);
}

#[test]
fn an_answer_to_something_else_is_no_answer() {
    let mut ledger = Ledger::default();
    let first = push(&mut ledger, &[service("a", "1", &[])]).expect("new");
    assert_eq!(ledger.ack(first.nonce + 1), None);
    assert_eq!(ledger.nack(0), None);
    assert!(!ledger.is_idle());
    assert!(ledger.ack(first.nonce).is_some());
    assert_eq!(ledger.ack(first.nonce), None, "once");
}

#[test]
fn a_delta_starts_from_what_was_acknowledged_and_not_from_what_was_sent() {
    let mut ledger = Ledger::default();
    put_in_force(&mut ledger, &[service("a", "1", &[1])]);
    let refused = push(&mut ledger, &[service("a", "1", &[1, 2])]).expect("new");
    ledger.nack(refused.nonce).expect("in flight");
    let next = push(&mut ledger, &[service("a", "1", &[3])]).expect("new");
    assert_eq!(
        next.endpoints[0].removed,
        ["10.0.0.1:80"],
        "2 was never there"
    );
}

#[test]
fn a_refused_policy_is_sent_again_only_when_it_is_another() {
    let mut ledger = Ledger::default();
    put_in_force(&mut ledger, &[service("a", "good", &[1])]);
    let refused = push(&mut ledger, &[service("a", "bad", &[1])]).expect("new");
    ledger.nack(refused.nonce);
    // It asks for another look at the endpoints, which brings nothing.
    let again = ledger.next(Dirty::default);
    assert!(again.services.contains(&key("a")));
    assert_eq!(push(&mut ledger, &[service("a", "bad", &[1])]), None);
    let endpoints =
        push(&mut ledger, &[service("a", "bad", &[2])]).expect("endpoints are not to blame");
    assert!(endpoints.services.is_empty());
    ledger.ack(endpoints.nonce);
    let fixed = push(&mut ledger, &[service("a", "better", &[2])]).expect("new");
    assert_eq!((fixed.services.len(), fixed.endpoints.len()), (1, 0));
}

/// Whatever was acknowledged next made `weir proxy status` forget it.
#[test]
fn a_refusal_is_remembered_until_another_policy_takes_its_place() {
    let mut ledger = Ledger::default();
    put_in_force(
        &mut ledger,
        &[service("a", "1", &[1]), service("b", "1", &[1])],
    );
    let refused = push(&mut ledger, &[service("a", "bad", &[1])]).expect("new");
    ledger.nack(refused.nonce).expect("in flight");
    put_in_force(&mut ledger, &[service("b", "2", &[1, 2])]);
    assert!(ledger.has_refused());
    put_in_force(&mut ledger, &[service("a", "bad", &[1, 2])]);
    assert!(ledger.has_refused(), "its endpoints are no other policy");
    put_in_force(&mut ledger, &[service("a", "3", &[1, 2])]);
    assert!(!ledger.has_refused());
    let refused = push(&mut ledger, &[service("a", "bad", &[1, 2])]).expect("new");
    ledger.nack(refused.nonce).expect("in flight");
    assert_eq!(push(&mut ledger, &[service("a", "3", &[1, 2])]), None);
    assert!(!ledger.has_refused(), "the old one holds again");
}

#[test]
fn an_address_waits_for_its_service() {
    let mut ledger = Ledger::default();
    let refused = push(&mut ledger, &[service("a", "bad", &[1])]).expect("new");
    ledger.nack(refused.nonce);
    let address: SocketAddr = "10.96.0.1:80".parse().expect("an address");
    let target = Target::Service(key("a").to_string());
    let mut asked = news(&[service("a", "bad", &[1])]);
    asked.destinations = vec![(address, target.clone())];
    assert_eq!(
        ledger.push(asked, Instant::now()),
        None,
        "a sidecar would have to refuse it"
    );
    while ledger.has_queued() {
        ledger.next(Dirty::default);
    }
    let next = ledger.next(|| Dirty {
        services: HashSet::from([key("a")]),
        ..Dirty::default()
    });
    assert!(
        next.addresses.contains(&address),
        "it is asked about again with the next push"
    );
    let mut fixed = news(&[service("a", "good", &[1])]);
    fixed.destinations = vec![(address, target)];
    let push = ledger.push(fixed, Instant::now()).expect("new");
    assert_eq!((push.services.len(), push.destinations.len()), (1, 1));
}

#[test]
fn what_is_gone_is_told_once_and_whole_when_it_is_back() {
    let mut ledger = Ledger::default();
    put_in_force(&mut ledger, &[service("a", "1", &[1])]);
    let gone = || News {
        gone: vec![key("a"), key("never-known")],
        ..news(&[])
    };
    let push = ledger.push(gone(), Instant::now()).expect("news");
    assert_eq!(push.services.len(), 1);
    assert!(push.services[0].policy_json.is_empty());
    ledger.ack(push.nonce);
    assert_eq!(ledger.push(gone(), Instant::now()), None);
    let back = super::tests::push(&mut ledger, &[service("a", "1", &[1])]).expect("news");
    assert!(back.endpoints[0].reset && back.services.len() == 1);
}

#[test]
fn many_services_go_out_in_portions_and_their_addresses_last() {
    let mut ledger = Ledger::default();
    let all: HashSet<ServiceKey> = (0..SERVICES_PER_PUSH_MAX * 2 + 1)
        .map(|n| key(&format!("s{n}")))
        .collect();
    let address: SocketAddr = "10.96.0.1:80".parse().expect("an address");
    let everything = Dirty {
        services: all.clone(),
        addresses: HashSet::from([address]),
        ..Dirty::default()
    };
    let mut seen = HashSet::new();
    let mut portions = vec![ledger.next(|| everything)];
    while ledger.has_queued() {
        portions.push(ledger.next(|| panic!("the queue comes first")));
    }
    for portion in &portions {
        assert!(portion.services.len() <= SERVICES_PER_PUSH_MAX);
        seen.extend(portion.services.iter().cloned());
    }
    assert_eq!(seen, all);
    assert!(
        portions
            .pop()
            .expect("portions")
            .addresses
            .contains(&address)
    );
    assert!(portions.iter().all(|portion| portion.addresses.is_empty()));
}

/// Sixty-four routes of a megabyte, in one namespace, ended the streams of all sidecars that call it, again and again.
#[test]
fn a_push_ends_where_it_has_grown_large_and_what_fits_into_none_is_refused_by_name() {
    let large = "x".repeat(PUSH_BYTES_MAX);
    let mut ledger = Ledger::default();
    let names = ["a", "b", "c"];
    let mut left: Vec<_> = names.map(|name| service(name, &large, &[1])).to_vec();
    for n in 1..=names.len() {
        let push = push(&mut ledger, &left).expect("one of them");
        assert_eq!(push.services.len(), 1, "push {n}");
        assert!(push.encoded_len() < 2 * PUSH_BYTES_MAX);
        ledger.ack(push.nonce).expect("in flight");
        let next = ledger.next(Dirty::default).services;
        left.retain(|service| next.contains(&service.key));
        assert_eq!(left.len(), names.len() - n);
    }

    let larger = "x".repeat(POLICY_BYTES_MAX + 1);
    let huge = service("a", &larger, &[1, 2]);
    let push = push(&mut ledger, std::slice::from_ref(&huge)).expect("its endpoints are fine");
    assert_eq!((push.services.len(), push.endpoints.len()), (0, 1));
    let told = ledger.take_too_large();
    assert!(told[0].starts_with("boutique/a:80: "), "{told:?}");
    assert!(ledger.has_refused());
    ledger.ack(push.nonce).expect("in flight");
    assert_eq!(self::push(&mut ledger, &[huge]), None);
    assert_eq!(ledger.take_too_large(), [""; 0], "it has been told");
}
