//! What a mirror gets.

use super::*;
use crate::exchange::Download;

fn mirrored(numerator: u32) -> Rule {
    let mut rule = rule(vec![to("app", 1)]);
    rule.mirrors = vec![snapshot::Mirror {
        to: key("shadow"),
        numerator,
        denominator: 100,
    }];
    rule
}

/// As a connection brings it: nobody keeps it yet.
async fn upload(path: &str) -> Box<Request> {
    let (near, far) = tokio::io::duplex(4096);
    let (near, far) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
    let ((mut sender, connection), mut far) = (near.expect("HTTP/2"), far.expect("HTTP/2"));
    tokio::spawn(connection);
    let asked = http::Request::post("http://front/").body(());
    let asked = sender.send_request(asked.expect("a request"), false);
    let (answer, mut sent) = asked.expect("it can be sent");
    sent.send_data("four".into(), true).expect("a body");
    let (arrived, respond) = far.accept().await.expect("a request").expect("whole");
    tokio::spawn(async move {
        let _open = (answer, respond);
        while far.accept().await.is_some() {}
    });
    let (head, body) = arrived.into_parts();
    request(
        "POST",
        path,
        Body::download(Download::new(body, &head.headers)),
    )
}

#[tokio::test]
async fn a_copy_has_the_body_too_and_neither_delays_its_call_nor_fails_it() {
    let app = Server::answering("app", &[200]).await;
    let shadow = Server::start("shadow", &[503], Duration::from_secs(2)).await;
    let mut dispatch = dispatch(mirrored(100), &[&app, &shadow]);
    let begun = Instant::now();
    for request in [get("/a/1"), post("/a/2")] {
        let answer = dispatch.call(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "nobody waits for the copies"
    );
    until("both copies arrive", || shadow.asked().len() == 2).await;
    let mut copies = shadow.asked();
    copies.sort();
    assert!(copies[0].starts_with("GET /a/1"), "{copies:?}");
    assert!(
        copies[1].starts_with("POST /a/2") && copies[1].ends_with("four"),
        "{copies:?}"
    );
    assert!(
        copies.iter().all(|it| it.contains("x-weir-attempt")),
        "{copies:?}"
    );
    assert!(!app.asked().iter().any(|it| it.contains("x-weir-attempt")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        shadow.asked().len(),
        2,
        "a copy that failed is not made again"
    );
}

/// The first of them took what was kept of the body with it.
#[tokio::test]
async fn a_copy_for_who_is_gone_costs_no_other_its_body() {
    let app = Server::answering("app", &[200]).await;
    let twin = Server::answering("twin", &[200]).await;
    let mut rule = mirrored(100);
    let to = |name: &str| snapshot::Mirror {
        to: key(name),
        ..rule.mirrors[0].clone()
    };
    rule.mirrors = vec![to("gone"), to("twin")];
    let mut dispatch = dispatch(rule, &[&app, &twin]);
    dispatch.call(upload("/a").await).await.expect("an answer");
    until("the other copy arrives", || twin.asked().len() == 1).await;
    assert!(twin.asked()[0].ends_with("four"));
}

/// A copy that waits for the body of its call was late before it was made.
#[tokio::test]
async fn a_copy_has_its_own_time_from_when_it_is_made() {
    let app = Server::start("app", &[200], Duration::from_millis(600)).await;
    let shadow = Server::answering("shadow", &[200]).await;
    let mut hasty = service("shadow");
    hasty.outbound.deadline = Some(units::Duration::from_millis(500));
    shadow.backend.reconfigure(&hasty);
    let mut dispatch = dispatch(mirrored(100), &[&app, &shadow]);
    let answer = dispatch.call(post("/a")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    until("the copy arrives", || shadow.asked().len() == 1).await;
}

/// Its time had begun with its call's: with a body it goes out after the answer, when little of it was left.
#[tokio::test]
async fn a_copy_has_as_much_time_as_its_call_had_however_late_it_goes_out() {
    let app = Server::start("app", &[200], Duration::from_millis(1500)).await;
    let late = Server::start("late", &[200], Duration::from_millis(1000)).await;
    let mut rule = mirrored(100);
    rule.mirrors[0].to = key("late");
    rule.deadline = Some(Timeout::After(units::Duration::from_secs(2)));
    let mut dispatch = dispatch(rule, &[&app, &late]);
    let answer = dispatch.call(post("/a")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let metrics = crate::telemetry::MirrorMetrics::new(
        "dispatch/front:80",
        "HTTPRoute dispatch/it rules[0]",
        "dispatch/late:80",
    );
    until("it has ended", || {
        metrics.answered.get() + metrics.failed.get() == 1
    })
    .await;
    assert_eq!((metrics.answered.get(), metrics.failed.get()), (1, 0));
}

#[tokio::test]
async fn no_more_than_64_copies_are_under_way_and_the_rest_is_left_out_and_counted() {
    let app = Server::answering("app", &[200]).await;
    let shadow = Server::start("shadow", &[200], Duration::from_secs(3600)).await;
    let mut dispatch = dispatch(mirrored(100), &[&app, &shadow]);
    for _ in 0..80 {
        let answer = dispatch.call(get("/a")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    until("they are under way", || shadow.asked().len() == 64).await;
    let metrics = crate::telemetry::MirrorMetrics::new(
        "dispatch/front:80",
        "HTTPRoute dispatch/it rules[0]",
        "dispatch/shadow:80",
    );
    until("the rest is counted", || metrics.left_out.get() == 16).await;
}

#[tokio::test]
async fn a_share_of_none_copies_nothing() {
    let app = Server::answering("app", &[200]).await;
    let shadow = Server::answering("shadow", &[200]).await;
    let mut dispatch = dispatch(mirrored(0), &[&app, &shadow]);
    for _ in 0..20 {
        dispatch.call(get("/a")).await.expect("an answer");
    }
    assert!(shadow.asked().is_empty());
}
