//! The process: killed at any moment, and read by those who are slow.

#[allow(dead_code, reason = "each test binary uses its share")]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use boutique_orderlog::pb::subscribe_acked_request::Message;
use boutique_orderlog::pb::{AppendRequest, Open, SubscribeAckedRequest, SubscribeRequest};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use support::port::free_addr;
use support::{
    all, append, assert_sound, client, event, listening, patient_client, spawn, start,
    start_bounded, start_heard,
};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const SEED: u64 = 20_260_301;
const APPENDERS: u32 = 10;
const APPENDS: u32 = 32;
const KILLS: u32 = 5;

/// Repeats it until somebody answers, as a mesh would.
async fn append_until_answered(
    client: &mut support::Client,
    request: &AppendRequest,
    until: Instant,
) -> (u64, u64) {
    loop {
        match client.append(request.clone()).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                return (answer.first_seq, answer.last_seq);
            }
            Err(status) => assert!(Instant::now() < until, "still {status}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_acknowledged_and_has_nothing_twice() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, addr) = (folder.path().join("log"), free_addr().await);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut process = spawn(addr, &path).await;
    let until = Instant::now() + Duration::from_secs(60);

    let appenders: Vec<_> = (0..APPENDERS)
        .map(|order| {
            tokio::spawn(async move {
                let (mut client, order) = (patient_client(addr), format!("o{order}"));
                let mut acknowledged = BTreeMap::new();
                for version in 0..APPENDS {
                    let key = format!("k{version}");
                    let request = append(&order, version, &[&key]);
                    let seqs = append_until_answered(&mut client, &request, until).await;
                    acknowledged.insert((order.clone(), key), seqs);
                    sleep(Duration::from_millis(10)).await;
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..KILLS {
        sleep(Duration::from_millis(random.u64(20..150))).await;
        process.kill().await.expect("our own child");
        process = spawn(addr, &path).await;
    }
    let mut acknowledged = BTreeMap::new();
    for appender in appenders {
        acknowledged.extend(appender.await.expect("all were answered"));
    }
    process.kill().await.expect("our own child");
    let _process = spawn(addr, &path).await;

    let events = all(&mut client(addr).await).await;
    assert_sound(&events);
    assert_eq!(events.len() as u32, APPENDERS * APPENDS);
    for event in events {
        let seqs = acknowledged[&(event.order_id, event.idempotency_key)];
        assert_eq!(seqs, (event.seq, event.seq), "where it was acknowledged");
    }
}

/// The lines that a process says until one of them has this in it.
async fn heard(lines: &mut Lines<BufReader<ChildStderr>>, word: &str) -> Vec<String> {
    let mut all = Vec::new();
    while all.last().is_none_or(|line: &String| !line.contains(word)) {
        let next = timeout(Duration::from_secs(10), lines.next_line()).await;
        let next = next.unwrap_or_else(|_| panic!("{all:?} and no {word:?}"));
        all.push(next.expect("a pipe").expect("it still runs"));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_becomes_nearly_full_says_so_once_and_again_when_it_starts_anew() {
    const NEARLY: &str = "9 of 10 orders";

    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, addr) = (folder.path().join("log"), free_addr().await);
    let mut process = start_heard(addr, &path, 10);
    let lines = |process: &mut Child| {
        let stderr = process.stderr.take().expect("it is piped");
        BufReader::new(stderr).lines()
    };
    let mut said = lines(&mut process);
    listening(addr).await;
    let mut log = client(addr).await;
    for order in 0..9 {
        let request = append(&format!("o{order}"), 0, &["k"]);
        log.append(request).await.expect("appended");
    }
    heard(&mut said, NEARLY).await;
    let last = append("o9", 0, &["k"]);
    log.append(last).await.expect("there is room for one more");
    kill_process(pid_of(&process), Signal::TERM).expect("our own child");
    let rest = heard(&mut said, "drained").await;
    let warnings = rest.iter().filter(|line| line.contains("LOG_ORDERS_MAX"));
    assert_eq!(warnings.count(), 0, "it is told once: {rest:?}");
    process.wait().await.expect("our own child");

    let mut process = start_heard(addr, &path, 10);
    heard(&mut lines(&mut process), "10 of 10 orders").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_creates_its_log_it_starts_again() {
    const TRIES: u32 = 8;

    for _ in 0..TRIES {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (path, addr) = (folder.path().join("log"), free_addr().await);
        let mut process = start(addr, &path);
        // Now, or never: it is killed at the first byte of its log.
        while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            assert!(process.try_wait().expect("our own child").is_none());
            std::thread::yield_now();
        }
        process.kill().await.expect("our own child");
        let _process = spawn(addr, &path).await;
        assert_eq!(all(&mut client(addr).await).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_consumer_catches_up_it_skips_nothing_and_goes_on() {
    const ORDERS: u64 = 300;
    const KILLS_MAX: u32 = 60;

    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, addr) = (folder.path().join("log"), free_addr().await);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut process = spawn(addr, &path).await;
    let mut log = client(addr).await;
    for order in 0..ORDERS {
        let request = append(&format!("o{order}"), 0, &["k"]);
        log.append(request).await.expect("appended");
    }

    let (mut acked, mut kills, mut again) = (0, 0, 0);
    loop {
        let (say, said) = mpsc::channel(64);
        let tell = async |message| {
            let message = Some(message);
            say.send(SubscribeAckedRequest { message })
                .await
                .expect("it is read");
        };
        let consumer = "me".to_owned();
        tell(Message::Open(Open {
            consumer,
            ..Default::default()
        }))
        .await;
        tell(Message::RequestN(8)).await;
        let facts = log.subscribe_acked(ReceiverStream::new(said)).await;
        let mut facts = facts.expect("open").into_inner();
        let mut next = None;
        for _ in 0..random.u32(10..60) {
            let message = timeout(Duration::from_secs(5), facts.message()).await;
            let event = message.expect("in time").expect("no error");
            let seq = event.expect("no end").seq;
            let expected = next.unwrap_or(seq);
            assert_eq!(seq, expected, "one after the other");
            assert!(seq <= acked + 1, "{seq} comes, and {acked} was the last");
            again += u32::from(seq <= acked);
            next = Some(seq + 1);
            acked = acked.max(seq);
            if acked == ORDERS {
                break;
            }
            tell(Message::Ack(seq)).await;
            tell(Message::RequestN(1)).await;
        }
        if acked == ORDERS {
            break;
        }
        // Acks are written along with an append: what was not is delivered again.
        let request = append(&format!("more{kills}"), 0, &["k"]);
        log.append(request).await.expect("appended");
        process.kill().await.expect("our own child");
        process = spawn(addr, &path).await;
        log = client(addr).await;
        kills += 1;
        assert!(kills < KILLS_MAX, "it does not get on: {acked}");
    }
    assert!(kills >= 4, "{kills} kills, {again} facts came again");
}

fn pid_of(process: &Child) -> Pid {
    let pid = process.id().and_then(|pid| pid.try_into().ok());
    pid.and_then(Pid::from_raw).expect("it runs")
}

/// No file of this process may become larger; None takes that back.
fn bound_files(process: &Child, bytes_max: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes_max.or(maximum);
    prlimit(
        Some(pid_of(process)),
        Resource::Fsize,
        Rlimit { current, maximum },
    )
    .expect("our own child");
}

fn of_some_size(order: u32) -> AppendRequest {
    AppendRequest {
        events: vec![event("k", &"x".repeat(30_000))],
        ..append(&format!("o{order}"), 0, &[])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_full_costs_nothing_that_was_acknowledged_and_no_restart() {
    const ORDERS_MAX: u32 = 2000;

    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, addr) = (folder.path().join("log"), free_addr().await);
    let mut process = start_bounded(addr, &path);
    listening(addr).await;
    let mut client = client(addr).await;
    client.append(of_some_size(0)).await.expect("there is room");
    let bytes = std::fs::metadata(&path).expect("it is there").len();
    bound_files(&process, Some(bytes));

    let mut order = 0;
    let refusal = loop {
        order += 1;
        assert!(order < ORDERS_MAX, "a file of {bytes} bytes takes all this");
        if let Err(refusal) = client.append(of_some_size(order)).await {
            break refusal;
        }
    };
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    // It has room for small ones, perhaps; for this one it has not, however often it is asked.
    for _ in 0..3 {
        client
            .append(of_some_size(order))
            .await
            .expect_err("it is full");
    }
    assert!(process.try_wait().expect("our own child").is_none());
    assert_eq!(all(&mut client).await.len() as u32, order);

    bound_files(&process, None);
    let until = Instant::now() + Duration::from_secs(10);
    let (first, last) = append_until_answered(&mut client, &of_some_size(order), until).await;
    assert_eq!((first, last), (u64::from(order) + 1, u64::from(order) + 1));
    let events = all(&mut client).await;
    assert_sound(&events);
    assert_eq!(events.len() as u32, order + 1);
}

fn rss_bytes(process: &Child) -> u64 {
    let pid = process.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("our own child");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a line of numbers") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_do_not_read_cost_nearly_nothing_and_hold_nobody_up() {
    const FACTS: u32 = 640;
    const FACT_BYTES: usize = 32_000;
    /// So many that what they cost is far more than what the allocator keeps or not, up to 9 MB here.
    const SUBSCRIBERS: u64 = 64;
    const EACH_BYTES_MAX: u64 = 384 * 1024;

    let folder = tempfile::tempdir().expect("a temporary directory");
    let addr = free_addr().await;
    let process = spawn(addr, &folder.path().join("log")).await;
    let mut writer = client(addr).await;
    let text = "x".repeat(FACT_BYTES);
    for order in 0..FACTS {
        let request = AppendRequest {
            events: vec![event("k", &text)],
            ..append(&format!("o{order}"), 0, &[])
        };
        writer.append(request).await.expect("appended");
    }
    // So that the store's own cache is as full as it gets.
    assert_eq!(all(&mut writer).await.len() as u32, FACTS);
    let before = rss_bytes(&process);

    let mut asleep = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = client(addr).await;
        let mut stream = client
            .subscribe(SubscribeRequest::default())
            .await
            .expect("open")
            .into_inner();
        stream
            .message()
            .await
            .expect("no error")
            .expect("the first");
        asleep.push(stream);
    }
    let start = Instant::now();
    let reader = all(&mut writer).await;
    let took = start.elapsed();
    assert_eq!(reader.len() as u32, FACTS);
    assert!(took < Duration::from_secs(5), "a reader took {took:?}");
    sleep(Duration::from_millis(300)).await;
    let grown = rss_bytes(&process).saturating_sub(before);
    let waiting = u64::from(FACTS) * FACT_BYTES as u64;
    assert!(
        grown < SUBSCRIBERS * EACH_BYTES_MAX,
        "{grown} bytes more for {SUBSCRIBERS} subscribers with {waiting} bytes before each"
    );
}

#[tokio::test]
async fn sigterm_drains_and_ends_with_success() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let addr = free_addr().await;
    let mut process = spawn(addr, &folder.path().join("log")).await;
    let mut client = client(addr).await;
    let stream = client.subscribe(SubscribeRequest::default()).await;
    let _stream = stream.expect("open");
    kill_process(pid_of(&process), Signal::TERM).expect("our own child");
    let status = timeout(Duration::from_secs(5), process.wait()).await;
    assert!(status.expect("in time").expect("waited").success());
}
