//! What gates learn from calls of every kind, and when they must not.

use weir_config::snapshot::Mode;

use super::*;
use crate::error::ConnectError;
use crate::policy::gate::ProbeResult;
use crate::policy::window::Counts;

const HARD: Outcome = Outcome::Failure(Fault::Hard);

fn state(endpoints: &Endpoints, index: usize) -> Phase {
    endpoints.list()[index].learnt().gate.state()
}

/// The first of three cannot be connected to, and then it can.
async fn probing() -> Arc<Endpoints> {
    let endpoints = pool(3);
    let mut refused = call(&endpoints, 0);
    refused.connect_failed = true;
    refused.done(HARD, Instant::now());
    assert_eq!(state(&endpoints, 0), Phase::Open);
    tokio::time::advance(Duration::from_millis(200)).await;
    let (member, now) = (endpoints.list()[0].clone(), Instant::now());
    let mut learnt = member.learnt();
    assert!(learnt.gate.wants_probe(now).is_some());
    learnt.gate.probe_result(ProbeResult::Passed, now, 0);
    endpoints.publish(&member, &mut learnt);
    drop(learnt);
    endpoints
}

fn request() -> Box<Request> {
    let mut context = Context::opaque(0);
    context.replayable = true;
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context,
    })
}

/// Each of its probes was one that nobody ever heard of again, or had been cancelled.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_only_ever_gets_opaque_connections_is_taken_back() {
    let endpoints = probing().await;
    let first = endpoints.list()[0].clone();
    let mut open = Vec::new();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let chosen = endpoints.choose(&Context::opaque(0)).expect("a place");
        assert_eq!(chosen.member.address(), first.address(), "it is a probe");
        let mut guard = Guard::new(chosen);
        guard.duty().connected();
        open.push(guard);
    }
    assert_eq!(state(&endpoints, 0), Phase::Ramping);
    assert!(first.is_eligible());
    drop(open);
    assert_eq!((first.in_flight(), first.connections()), (0, 0));
    assert_eq!(state(&endpoints, 0), Phase::Ramping);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_only_ever_gets_streams_is_taken_back() {
    let endpoints = probing().await;
    let first = endpoints.list()[0].clone();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let chosen = endpoints.choose_for_request(&request()).expect("a place");
        assert_eq!(chosen.member.address(), first.address(), "it is a probe");
        let head = Response::new(Body::full("and so on".into()));
        streams.push(Guard::new(chosen).settle(Ok(head)).expect("an answer"));
        tokio::time::advance(Duration::from_secs(10)).await;
        endpoints.tick(Instant::now());
    }
    assert_eq!(state(&endpoints, 0), Phase::Ramping);
    assert!(first.is_eligible());
    drop(streams);
    assert_eq!(first.in_flight(), 0);
}

/// A try that was to go elsewhere went back to where the one before it had failed.
#[tokio::test(start_paused = true)]
async fn a_call_is_no_probe_of_an_endpoint_at_which_it_has_failed() {
    let endpoints = probing().await;
    let first = endpoints.list()[0].address();
    let mut again = request();
    again.context.tried.push(first);
    for _ in 0..10 {
        let chosen = endpoints.choose_for_request(&again).expect("a place");
        assert_ne!(chosen.member.address(), first);
    }
    let chosen = endpoints.choose_for_request(&request()).expect("a place");
    assert_eq!(chosen.member.address(), first, "it is still due");
}

/// A request that came as a probe to an app that hangs waited for half of its deadline.
#[tokio::test(start_paused = true)]
async fn who_probes_an_endpoint_that_hangs_is_told_when_it_is_out_again() {
    let endpoints = probing().await;
    let probe = endpoints.choose_for_request(&request()).expect("a place");
    let first = probe.member.clone();
    let told = first.until_ejected(probe.was_eligible());
    let goes_on = async {
        for _ in 0..100 {
            for _ in 0..20 {
                let other = Guard::new(call(&endpoints, 1));
                tokio::time::advance(Duration::from_millis(1)).await;
                drop(other.settle(Ok(Response::new(Body::empty()))));
            }
            endpoints.tick(Instant::now());
            tokio::task::yield_now().await;
        }
    };
    let begun = Instant::now();
    tokio::select! {
        () = told => {}
        () = goes_on => unreachable!("it never ends"),
    }
    assert_eq!(state(&endpoints, 0), Phase::Open);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

/// A stream that had nothing to say yet was a black hole at an endpoint that gets six calls a second.
#[tokio::test]
async fn who_waits_alone_costs_an_endpoint_nothing_that_answers_when_it_is_asked() {
    for is_awake in [true, false] {
        let app = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let app = app.expect("a port");
        let address = app.local_addr().expect("an address");
        let peer = SocketAddr::from(([127, 0, 0, 2], address.port()));
        let endpoints = pool_at(&[address, peer]);
        let answers = async {
            let mut questions = Vec::new();
            loop {
                let (stream, _) = app.accept().await.expect("a connection");
                // Who is asleep keeps it open, as the kernel does.
                questions.extend(Some(stream).filter(|_| !is_awake));
            }
        };
        let goes_on = async {
            let stream = Guard::new(call(&endpoints, 0));
            for _ in 0..20 {
                let other = Guard::new(call(&endpoints, 1));
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(other.settle(Ok(Response::new(Body::empty()))));
                endpoints.tick(Instant::now());
            }
            drop(stream);
        };
        tokio::select! {
            () = answers => {}
            () = goes_on => {}
        }
        let expected = if is_awake { Phase::Closed } else { Phase::Open };
        assert_eq!(state(&endpoints, 0), expected);
    }
}

/// The only caller waited for the one that hung for as long as he would: nobody else had anything to answer.
#[tokio::test]
async fn an_endpoint_that_hangs_is_compared_with_one_that_nobody_calls() {
    for others_are_awake in [true, false] {
        let bind = async |address: &str| tokio::net::TcpListener::bind(address).await;
        let hangs = bind("127.0.0.1:0").await.expect("a port");
        let address = hangs.local_addr().expect("an address");
        let idle = bind(&format!("127.0.0.2:{}", address.port())).await;
        let idle = idle.expect("the same port");
        let other = idle.local_addr().expect("an address");
        let endpoints = pool_at(&[address, other]);
        for index in [0, 1] {
            let call = Guard::new(call(&endpoints, index));
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(call.settle(Ok(Response::new(Body::empty()))));
        }
        let answers = async {
            let mut questions = Vec::new();
            loop {
                let (stream, _) = idle.accept().await.expect("a connection");
                questions.extend(Some(stream).filter(|_| !others_are_awake));
            }
        };
        let goes_on = async {
            let call = Guard::new(call(&endpoints, 0));
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                endpoints.tick(Instant::now());
            }
            drop(call);
        };
        tokio::select! {
            () = answers => {}
            () = goes_on => {}
        }
        let expected = match others_are_awake {
            true => Phase::Open,
            false => Phase::Closed,
        };
        assert_eq!(state(&endpoints, 0), expected);
        drop(hangs);
    }
}

#[tokio::test(start_paused = true)]
async fn that_this_sidecar_has_no_certificate_is_no_endpoints_failure() {
    let endpoints = pool(3);
    for _ in 0..10 {
        let error = Error::Connect(ConnectError::NoCertificate);
        let refused = Guard::new(call(&endpoints, 0)).settle(Err(error));
        assert!(refused.is_err());
    }
    let counts = endpoints.list()[0].learnt().gate.counts(Instant::now());
    assert_eq!(counts, Counts::default());
    fail(&endpoints, 0, &[]);
    assert_eq!(state(&endpoints, 0), Phase::Closed, "it has failed once");
}

#[tokio::test(start_paused = true)]
async fn the_last_that_stays_is_not_ejected_while_others_are_going_away() {
    let endpoints = pool(3);
    let going: Vec<Described> = endpoints.list()[1..]
        .iter()
        .map(|member| Described {
            draining: true,
            ..described_at(member.address())
        })
        .collect();
    endpoints.update(false, going, &[]);
    for _ in 0..10 {
        fail(&endpoints, 0, &[]);
    }
    assert_eq!(state(&endpoints, 0), Phase::Closed);
    for _ in 0..10 {
        fail(&endpoints, 1, &[]);
    }
    assert_eq!(state(&endpoints, 1), Phase::Closed, "nor is it any better");
}

#[tokio::test(start_paused = true)]
async fn gates_that_only_observe_from_now_on_let_go_at_once() {
    let endpoints = pool(3);
    for _ in 0..5 {
        fail(&endpoints, 0, &[]);
    }
    assert_eq!(endpoints.tally.out(), 1);
    let mut outbound = Outbound::default();
    outbound.gate.mode = Mode::Observe;
    endpoints.reconfigure(&outbound);
    assert_eq!(endpoints.tally.out(), 0);
    for _ in 0..20 {
        fail(&endpoints, 0, &[]);
    }
    assert_eq!(state(&endpoints, 0), Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_observes_refuses_nobody_a_place_at_an_endpoint() {
    let mut outbound = Outbound::default();
    outbound.limits.per_endpoint = Count::of(1);
    let endpoints = pool(2);
    endpoints.set_mode(Mode::Observe);
    endpoints.reconfigure(&outbound);
    let place = || endpoints.choose_for_request(&request());
    let calls: Vec<_> = (0..10).map(|_| place().map(Guard::new)).collect();
    assert!(calls.iter().all(Result::is_ok));
    let metrics = String::from_utf8(crate::telemetry::render()).expect("text");
    let counted = metrics
        .lines()
        .find(|line| line.contains("per-endpoint-limit") && line.contains("boutique/catalog:3550"))
        .expect("it is counted");
    let counted: u32 = counted
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!((1..=8).contains(&counted), "two had a place: {counted}");
    endpoints.set_mode(Mode::Enforce);
    assert!(place().is_err());
}

/// Addresses are given out again within seconds: it got none of the calls that the dead pod had no longer been worth.
#[tokio::test(start_paused = true)]
async fn a_new_pod_at_the_address_of_an_old_one_begins_anew() {
    let (facts, mut told) = facts::channel();
    let addresses = [1000, 1001, 1002].map(|port| ([127, 0, 0, 1], port).into());
    let endpoints = pool_told_to(facts, &addresses);
    for _ in 0..5 {
        fail(&endpoints, 0, &[]);
    }
    let before = endpoints.list()[0].clone();
    assert_eq!(before.learnt().gate.state(), Phase::Open);
    let same = described_at(before.address());
    endpoints.update(false, vec![same.clone()], &[]);
    assert!(Arc::ptr_eq(&before, &endpoints.list()[0]), "it is the same");

    let pod = "boutique/catalog-2".to_owned();
    let other = Described { pod, ..same };
    endpoints.update(false, vec![other], &[]);
    let list = endpoints.list();
    let after = list.iter().find(|it| it.address() == before.address());
    let after = after.expect("it is in the pool");
    assert_eq!(after.pod, "boutique/catalog-2");
    assert_eq!(after.learnt().gate.state(), Phase::Closed);
    let weight = after.learnt().ramp.weight(Instant::now());
    assert!(weight < 0.5, "{weight}: it takes up its work slowly");
    let mut states = Vec::new();
    while let Ok(fact) = told.try_recv() {
        if let Some(weir_config::pb::fact::Fact::EndpointChanged(changed)) = fact.fact {
            states.push(changed.to());
        }
    }
    use weir_config::pb::GateState::{Closed, Open};
    assert_eq!(
        states,
        [Open, Closed],
        "the old one does not look open for ever"
    );
}
