//! A FaultPolicy of the shop, applied while the shop is open: `cargo demo -- --policies FOLDER` does the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weir_lab::metrics::Metrics;
use weir_lab::{Lab, build};

use crate::world::{ADMIN_PORT, PATIENCE, alone, part_of_shop_watching};

const CURRENCY: (&str, &str) = ("service", "boutique/currency:7000");

/// What the page says that its list of products had to do without.
fn without(page: SocketAddr) -> String {
    let request =
        format!("GET /api/products HTTP/1.1\r\nhost: {page}\r\nconnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(page).expect("the page is published");
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).expect("it is a socket");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let degraded = answer.split_once("\"degraded\":[").expect("it says so").1;
    degraded.split_once(']').expect("a list").0.to_owned()
}

fn visit_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
    }
}

/// Of the storefront's sidecar.
fn counted(lab: &Lab, name: &str, more: (&str, &str)) -> f64 {
    let storefront = lab.pod("storefront").expect("there is one").address;
    let admin = SocketAddr::new(storefront, ADMIN_PORT).to_string();
    let metrics = Metrics::scrape(lab.client(), &admin).expect("a sidecar shows its metrics");
    metrics.sum(name, &[CURRENCY, more])
}

#[test]
fn the_shops_slow_currency_policy_opens_the_breaker_and_pages_do_without_until_it_is_taken_away() {
    let _alone = alone();
    // Empty at first, as the demo's is.
    let folder = tempfile::tempdir().expect("a directory can be made");
    let services = ["storefront", "catalog", "currency"];
    let (lab, page) = part_of_shop_watching(&services, folder.path());
    visit_until("the list has its prices", || without(page).is_empty());

    let file = build::root().join("demo-boutique/faults/slow-currency.yaml");
    let text = std::fs::read(&file).expect("the shop has it");
    let applied = folder.path().join("slow-currency.yaml");
    std::fs::write(&applied, text).expect("it can be written");
    visit_until("the page shows its fallback", || {
        without(page).contains("currency")
    });
    let policy = ("policy", "boutique/slow-currency");
    assert!(counted(&lab, "weir_faults_injected_total", policy) >= 1.0);
    visit_until("the breaker is open", || {
        without(page);
        counted(&lab, "weir_breaker_transitions_total", ("to", "open")) >= 1.0
    });

    let since = Instant::now();
    std::fs::remove_file(&applied).expect("it is there");
    visit_until("the list has its prices again", || without(page).is_empty());
    // It was taken away, and did not end by itself: that is a minute, and `fault::` has a test of it.
    println!("prices were back after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(20));
}
