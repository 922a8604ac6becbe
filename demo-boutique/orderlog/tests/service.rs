//! The log as its callers see it, over real sockets.

#[allow(dead_code, reason = "each test binary uses its share")]
mod support;

use std::time::Duration;

use boutique_orderlog::pb::subscribe_acked_request::Message;
use boutique_orderlog::pb::{
    FactType, Open, OrderEvent, ReadRequest, SubscribeAckedRequest, SubscribeRequest,
};
use support::{Client, Served, all, append, assert_sound, event};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

/// Long enough to come, if it were to come.
const A_WHILE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(5);

async fn log() -> (TempDir, Served, Client) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let served = Served::start(&folder.path().join("log")).await;
    let client = served.client().await;
    (folder, served, client)
}

async fn fill(client: &mut Client, orders: u32) {
    for order in 0..orders {
        client
            .append(append(&format!("o{order}"), 0, &["k"]))
            .await
            .expect("appended");
    }
}

async fn next(stream: &mut Streaming<OrderEvent>) -> u64 {
    let message = timeout(PATIENCE, stream.message()).await.expect("in time");
    message.expect("no error").expect("no end").seq
}

async fn nothing_comes(stream: &mut Streaming<OrderEvent>) {
    let message = timeout(A_WHILE, stream.message()).await;
    message.expect_err("nothing should come");
}

#[tokio::test]
async fn a_repeated_append_is_answered_as_the_first_and_a_stale_one_is_aborted() {
    let (_folder, _served, mut client) = log().await;
    let request = append("o", 0, &["placed", "reserved"]);
    let first = client
        .append(request.clone())
        .await
        .expect("new")
        .into_inner();
    assert_eq!((first.first_seq, first.last_seq), (1, 2));
    client
        .append(append("o", 2, &["paid"]))
        .await
        .expect("at this version");
    let again = client.append(request).await.expect("known").into_inner();
    assert_eq!(again, first);
    let stale = client.append(append("o", 2, &["declined"])).await;
    assert_eq!(stale.expect_err("it has three").code(), Code::Aborted);
    let mixed = client.append(append("o", 3, &["paid", "shipped"])).await;
    assert_eq!(
        mixed.expect_err("half known").code(),
        Code::FailedPrecondition
    );
    let invalid = client.append(append("o", 3, &[""])).await;
    assert_eq!(invalid.expect_err("no key").code(), Code::InvalidArgument);
    let events = all(&mut client).await;
    assert_sound(&events);
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.at.is_some()));
}

#[tokio::test]
async fn facts_take_the_trace_of_the_call_unless_they_have_their_own() {
    let (_folder, _served, mut client) = log().await;
    let mut call = append("o", 0, &["a", "b"]);
    call.events[1].trace_id = "own".to_owned();
    let mut request = Request::new(call);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().expect("ASCII"));
    client.append(request).await.expect("appended");
    let traces: Vec<_> = all(&mut client)
        .await
        .into_iter()
        .map(|event| event.trace_id)
        .collect();
    assert_eq!(traces, ["0af7651916cd43dd8448eb211c80319c", "own"]);
}

#[tokio::test]
async fn reading_is_of_all_or_of_one_order_and_bounded_as_asked() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 5).await;
    client
        .append(append("o1", 1, &["a", "b"]))
        .await
        .expect("appended");
    for (order_id, from_seq, limit, expected) in [
        ("", 0, 0, vec![1, 2, 3, 4, 5, 6, 7]),
        ("", 3, 2, vec![3, 4]),
        ("", 9, 0, vec![]),
        ("o1", 0, 0, vec![2, 6, 7]),
        ("o1", 3, 1, vec![6]),
        ("o9", 0, 0, vec![]),
    ] {
        let request = ReadRequest {
            order_id: order_id.to_owned(),
            from_seq,
            limit,
        };
        let mut stream = client.read(request).await.expect("readable").into_inner();
        let mut seqs = Vec::new();
        while let Some(event) = stream.message().await.expect("no error") {
            seqs.push(event.seq);
        }
        assert_eq!(seqs, expected, "{order_id} from {from_seq}, {limit}");
    }
}

#[tokio::test]
async fn a_subscriber_gets_what_was_and_what_comes_and_only_the_types_it_wants() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 3).await;
    let subscribe = |from_seq, types: &[FactType]| SubscribeRequest {
        from_seq,
        types: types.iter().map(|of| *of as i32).collect(),
    };
    let everything = client.subscribe(subscribe(2, &[])).await.expect("open");
    let cancelled = subscribe(0, &[FactType::OrderCancelled]);
    let cancelled = client.subscribe(cancelled).await.expect("open");
    let placed = subscribe(0, &[FactType::OrderPlaced]);
    let placed = client.subscribe(placed).await.expect("open");
    let (mut everything, mut cancelled) = (everything.into_inner(), cancelled.into_inner());
    let mut placed = placed.into_inner();
    assert_eq!(next(&mut everything).await, 2);
    assert_eq!(next(&mut everything).await, 3);
    nothing_comes(&mut everything).await;
    client
        .append(append("new", 0, &["k"]))
        .await
        .expect("appended");
    assert_eq!(next(&mut everything).await, 4);
    for seq in 1..=4 {
        assert_eq!(next(&mut cancelled).await, seq);
    }
    nothing_comes(&mut placed).await;
}

#[tokio::test]
async fn who_has_followed_another_log_is_told_and_not_given_the_facts_of_this_one() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 3).await;
    let from = |from_seq| SubscribeRequest {
        from_seq,
        types: Vec::new(),
    };
    // What comes next is waited for.
    client.subscribe(from(4)).await.expect("open");
    let refusal = client.subscribe(from(5)).await.expect_err("seq 4 is not");
    assert_eq!(refusal.code(), Code::OutOfRange);
    assert!(refusal.message().contains("ends at seq 3"), "{refusal}");
    let open = Open {
        consumer: "me".to_owned(),
        from_seq: 5,
        types: Vec::new(),
    };
    let said = tokio_stream::iter([SubscribeAckedRequest {
        message: Some(Message::Open(open)),
    }]);
    let refusal = client.subscribe_acked(said).await.expect_err("neither");
    assert_eq!(refusal.code(), Code::OutOfRange);
}

struct Subscriber {
    say: mpsc::Sender<SubscribeAckedRequest>,
    facts: Streaming<OrderEvent>,
}

impl Subscriber {
    async fn open(client: &mut Client, consumer: &str, from_seq: u64) -> Self {
        let (say, said) = mpsc::channel(64);
        let open = Open {
            consumer: consumer.to_owned(),
            from_seq,
            types: Vec::new(),
        };
        let this = say.send(SubscribeAckedRequest {
            message: Some(Message::Open(open)),
        });
        this.await.expect("room");
        let facts = client
            .subscribe_acked(ReceiverStream::new(said))
            .await
            .expect("open");
        Self {
            say,
            facts: facts.into_inner(),
        }
    }

    async fn say(&self, message: Message) {
        let message = Some(message);
        let said = self.say.send(SubscribeAckedRequest { message }).await;
        said.expect("the stream is open");
    }
}

#[tokio::test]
async fn a_subscriber_with_credits_gets_exactly_what_it_requested() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 60).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut subscriber = Subscriber::open(&mut client, "me", 0).await;
    nothing_comes(&mut subscriber.facts).await;
    let (mut requested, mut received) = (0, 0);
    while requested < 50 {
        let requests = random.u32(1..3);
        for _ in 0..requests {
            let count = random.u32(1..6);
            subscriber.say(Message::RequestN(count)).await;
            requested += count;
        }
        while received < requested {
            received += 1;
            assert_eq!(next(&mut subscriber.facts).await, u64::from(received));
        }
        nothing_comes(&mut subscriber.facts).await;
    }
}

#[tokio::test]
async fn a_consumer_continues_after_its_last_ack() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 5).await;
    let mut first = Subscriber::open(&mut client, "me", 0).await;
    first.say(Message::RequestN(4)).await;
    for seq in 1..=4 {
        assert_eq!(next(&mut first.facts).await, seq);
    }
    first.say(Message::Ack(2)).await;
    first.say(Message::RequestN(1)).await;
    // It comes after the ack, and so the ack was heard.
    assert_eq!(next(&mut first.facts).await, 5);
    drop(first);
    for (consumer, from_seq, expected) in [("me", 0, 3), ("you", 0, 1), ("me", 5, 5)] {
        let mut again = Subscriber::open(&mut client, consumer, from_seq).await;
        again.say(Message::RequestN(1)).await;
        assert_eq!(next(&mut again.facts).await, expected, "{consumer}");
    }
}

#[tokio::test]
async fn a_subscriber_that_breaks_the_rules_is_told_which() {
    let (_folder, _served, mut client) = log().await;
    for (message, word) in [
        (Some(Message::RequestN(0)), "request_n"),
        (Some(Message::Open(Open::default())), "open"),
        (None, "nothing"),
    ] {
        let mut subscriber = Subscriber::open(&mut client, "me", 0).await;
        let said = subscriber.say.send(SubscribeAckedRequest { message }).await;
        said.expect("the stream is open");
        let status = subscriber.facts.message().await.expect_err(word);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(word), "{status}");
    }
    let no_open = tokio_stream::iter([SubscribeAckedRequest {
        message: Some(Message::RequestN(1)),
    }]);
    let status = client.subscribe_acked(no_open).await.expect_err("no open");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_ack_of_what_was_not_sent_is_refused_and_skips_nothing() {
    let (_folder, _served, mut client) = log().await;
    fill(&mut client, 5).await;
    for (consumer, ack) in [("me", 3), ("you", 5), ("they", u64::MAX)] {
        let mut subscriber = Subscriber::open(&mut client, consumer, 0).await;
        subscriber.say(Message::RequestN(2)).await;
        for seq in [1, 2] {
            assert_eq!(next(&mut subscriber.facts).await, seq);
        }
        // Again, and backwards, is no mistake.
        for ack in [2, 2, 1, 0, ack] {
            subscriber.say(Message::Ack(ack)).await;
        }
        let status = subscriber.facts.message().await.expect_err(consumer);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("3 is not sent yet"), "{status}");
        let mut again = Subscriber::open(&mut client, consumer, 0).await;
        again.say(Message::RequestN(1)).await;
        assert_eq!(next(&mut again.facts).await, 3, "{consumer}");
    }
}

#[tokio::test]
async fn a_type_that_there_is_not_is_refused_in_place_of_never_coming() {
    let (_folder, _served, mut client) = log().await;
    for number in [0, 9, 19, -1, i32::MAX] {
        let request = SubscribeRequest {
            from_seq: 0,
            types: vec![FactType::OrderPlaced as i32, number],
        };
        let refusal = client.subscribe(request).await.expect_err("no such type");
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains(&number.to_string()), "{refusal}");
    }
}

#[tokio::test]
async fn a_subscriber_that_says_nothing_does_not_keep_a_drain_waiting() {
    let (_folder, served, mut client) = log().await;
    let (_say, said) = mpsc::channel(1);
    let mut silent = client.clone();
    let mut opening = std::pin::pin!(silent.subscribe_acked(ReceiverStream::new(said)));
    // One connection: what was asked first is there once this is answered.
    tokio::select! {
        biased;
        _ = &mut opening => panic!("it says nothing, and is answered"),
        appended = client.append(append("o", 0, &["k"])) => { appended.expect("appended"); }
    }
    served.stop.send(()).expect("running");
    let refusal = timeout(PATIENCE, opening).await.expect("in time");
    assert_eq!(refusal.expect_err("no stream").code(), Code::Unavailable);
    let ended = timeout(PATIENCE, served.ended).await.expect("in time");
    ended.expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_drain_ends_the_streams_without_an_error_and_the_service_after_them() {
    let (_folder, served, mut client) = log().await;
    fill(&mut client, 1).await;
    let stream = client.subscribe(SubscribeRequest::default()).await;
    let mut stream = stream.expect("open").into_inner();
    let mut subscriber = Subscriber::open(&mut client, "me", 0).await;
    assert_eq!(next(&mut stream).await, 1);
    served.stop.send(()).expect("running");
    for stream in [&mut stream, &mut subscriber.facts] {
        let end = timeout(PATIENCE, stream.message()).await.expect("in time");
        assert!(end.expect("no error").is_none());
    }
    let ended = timeout(PATIENCE, served.ended).await.expect("in time");
    ended.expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_message_as_large_as_may_be_appended_can_be_read() {
    let (_folder, _served, mut client) = log().await;
    let mut request = append("o", 0, &[]);
    request.events = vec![event("k", &"x".repeat(60_000))];
    client.append(request).await.expect("below the limit");
    let events = all(&mut client).await;
    assert_eq!(events.len(), 1);
    let mut request = append("o", 1, &[]);
    request.events = vec![event("l", &"x".repeat(70_000))];
    client.append(request).await.expect_err("above the limit");
}
