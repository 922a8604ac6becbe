//! Orders, with the whole shop in the mesh: whatever of it fails meanwhile, each order ends once and is paid for once.
//!
//! `SEED=n` in the environment makes the same faults, at the same times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use weir_lab::error::Error;
use weir_lab::metrics::Metrics;
use weir_lab::{Lab, build};

use crate::world::{ADMIN_PORT, PATIENCE, alone, part_of_shop, post, shop};

const SEED: u64 = 5;
/// Faults follow each other for so long.
const FAULTS_FOR: Duration = Duration::from_secs(30);
const GONE_FOR: Duration = Duration::from_secs(20);
/// What one order has to do with, from the page to the mail.
const SERVICES: [&str; 12] = [
    "storefront",
    "cart",
    "redis",
    "catalog",
    "currency",
    "checkout",
    "orderlog",
    "fulfilment",
    "payment",
    "shipping",
    "orderview",
    "notifier",
];
/// What an order has to do with until it is accepted.
const TILL: [&str; 8] = [
    "storefront",
    "cart",
    "redis",
    "catalog",
    "currency",
    "shipping",
    "checkout",
    "orderlog",
];
const SHOPPERS: u64 = 3;
const CARD: &str = "4432 8015 6152 0454";
const ORDER_EVERY: Duration = Duration::from_millis(150);
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that fails.
#[derive(Debug)]
enum Fault {
    /// Nothing fails.
    Calm,
    /// Killed whenever it is there.
    Dead(&'static str),
    /// Both are, at the same time.
    BothDead(&'static str, &'static str),
    Frozen(&'static str),
    /// Nothing passes between the two.
    Cut(&'static str, &'static str),
    /// So many percent of its packets are lost.
    Lossy(&'static str, u8),
}

impl Fault {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let mut service = || SERVICES[random.usize(..SERVICES.len())];
        let (one, other) = (service(), service());
        match random.u32(..5) {
            0 => Self::Dead(one),
            4 => Self::BothDead(one, other),
            1 => Self::Frozen(one),
            2 => Self::Cut(one, other),
            _ => Self::Lossy(one, random.u8(10..=60)),
        }
    }

    /// Does it for so long, and takes it back.
    fn happen(&self, lab: &Lab, lasts: Duration) {
        let until = Instant::now() + lasts;
        let wait = || sleep(until.saturating_duration_since(Instant::now()));
        let done = "the lab does it";
        match self {
            Self::Calm => wait(),
            Self::Dead(service) => keep_dead(lab, &[*service], until),
            Self::BothDead(one, other) => keep_dead(lab, &[*one, *other], until),
            Self::Frozen(service) => {
                lab.stop(service).expect(done);
                wait();
                lab.cont(service).expect(done);
            }
            Self::Cut(one, other) => {
                lab.net_drop(one, other).expect(done);
                wait();
                lab.net_heal().expect(done);
            }
            Self::Lossy(service, percent) => {
                lab.net_loss(*percent, service).expect(done);
                wait();
                lab.net_heal().expect(done);
            }
        }
    }
}

fn keep_dead(lab: &Lab, services: &[&str], until: Instant) {
    while Instant::now() < until {
        for service in services {
            match lab.kill(service) {
                Err(Error::Request(why)) => assert!(why.starts_with("nothing runs"), "{why}"),
                killed => killed.expect("the lab does it"),
            }
        }
        sleep(LOOK_EVERY);
    }
}

fn form(card: &str, country: &str, key: &str) -> String {
    format!(
        "email=a@example.com&street_address=1+Mill+Lane&city=Weir&state=R&country={country}&zip_code=12345&\
         card_number={card}&card_month=1&card_year=2039&card_cvv=672&idempotency_key={key}"
    )
}

/// Whether it is there now.
fn put_into_cart(page: SocketAddr, session: &str) -> bool {
    let added = post(
        page,
        session,
        "/api/cart",
        "product_id=wicker-creel&quantity=1",
    );
    added.is_some_and(|(status, _)| status == 201)
}

/// Orders one thing after the other, and asks again with the same key until it is answered. The orders that were accepted.
fn go_shopping(page: SocketAddr, number: u64, until: Instant) -> BTreeSet<String> {
    let mut random = fastrand::Rng::with_seed(number);
    let session = format!("{number:032x}");
    let mut orders = BTreeSet::new();
    for order in 0.. {
        let (card, country) = match random.u32(..6) {
            // Declined late, and refused later still.
            0 => ("3782 822463 10005", "England"),
            1 => (CARD, "Atlantis"),
            _ => (CARD, "England"),
        };
        let form = form(card, country, &format!("k{number}-{order}"));
        loop {
            if Instant::now() >= until {
                return orders;
            }
            if put_into_cart(page, &session)
                && let Some((201, placed)) = post(page, &session, "/api/checkout", &form)
            {
                let placed: serde_json::Value = serde_json::from_str(&placed).expect("JSON");
                let id = placed["order"]["orderId"]
                    .as_str()
                    .expect("it says which order");
                orders.insert(id.to_owned());
                break;
            }
            sleep(LOOK_EVERY);
        }
        sleep(ORDER_EVERY);
    }
    orders
}

/// `orderview` with an option, in its pod.
fn orderview(lab: &Lab, option: &str) -> Result<String, String> {
    let run = build::root().join("demo-boutique/orderview/run");
    let run = std::path::absolute(run).expect("it has a path");
    let output = lab.exec(Some("orderview/0"), &[&run.display().to_string(), option]);
    let output = output.map_err(|error| error.to_string())?;
    match output.code {
        0 => Ok(output.stdout),
        code => Err(format!("{code}: {}", output.stderr)),
    }
}

/// Of each order, what happened, in order.
type Stories = BTreeMap<String, Vec<String>>;

fn stories(lab: &Lab) -> Result<Stories, String> {
    let mut stories = Stories::new();
    for (line, seq) in orderview(lab, "--facts")?.lines().zip(1..) {
        let words: Vec<&str> = line.split(' ').collect();
        let &[number, order, fact] = words.as_slice() else {
            return Err(format!("{line:?} is no fact"));
        };
        assert_eq!(number, format!("{seq}"), "facts are dense and in order");
        let story = stories.entry(order.to_owned()).or_default();
        story.push(fact.to_owned());
    }
    Ok(stories)
}

fn ends(story: &[String]) -> usize {
    let is_end = |fact: &&String| ["order_confirmed", "order_cancelled"].contains(&fact.as_str());
    story.iter().filter(is_end).count()
}

/// Of each order, charges and refunds, out of payment's ledger.
fn ledger(lab: &Lab) -> BTreeMap<String, (u32, u32)> {
    let ledger = "cat \"${LEDGER_FILE:-/var/lib/payment/ledger.txt}\"";
    let output = lab
        .exec(Some("payment/0"), &["sh", "-c", ledger])
        .expect("the lab answers");
    let mut accounts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for line in output.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        // "ORDER:charge".
        let order = words[1].split(':').next().unwrap_or_default();
        let account = accounts.entry(order.to_owned()).or_default();
        match (words[0], words[2]) {
            ("CHARGE", _) => account.0 += 1,
            // Of what was never charged: it only forbids the charge.
            ("REFUND", "-") => {}
            ("REFUND", _) => account.1 += 1,
            _ => panic!("{line:?} is no entry"),
        }
    }
    accounts
}

/// The live projection's digest, once it has all facts, and that of one made anew.
fn digests(lab: &Lab) -> (String, String) {
    let digest = |stats: &str| -> serde_json::Value {
        serde_json::from_str(stats).unwrap_or_else(|error| panic!("{error}: {stats:?}"))
    };
    let rebuilt = digest(&orderview(lab, "--rebuild").expect("it is made anew"));
    let until = Instant::now() + SETTLED_WITHIN;
    loop {
        let live = orderview(lab, "--stats").map(|stats| digest(&stats));
        if let Ok(live) = &live
            && live["asOfSeq"] == rebuilt["asOfSeq"]
        {
            let text = |stats: &serde_json::Value| stats["digest"].to_string();
            return (text(live), text(&rebuilt));
        }
        assert!(Instant::now() < until, "{live:?} does not follow {rebuilt}");
        sleep(LOOK_EVERY);
    }
}

/// Shoppers shop while one fault follows the other; then every order must come to its end. `ask` may ask the lab how it was.
fn tell(faults: &[(Fault, Duration)], ask: impl FnOnce(&Lab)) {
    let _alone = alone();
    let env = [
        ("storefront", "CHECKOUT_MODE", "EVENT"),
        ("notifier", "NOTIFY_MS", "1"),
    ];
    let (lab, page) = shop(true, &env);
    let until = Instant::now() + faults.iter().map(|(_, lasts)| *lasts).sum::<Duration>();
    let accepted: BTreeSet<String> = thread::scope(|scope| {
        let shoppers =
            (0..SHOPPERS).map(|number| scope.spawn(move || go_shopping(page, number, until)));
        let shoppers: Vec<_> = shoppers.collect();
        for (fault, lasts) in faults {
            println!("{fault:?} for {lasts:?}");
            fault.happen(&lab, *lasts);
        }
        let orders = shoppers
            .into_iter()
            .map(|shopper| shopper.join().expect("no shopper panics"));
        orders.flatten().collect()
    });

    let settled = Instant::now() + SETTLED_WITHIN;
    let stories = loop {
        let stories = stories(&lab);
        if let Ok(stories) = &stories
            && stories.values().all(|story| ends(story) > 0)
        {
            break stories.clone();
        }
        assert!(Instant::now() < settled, "not all orders end: {stories:?}");
        sleep(LOOK_EVERY);
    };
    let ledger = ledger(&lab);
    let mut count = (0, 0);
    for (order, story) in &stories {
        assert_eq!(ends(story), 1, "{order} ends once: {story:?}");
        let (charges, refunds) = ledger.get(order).copied().unwrap_or_default();
        match story.last().expect("it has an end").as_str() {
            "order_confirmed" => {
                count.0 += 1;
                assert_eq!((charges, refunds), (1, 0), "{order}: {story:?}");
            }
            "order_cancelled" => {
                count.1 += 1;
                assert!(
                    charges <= 1 && refunds == charges,
                    "{order}: {charges} charges, {refunds} refunds, {story:?}"
                );
            }
            last => panic!("{order} ends with {last}"),
        }
    }
    let lost: Vec<_> = accepted
        .iter()
        .filter(|order| !stories.contains_key(*order))
        .collect();
    assert_eq!(lost, Vec::<&String>::new(), "accepted, and not in the log");
    let (live, rebuilt) = digests(&lab);
    assert_eq!(live, rebuilt, "the projection as it lives, and made anew");
    println!(
        "{} accepted, {} in the log: {} confirmed, {} cancelled",
        accepted.len(),
        stories.len(),
        count.0,
        count.1
    );
    assert!(
        count.0 >= 10 && count.1 >= 3,
        "the story was too short to tell anything"
    );
    ask(&lab);
}

#[test]
fn orders_end_once_and_are_paid_once_whatever_fails_at_random() {
    let seed = std::env::var("SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults: Vec<(Fault, Duration)> = Vec::new();
    while faults.iter().map(|(_, lasts)| *lasts).sum::<Duration>() < FAULTS_FOR {
        let lasts = Duration::from_millis(random.u64(1000..8000));
        faults.push((Fault::draw(&mut random), lasts));
    }
    tell(&faults, |_| ());
}

/// How often the breakers that checkout's sidecar has for the log went into a state.
fn transitions(lab: &Lab, to: &str) -> f64 {
    let checkout = lab.pod("checkout").expect("there is one").address;
    let admin = SocketAddr::new(checkout, ADMIN_PORT).to_string();
    let metrics = Metrics::scrape(lab.client(), &admin).expect("a sidecar shows its metrics");
    let labels = [("service", "boutique/orderlog:7300"), ("to", to)];
    metrics.sum("weir_breaker_transitions_total", &labels)
}

#[test]
fn a_log_that_hangs_is_left_alone_by_its_breaker_and_no_order_is_lost_or_doubled() {
    let faults = [
        (Fault::Calm, Duration::from_secs(5)),
        (Fault::Frozen("orderlog"), Duration::from_secs(9)),
        // The longest that the breaker stays open, and some orders.
        (Fault::Calm, Duration::from_secs(8)),
    ];
    tell(&faults, |lab| {
        assert!(transitions(lab, "open") >= 1.0, "it opened");
        assert!(transitions(lab, "closed") >= 1.0, "and closed again");
    });
}

/// A page does without exchange rates that take this long, and shows dollars. A till cannot: it failed each such order.
#[test]
fn an_order_is_taken_while_exchange_rates_are_too_late_for_pages() {
    let _alone = alone();
    let slow = [("currency", "LATENCY_MS", "900")];
    let (_lab, page) = part_of_shop(true, &TILL, &slow);
    let session = format!("{:032x}", 0);
    let until = Instant::now() + PATIENCE;
    while !put_into_cart(page, &session) {
        assert!(Instant::now() < until, "nothing can be put into a cart");
    }
    let form = form(CARD, "England", "once");
    let (status, placed) = post(page, &session, "/api/checkout", &form).expect("an answer");
    assert_eq!(status, 201, "{placed}");
}

#[test]
#[ignore = "five minutes: cargo test --test mesh orders -- --ignored"]
fn no_order_is_lost_whichever_two_of_those_who_keep_it_are_dead_at_once() {
    let pairs = [
        ("orderlog", "fulfilment"),
        ("orderlog", "payment"),
        ("payment", "shipping"),
        ("fulfilment", "orderview"),
        ("checkout", "orderlog"),
        ("orderview", "notifier"),
    ];
    let dead = |(one, other)| (Fault::BothDead(one, other), Duration::from_secs(8));
    // The lab starts what was killed again and again after 20 s at most, and the breaker that pages have for the till
    // is open for 24 s at most. Of 4 s the till was shut through all of the story, and no order was in it to be lost.
    let calm = || (Fault::Calm, Duration::from_secs(30));
    let faults: Vec<_> = pairs
        .map(|pair| [dead(pair), calm()])
        .into_iter()
        .flatten()
        .collect();
    tell(&faults, |_| ());
}

#[test]
#[ignore = "five minutes: cargo test --test mesh orders -- --ignored"]
fn no_order_is_lost_whichever_service_is_dead_for_twenty_seconds() {
    let faults = SERVICES.map(|service| (Fault::Dead(service), GONE_FOR));
    tell(&faults, |_| ());
}
