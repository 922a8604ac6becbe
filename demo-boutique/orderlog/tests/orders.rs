//! The event-driven half of the shop as a whole, in processes of its own on loopback: while orders are placed,
//! each process is killed again and again. No order is lost, none ends twice, and nobody pays for nothing.
//!
//! `SEED=n` in the environment makes the same orders and kills the same processes at the same times.

#[path = "support/neighbours.rs"]
mod neighbours;
mod pb;
#[path = "support/port.rs"]
mod port;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use neighbours::{EMPTY_CARD, NOWHERE, Neighbours};
use pb::events::order_event::Fact;
use pb::events::order_log_client::OrderLogClient;
use pb::events::order_view_client::OrderViewClient;
use pb::events::{
    Address, AppendRequest, CreditCard, OrderEvent, OrderItem, OrderPlaced, ReadRequest,
    StatsRequest, StatsResponse,
};
use pb::shop::Money;
use port::free_addr;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

const SEED: u64 = 5;
const KILL_FOR: Duration = Duration::from_secs(12);
const PLACERS: u32 = 3;
const PLACE_EVERY: Duration = Duration::from_millis(70);
/// A machine with two busy cores takes its time to start a Node.
const PATIENCE: Duration = Duration::from_secs(90);

fn folder(service: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(service)
}

/// One process of the shop, and how to start it again.
struct Member {
    name: &'static str,
    program: PathBuf,
    variables: BTreeMap<&'static str, String>,
    log: PathBuf,
    process: Child,
}

impl Member {
    fn start(
        name: &'static str,
        program: PathBuf,
        variables: BTreeMap<&'static str, String>,
        home: &Path,
    ) -> Self {
        let log = home.join(format!("{name}.log"));
        let process = spawn(&program, &variables, &log);
        Self {
            name,
            program,
            variables,
            log,
            process,
        }
    }

    async fn kill(&mut self) {
        self.process.kill().await.expect("our own child");
    }

    fn restart(&mut self) {
        self.process = spawn(&self.program, &self.variables, &self.log);
    }
}

fn spawn(program: &Path, variables: &BTreeMap<&'static str, String>, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log);
    Command::new(program)
        .envs(variables)
        .env("CHAOS_PORT", "0")
        .stdout(Stdio::null())
        .stderr(log.expect("the test's folder is writable"))
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

struct Shop {
    home: tempfile::TempDir,
    neighbours: Neighbours,
    log: SocketAddr,
    view: SocketAddr,
    members: Vec<Member>,
}

impl Shop {
    async fn open(seed: u64) -> Self {
        for service in ["orderview", "fulfilment", "notifier"] {
            let build = Command::new(folder(service).join("build")).output().await;
            let output = build.expect("a build script");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{service}: {said}");
        }
        let home = tempfile::tempdir().expect("a temporary directory");
        let (neighbours, shop) = Neighbours::start(seed).await;
        let (log, view) = (free_addr().await, free_addr().await);
        let file = |name: &str| home.path().join(name).display().to_string();
        let variables = |own: &[(&'static str, String)]| {
            let mut all: BTreeMap<_, _> = own.iter().cloned().collect();
            all.entry("PORT").or_insert("0".into());
            all.insert("ORDERLOG_SERVICE_ADDR", log.to_string());
            all
        };
        let orderlog = variables(&[("PORT", log.port().to_string()), ("LOG_FILE", file("log"))]);
        let orderview = variables(&[("PORT", view.port().to_string())]);
        let fulfilment = variables(&[
            ("PAYMENT_SERVICE_ADDR", shop.to_string()),
            ("SHIPPING_SERVICE_ADDR", shop.to_string()),
            // So few that some orders are given up.
            ("SHIP_TRIES", "2".into()),
        ]);
        let notifier = variables(&[("MBOX_FILE", file("mbox")), ("NOTIFY_MS", "1".into())]);
        let run = |service: &str| folder(service).join("run");
        let start = |name, program, variables| Member::start(name, program, variables, home.path());
        let log_program = env!("CARGO_BIN_EXE_boutique-orderlog").into();
        let members = vec![
            start("orderlog", log_program, orderlog),
            start("orderview", run("orderview"), orderview),
            start("fulfilment", run("fulfilment"), fulfilment),
            start("notifier", run("notifier"), notifier),
        ];
        Self {
            home,
            neighbours,
            log,
            view,
            members,
        }
    }

    /// One after the other, for some seconds: kill -9, a pause, and start it again.
    async fn kill_at_random(&mut self, random: &mut fastrand::Rng) -> BTreeMap<&'static str, u32> {
        let mut kills = BTreeMap::new();
        let until = Instant::now() + KILL_FOR;
        while Instant::now() < until {
            let count = self.members.len();
            let member = &mut self.members[random.usize(0..count)];
            member.kill().await;
            *kills.entry(member.name).or_default() += 1;
            sleep(Duration::from_millis(random.u64(0..400))).await;
            member.restart();
            sleep(Duration::from_millis(random.u64(50..700))).await;
        }
        kills
    }

    async fn facts(&self) -> Vec<OrderEvent> {
        let mut client = OrderLogClient::new(patient(self.log));
        let stream = client
            .read(ReadRequest::default())
            .await
            .expect("the log is up");
        let mut stream = stream.into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await.expect("no error") {
            events.push(event);
        }
        events
    }

    /// What the processes said last, for whoever has to find out why.
    fn last_words(&self) -> String {
        let tail = |member: &Member| {
            let said = std::fs::read_to_string(&member.log).unwrap_or_default();
            let from = said.len().saturating_sub(1500);
            format!(
                "--- {}\n{}\n",
                member.name,
                said.get(from..).unwrap_or(&said)
            )
        };
        self.members.iter().map(tail).collect()
    }
}

/// Connects when it is used, and again after its server was away.
fn patient(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("a valid URI");
    endpoint.timeout(Duration::from_secs(2)).connect_lazy()
}

fn placed(order: &str, random: &mut fastrand::Rng) -> AppendRequest {
    let money = |units| {
        Some(Money {
            currency_code: "USD".into(),
            units,
            nanos: 0,
        })
    };
    let country = if random.u32(0..6) == 0 { NOWHERE } else { "US" };
    let cvv = if random.u32(0..6) == 0 { EMPTY_CARD } else { 1 };
    let placed = OrderPlaced {
        user_id: format!("u{}", random.u32(0..5)),
        currency_code: "USD".into(),
        address: Some(Address {
            country: country.into(),
            ..Default::default()
        }),
        email: format!("{order}@shop.example"),
        items: vec![OrderItem {
            product_id: "mug".into(),
            quantity: random.i32(1..5),
            cost: money(7),
        }],
        shipping_cost: money(3),
        total: money(10),
        credit_card: Some(CreditCard {
            credit_card_cvv: cvv,
            ..Default::default()
        }),
    };
    AppendRequest {
        order_id: order.into(),
        expected_version: 0,
        events: vec![OrderEvent {
            idempotency_key: "placed".into(),
            fact: Some(Fact::OrderPlaced(placed)),
            ..Default::default()
        }],
    }
}

/// A visitor's hand on the button: places orders until the time is over, each until it is acknowledged.
async fn place(
    log: SocketAddr,
    name: u32,
    seed: u64,
    until: Instant,
) -> Result<BTreeSet<String>, String> {
    let mut client = OrderLogClient::new(patient(log));
    let mut random = fastrand::Rng::with_seed(seed + u64::from(name));
    let mut orders = BTreeSet::new();
    while Instant::now() < until {
        let order = format!("p{name}-{}", orders.len());
        let request = placed(&order, &mut random);
        while let Err(status) = client.append(request.clone()).await {
            if Instant::now() > until + PATIENCE {
                return Err(format!("{order}: still {status}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        orders.insert(order);
        sleep(PLACE_EVERY).await;
    }
    Ok(orders)
}

fn is_end(event: &OrderEvent) -> bool {
    matches!(
        event.fact,
        Some(Fact::OrderConfirmed(_) | Fact::OrderCancelled(_))
    )
}

/// Until it holds of all facts; those are the answer.
async fn facts_when(
    shop: &Shop,
    what: &str,
    holds: impl Fn(&[OrderEvent]) -> bool,
) -> Vec<OrderEvent> {
    let until = Instant::now() + PATIENCE;
    loop {
        let facts = shop.facts().await;
        if holds(&facts) {
            return facts;
        }
        let ends = facts.iter().filter(|event| is_end(event)).count();
        assert!(
            Instant::now() < until,
            "not yet {what}: {} facts, {ends} ends\n{}",
            facts.len(),
            shop.last_words()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

async fn live_stats(shop: &Shop, seq: u64) -> StatsResponse {
    let mut view = OrderViewClient::new(patient(shop.view));
    let until = Instant::now() + PATIENCE;
    loop {
        let stats = view.stats(StatsRequest {}).await;
        match stats {
            Ok(stats) if stats.get_ref().as_of_seq == seq => return stats.into_inner(),
            stats => assert!(Instant::now() < until, "{stats:?}\n{}", shop.last_words()),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The digest that `--rebuild` prints.
async fn rebuilt_digest(shop: &Shop) -> String {
    let mut command = Command::new(folder("orderview").join("run"));
    command.arg("--rebuild");
    command.env("ORDERLOG_SERVICE_ADDR", shop.log.to_string());
    let output = command.output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = said
        .split("\"digest\": \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    digest
        .unwrap_or_else(|| panic!("no digest in {said:?}"))
        .to_owned()
}

/// The seqs that customers were told of, in the order of the mails.
fn mailed(shop: &Shop) -> Vec<u64> {
    let mails = std::fs::read_to_string(shop.home.path().join("mbox")).unwrap_or_default();
    let seqs = mails
        .lines()
        .filter_map(|line| line.strip_prefix("X-Order-Seq: "));
    seqs.map(|seq| seq.parse().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_process_dies_every_order_ends_once_and_nobody_pays_twice() {
    let seed = std::env::var("SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut shop = Shop::open(seed).await;
    let until = Instant::now() + KILL_FOR;
    let placers: Vec<_> = (0..PLACERS)
        .map(|name| tokio::spawn(place(shop.log, name, seed, until)))
        .collect();
    let kills = shop.kill_at_random(&mut random).await;
    let mut orders = BTreeSet::new();
    for placer in placers {
        let acknowledged = placer.await.expect("no placer panics");
        orders
            .extend(acknowledged.unwrap_or_else(|error| panic!("{error}\n{}", shop.last_words())));
    }

    let all_ended =
        |facts: &[OrderEvent]| facts.iter().filter(|event| is_end(event)).count() >= orders.len();
    let facts = facts_when(&shop, "all ended", all_ended).await;
    let counts = assert_each_ends_once(&facts, &orders);
    assert_paid_for_what_was_sent(&facts, &shop);

    let head = facts.len() as u64;
    let live = live_stats(&shop, head).await;
    assert_eq!(live.orders, orders.len() as u64);
    assert_eq!(
        (live.confirmed, live.cancelled, live.open),
        (counts.0, counts.1, 0)
    );
    assert_eq!(
        live.digest,
        rebuilt_digest(&shop).await,
        "rebuilt is not live"
    );

    let ends: Vec<u64> = facts
        .iter()
        .filter(|event| is_end(event))
        .map(|event| event.seq)
        .collect();
    let patience = Instant::now() + PATIENCE;
    while mailed(&shop).len() < ends.len() {
        assert!(
            Instant::now() < patience,
            "mails are missing\n{}",
            shop.last_words()
        );
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(mailed(&shop), ends, "one mail for each end, in their order");
    assert_eq!(
        shop.facts().await.len() as u64,
        head,
        "nothing happened after the ends"
    );
    eprintln!(
        "seed {seed}: {} orders, {counts:?} confirmed and cancelled; killed {kills:?}",
        orders.len()
    );
    assert!(
        kills.len() == 4 && counts.0 > 10 && counts.1 > 5,
        "the story was too short to tell anything"
    );
}

/// Confirmed and cancelled.
fn assert_each_ends_once(facts: &[OrderEvent], orders: &BTreeSet<String>) -> (u64, u64) {
    let mut of: BTreeMap<&str, Vec<&OrderEvent>> = BTreeMap::new();
    for (event, seq) in facts.iter().zip(1..) {
        assert_eq!(event.seq, seq, "seqs are dense and in order");
        of.entry(&event.order_id).or_default().push(event);
    }
    let known: BTreeSet<String> = of.keys().map(|order| (*order).to_owned()).collect();
    assert_eq!(
        &known, orders,
        "orders that were acknowledged, and those in the log"
    );
    let mut counts = (0, 0);
    for (order, events) in of {
        let ends = events.iter().filter(|event| is_end(event)).count();
        assert_eq!(ends, 1, "{order}: {events:?}");
        match events.last().and_then(|event| event.fact.as_ref()) {
            Some(Fact::OrderConfirmed(_)) => counts.0 += 1,
            Some(Fact::OrderCancelled(_)) => counts.1 += 1,
            other => panic!("{order} ends with {other:?}"),
        }
    }
    counts
}

fn assert_paid_for_what_was_sent(facts: &[OrderEvent], shop: &Shop) {
    let ledger = shop.neighbours.ledger.lock().expect("nobody panicked");
    let of = |book: &BTreeMap<String, u32>, order: &str| -> u32 {
        // Under whatever key: a second key would be a second charge.
        let prefix = format!("{order}:");
        let own = book
            .iter()
            .filter(|(key, _)| *key == order || key.starts_with(&prefix));
        own.map(|(_, count)| count).sum()
    };
    for event in facts {
        let order = &event.order_id;
        let charged = of(&ledger.charges, order);
        let (refunded, sent) = (of(&ledger.refunds, order), of(&ledger.parcels, order));
        match event.fact {
            Some(Fact::OrderConfirmed(_)) => {
                assert_eq!((charged, refunded, sent), (1, 0, 1), "{order} is confirmed");
            }
            Some(Fact::OrderCancelled(_)) => {
                assert!(charged <= 1, "{order} was charged {charged} times");
                assert_eq!((charged, sent), (refunded, 0), "{order} is cancelled");
            }
            _ => {}
        }
    }
}
