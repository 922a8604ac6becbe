//! The cart as its callers see it, over real sockets.

#[allow(dead_code, reason = "each test binary uses its share")]
mod support;

use std::time::Duration;

use boutique_cart::pb::{AddItemRequest, EmptyCartRequest, GetCartRequest, GetCartResponse};
use boutique_cart::store::PRODUCTS_PER_CART_MAX;
use boutique_chassis::pb::Knobs;
use boutique_chassis::pb::chaos_client::ChaosClient;
use support::{Cart, INSTALL, Redis, add, channel, item};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn behaves_like_a_cart(cart: &Cart) {
    let mut client = cart.client().await;
    let nobody = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let empty = client
        .get_cart(nobody.clone())
        .await
        .expect("an unknown user")
        .into_inner();
    assert_eq!((empty.user_id.as_str(), empty.items.len()), ("alice", 0));

    for (product, quantity) in [("mug", 1), ("candle", 2), ("mug", 3)] {
        client
            .add_item(add("alice", product, quantity))
            .await
            .expect("added");
    }
    client
        .add_item(add("bob", "loafers", 1))
        .await
        .expect("added");
    let cart = client
        .get_cart(nobody.clone())
        .await
        .expect("alice's cart")
        .into_inner();
    assert_eq!(cart.items, [item("candle", 2), item("mug", 4)]);

    let alice = EmptyCartRequest {
        user_id: "alice".to_owned(),
    };
    client.empty_cart(alice.clone()).await.expect("emptied");
    client.empty_cart(alice).await.expect("emptied twice");
    let cart = client
        .get_cart(nobody)
        .await
        .expect("alice's cart")
        .into_inner();
    assert_eq!(cart.items, []);
    let bobs = GetCartRequest {
        user_id: "bob".to_owned(),
    };
    let cart = client
        .get_cart(bobs)
        .await
        .expect("bob's cart")
        .into_inner();
    assert_eq!(
        cart.items,
        [item("loafers", 1)],
        "bob's cart is not alice's"
    );

    for number in 0..PRODUCTS_PER_CART_MAX {
        client
            .add_item(add("carol", &format!("p{number}"), 9_999))
            .await
            .expect("added");
    }
    for (product, quantity) in [("one-more", 1), ("p0", 2)] {
        let full = client
            .add_item(add("carol", product, quantity))
            .await
            .expect_err("full");
        assert_eq!(full.code(), Code::FailedPrecondition, "{full}");
    }
    client
        .add_item(add("carol", "p0", 1))
        .await
        .expect("exactly the limit");
}

#[tokio::test]
async fn carts_in_memory_behave() {
    behaves_like_a_cart(&Cart::start(&[]).await).await;
}

#[tokio::test]
async fn carts_in_redis_behave_the_same() {
    let redis = Redis::start().await;
    behaves_like_a_cart(&Cart::start(&[("REDIS_ADDR", &redis.addr)]).await).await;
}

#[tokio::test]
async fn carts_in_redis_outlive_the_service() {
    let redis = Redis::start().await;
    let first = Cart::start(&[("REDIS_ADDR", &redis.addr)]).await;
    first
        .client()
        .await
        .add_item(add("alice", "mug", 1))
        .await
        .expect("added");
    first.ended.abort();
    let second = Cart::start(&[("REDIS_ADDR", &redis.addr)]).await;
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let cart = second
        .client()
        .await
        .get_cart(request)
        .await
        .expect("kept")
        .into_inner();
    assert_eq!(cart.items, [item("mug", 1)]);
}

#[tokio::test]
async fn a_dead_redis_fails_calls_at_once_and_a_new_one_is_found() {
    let redis = Redis::start().await;
    let cart = Cart::start(&[("REDIS_ADDR", &redis.addr)]).await;
    let mut client = cart.client().await;
    client
        .add_item(add("alice", "mug", 1))
        .await
        .expect("added");

    let port = redis.kill().await;
    for _ in 0..20 {
        let start = Instant::now();
        let status = client
            .add_item(add("alice", "mug", 1))
            .await
            .expect_err("no redis");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(
            start.elapsed() < Duration::from_millis(200),
            "{:?}",
            start.elapsed()
        );
    }

    let _redis = Redis::start_at(port).await;
    let patience = Instant::now() + Duration::from_secs(3);
    while let Err(status) = client.add_item(add("alice", "mug", 5)).await {
        assert!(Instant::now() < patience, "still {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_restarted_redis_costs_no_call() {
    let redis = Redis::start().await;
    let cart = Cart::start(&[("REDIS_ADDR", &redis.addr)]).await;
    let mut client = cart.client().await;
    client
        .add_item(add("alice", "mug", 1))
        .await
        .expect("added");
    let _redis = Redis::start_at(redis.kill().await).await;
    // Nobody called meanwhile, so the lost connection was noticed by its reader, not by a failed call.
    client
        .add_item(add("alice", "mug", 1))
        .await
        .expect("added on a new connection");
}

/// As where a machine is busy with something else. It waited for half a second, and the page said that there is no cart.
#[tokio::test]
async fn a_redis_that_is_slow_for_a_moment_costs_no_call() {
    let redis = Redis::start().await;
    let cart = Cart::start(&[("REDIS_ADDR", redis.addr.as_str())]).await;
    let mut client = cart.client().await;
    let added = client.add_item(add("alice", "mug", 1)).await;
    added.expect("it is well");
    redis.signal(rustix::process::Signal::STOP);
    let thaw = async {
        sleep(Duration::from_millis(800)).await;
        redis.signal(rustix::process::Signal::CONT);
    };
    let (added, ()) = tokio::join!(client.add_item(add("alice", "mug", 2)), thaw);
    added.expect("it was waited for");
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let lines = client.get_cart(request).await.expect("it is well");
    assert_eq!(lines.into_inner().items, [item("mug", 3)]);
}

#[tokio::test]
async fn a_frozen_redis_costs_a_bounded_wait_and_is_used_again_once_it_thaws() {
    let redis = Redis::start().await;
    let variables = [
        ("REDIS_ADDR", redis.addr.as_str()),
        ("REDIS_TIMEOUT_MS", "1000"),
    ];
    let cart = Cart::start(&variables).await;
    let mut client = cart.client().await;
    client
        .add_item(add("alice", "mug", 1))
        .await
        .expect("added");

    redis.signal(rustix::process::Signal::STOP);
    let start = Instant::now();
    let status = client
        .add_item(add("alice", "mug", 1))
        .await
        .expect_err("frozen");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );

    redis.signal(rustix::process::Signal::CONT);
    let patience = Instant::now() + Duration::from_secs(3);
    while let Err(status) = client.add_item(add("alice", "mug", 1)).await {
        assert!(Instant::now() < patience, "still {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn redis_server_is_installed() {
    let version = std::process::Command::new("redis-server")
        .arg("--version")
        .output();
    assert!(
        version.is_ok_and(|output| output.status.success()),
        "{INSTALL}"
    );
}

/// A call by path, as a caller with Online Boutique's generated code would make it.
async fn call_by_path<Answer: Default + prost::Message + 'static>(
    channel: Channel,
    path: &'static str,
    request: impl prost::Message + 'static,
) -> Result<Answer, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("the channel is connected");
    let codec = tonic_prost::ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(request), path, codec).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_alias_of_online_boutique_reaches_the_same_carts() {
    let cart = Cart::start(&[]).await;
    let channel = cart.channel().await;
    let path = "/hipstershop.CartService/AddItem";
    let added: Result<(), _> = call_by_path(channel.clone(), path, add("alice", "mug", 2)).await;
    added.expect("added through the alias");
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let mut client = cart.client().await;
    let native = client
        .get_cart(request.clone())
        .await
        .expect("native")
        .into_inner();
    assert_eq!(native.items, [item("mug", 2)]);
    let path = "/hipstershop.CartService/GetCart";
    let alias: GetCartResponse = call_by_path(channel.clone(), path, request)
        .await
        .expect("alias");
    assert_eq!(alias, native);
    let path = "/hipstershop.CartService/Checkout";
    let unknown: Result<(), _> = call_by_path(channel, path, add("alice", "mug", 2)).await;
    assert_eq!(
        unknown.expect_err("no such method").code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn what_is_no_cart_item_is_refused_as_the_callers_mistake() {
    let mut client = Cart::start(&[]).await.client().await;
    let missing = AddItemRequest {
        user_id: "alice".to_owned(),
        item: None,
    };
    for request in [
        missing,
        add("", "mug", 1),
        add("alice", "", 1),
        add("alice", "mug", 0),
    ] {
        let status = client.add_item(request).await.expect_err("invalid");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let huge = add("alice", &"x".repeat(100_000), 1);
    let status = client.add_item(huge).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn knobs_are_set_on_loopback_and_answered_with_what_is_in_force() {
    let cart = Cart::start(&[]).await;
    let addr = cart.chaos;
    assert!(addr.ip().is_loopback());
    let mut knobs = ChaosClient::new(channel(addr).await);
    let failing = Knobs {
        error_pct: 100,
        code: Code::DataLoss as i32,
        ..Default::default()
    };
    let in_force = knobs.set(failing).await.expect("valid").into_inner();
    assert_eq!(in_force, failing);

    let mut client = cart.client().await;
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let status = client
        .get_cart(request.clone())
        .await
        .expect_err("all calls fail");
    assert_eq!(status.code(), Code::DataLoss);

    let invalid = Knobs {
        error_pct: 101,
        ..Default::default()
    };
    let status = knobs.set(invalid).await.expect_err("more than all calls");
    assert_eq!(status.code(), Code::InvalidArgument);
    knobs.set(Knobs::default()).await.expect("valid");
    client.get_cart(request).await.expect("no fault any more");
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client.check(request).await.expect("a known service");
    answer.into_inner().status()
}

#[tokio::test]
async fn draining_says_so_first_then_finishes_what_runs_and_ends() {
    // Time enough to connect after the first word of it, and calls that take longer than that.
    let variables = [("LATENCY_MS", "2500"), ("DRAIN_DELAY_MS", "2000")];
    let cart = Cart::start(&variables).await;
    let mut health = HealthClient::new(cart.channel().await);
    for name in ["", "boutique.v1.Cart", "hipstershop.CartService"] {
        assert_eq!(
            check(&mut health, name).await,
            ServingStatus::Serving,
            "{name:?}"
        );
    }
    let everything = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = health
        .watch(everything)
        .await
        .expect("watched")
        .into_inner();
    let first = watch
        .next()
        .await
        .expect("the state now")
        .expect("no error");
    assert_eq!(first.status(), ServingStatus::Serving);

    cart.stop.send(()).expect("running");
    let second = watch.next().await.expect("the change").expect("no error");
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert_eq!(
        check(&mut health, "boutique.v1.Cart").await,
        ServingStatus::NotServing
    );

    // Whoever has not noticed yet may still connect and call; the call outlives the GOAWAY.
    let mut late = boutique_cart::pb::cart_client::CartClient::new(channel(cart.addr).await);
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    late.get_cart(request)
        .await
        .expect("accepted while draining, finished after");
    let patience = Duration::from_secs(8); // its grace is 10 s
    let ended = timeout(patience, cart.ended)
        .await
        .expect("an open watch does not keep it alive");
    ended.expect("no panic").expect("no error");
    assert!(
        TcpStream::connect(cart.addr).await.is_err(),
        "still listening"
    );
}

#[tokio::test]
async fn a_frozen_call_does_not_keep_a_drain_from_ending() {
    let variables = [
        ("FREEZE", "true"),
        ("DRAIN_DELAY_MS", "0"),
        ("DRAIN_SECONDS", "1"),
    ];
    let cart = Cart::start(&variables).await;
    let mut client = cart.client().await;
    let request = GetCartRequest {
        user_id: "alice".to_owned(),
    };
    let frozen = tokio::spawn(async move { client.get_cart(request).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!frozen.is_finished());
    cart.stop.send(()).expect("running");
    let ended = timeout(Duration::from_secs(10), cart.ended)
        .await
        .expect("bounded");
    ended.expect("no panic").expect("no error");
}
