//! Of a large pool a part is called.

use super::choice::{by, described};
use super::*;

/// How many of a pool get any of a thousand calls, one after the other.
fn called(endpoints: &Arc<Endpoints>) -> Vec<SocketAddr> {
    let mut called: Vec<SocketAddr> = (0..1000)
        .map(|_| {
            let chosen = endpoints.choose(&Context::opaque(0));
            chosen.expect("an endpoint").member.address()
        })
        .collect();
    called.sort_unstable();
    called.dedup();
    called
}

/// Planted: gated endpoints count as part of the aperture, and those that are left take the load of all.
#[tokio::test(start_paused = true)]
async fn of_a_large_pool_twenty_endpoints_are_called_and_others_take_the_place_of_those_that_fail()
{
    assert_eq!(called(&pool(50)).len(), 50);
    let endpoints = pool(500);
    let first = called(&endpoints);
    assert_eq!(first.len(), 20);
    let list = endpoints.list();
    let index = |address: &SocketAddr| list.iter().position(|m| m.address() == *address);
    let failing: Vec<usize> = first[..5].iter().filter_map(index).collect();
    for _ in 0..10 {
        for &index in &failing {
            fail(&endpoints, index, &[]);
        }
    }
    let second = called(&endpoints);
    assert_eq!(second.len(), 20);
    let kept = second
        .iter()
        .filter(|address| first.contains(address))
        .count();
    assert_eq!(kept, 15, "and no others change");
}

#[tokio::test(start_paused = true)]
async fn every_sidecar_calls_a_part_of_its_own_and_keeps_it_when_endpoints_come_and_go() {
    let (one, other) = (pool(500), pool(500));
    let (part, others) = (called(&one), called(&other));
    let shared = part
        .iter()
        .filter(|address| others.contains(address))
        .count();
    assert!(shared < 10, "{shared} of 20 alike");
    let gone = part[0];
    one.update(false, vec![described(9000, "a", 100)], &[gone]);
    let after = called(&one);
    let kept = after
        .iter()
        .filter(|address| part.contains(address))
        .count();
    assert!(kept >= 18 && !after.contains(&gone), "{kept} kept");
}

#[tokio::test(start_paused = true)]
async fn calls_that_pile_up_open_more_of_a_large_pool_and_a_full_part_is_no_end() {
    let (endpoints, request) = (pool(500), by("ada"));
    let held: Vec<Chosen> = (0..400)
        .map(|_| endpoints.choose_for_request(&request).expect("an endpoint"))
        .collect();
    let busy = |list: &[Arc<Member>]| list.iter().filter(|m| m.in_flight() > 0).count();
    assert_eq!(busy(&endpoints.list()), 20);
    tokio::time::advance(Duration::from_millis(50)).await;
    endpoints.tick(Instant::now());
    let wide = called(&endpoints).len();
    assert!(
        (80..=100).contains(&wide),
        "four in flight for each: {wide}"
    );
    drop(held);

    let endpoints = pool(500);
    let held: Vec<Chosen> = (0..20 * 256 + 1)
        .map(|_| {
            endpoints
                .choose_for_request(&request)
                .expect("there are others")
        })
        .collect();
    let list = endpoints.list();
    let most = list.iter().map(|member| member.in_flight()).max();
    assert_eq!(most, Some(256), "the most that one may have");
    assert!(busy(&list) > 20);
    drop(held);
}
