//! How long silence may last.

use super::*;

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_for_the_idle_timeout_ends_it() {
    let ((mut client, downstream), (upstream, mut server)) = (duplex(64), duplex(64));
    let idle_timeout = Duration::from_secs(10);
    let forwarder = tokio::spawn(forward(downstream, upstream, idle_timeout, Bytes::new()));
    let start = Instant::now();
    for _ in 0..5 {
        sleep(Duration::from_secs(7)).await;
        server.write_all(b"tick").await.expect("still there");
        client
            .read_exact(&mut [0; 4])
            .await
            .expect("one direction is enough");
    }
    let transferred = forwarder.await.expect("no panic");
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
    assert_eq!(start.elapsed().as_secs(), 5 * 7 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_is_not_kept_forever() {
    let ((client, downstream), (upstream, _server)) = (duplex(64), duplex(64));
    drop(client);
    let transferred = forward(downstream, upstream, Duration::from_secs(10), Bytes::new()).await;
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_timeout_there_is_means_none() {
    let ((client, downstream), (upstream, server)) = (duplex(64), duplex(64));
    let forwarder = tokio::spawn(forward(downstream, upstream, Duration::MAX, Bytes::new()));
    sleep(LONG).await;
    drop((client, server));
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

#[tokio::test]
async fn an_idle_timeout_is_a_reset_to_both_peers() {
    let ((mut client, downstream), (upstream, mut server)) = (pair().await, pair().await);
    let idle_timeout = Duration::from_millis(50);
    let transferred = forward_plain(
        downstream,
        upstream,
        idle_timeout,
        Bytes::from_static(b"half"),
    )
    .await;
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
    for peer in [&mut client, &mut server] {
        let error = read_all(peer).await.expect_err("a cut stream has no EOF");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
