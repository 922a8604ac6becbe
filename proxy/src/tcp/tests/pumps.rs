//! The two ways to move bytes: they differ in cost and in nothing else.

use proptest::prelude::{ProptestConfig, proptest};

use super::*;

#[tokio::test]
async fn an_idle_direction_owns_no_buffer_and_no_pipe() {
    let ((mut client, mut downstream), (mut upstream, mut server)) = (pair().await, pair().await);
    let (mut copy, mut splice) = (
        Copy::after(Bytes::from(vec![1; 9])),
        Splice::after(Bytes::from(vec![1; 9])),
    );
    for _ in 0..2 {
        let mut moved = 0;
        client.write_all(&[1; 100]).await.expect("write");
        downstream.readable().await.expect("readable");
        poll_fn(|cx| {
            Poll::Ready(
                copy.poll_pump(cx, &mut downstream, &mut upstream, &mut moved)
                    .is_pending(),
            )
        })
        .await;
        client.write_all(&[1; 100]).await.expect("write");
        downstream.readable().await.expect("readable");
        poll_fn(|cx| {
            Poll::Ready(
                splice
                    .poll_pump(cx, &mut downstream, &mut upstream, &mut moved)
                    .is_pending(),
            )
        })
        .await;
        assert!(moved >= 200, "{moved}");
        server
            .read_exact(&mut vec![0; moved as usize])
            .await
            .expect("arrived");
        assert!(copy.holds_nothing() && splice.holds_nothing());
    }
    let forwarding = forward_plain(downstream, upstream, LONG, Bytes::new());
    assert!(
        size_of_val(&forwarding) < 1024,
        "{} bytes",
        size_of_val(&forwarding)
    );
}

/// A question and its answer took three calls of splice a direction.
#[tokio::test]
async fn little_is_copied_and_much_goes_through_the_kernel() {
    let ((mut client, mut downstream), (mut upstream, mut server)) = (pair().await, pair().await);
    let mut splice = Splice::default();
    // As much as the buffers of two sockets hold.
    for (bytes, was_bulk, is_bulk) in [
        (100, false, false),
        (60_000, false, true),
        (100, true, false),
        (100, false, false),
    ] {
        assert_eq!(splice.is_bulk(), was_bulk);
        client.write_all(&pattern(bytes)).await.expect("write");
        let mut moved = 0;
        while moved < bytes as u64 {
            downstream.readable().await.expect("readable");
            let pumped = poll_fn(|cx| {
                Poll::Ready(splice.poll_pump(cx, &mut downstream, &mut upstream, &mut moved))
            });
            assert!(pumped.await.is_pending());
        }
        let mut arrived = vec![0; bytes];
        server.read_exact(&mut arrived).await.expect("arrived");
        assert_eq!(arrived, pattern(bytes));
        assert!(splice.holds_nothing());
        assert_eq!(splice.is_bulk(), is_bulk, "after {bytes} bytes");
    }
}

/// A direction that cannot have a pipe copies.
#[tokio::test]
async fn without_a_pipe_it_copies() {
    let ((mut client, mut downstream), (mut upstream, mut server)) = (pair().await, pair().await);
    let (up, down) = (Splice::without_pipes(), Splice::without_pipes());
    let forwarder =
        tokio::spawn(async move { run(&mut downstream, &mut upstream, up, down, PATIENCE).await });
    client.write_all(b"over").await.expect("write");
    drop(client);
    assert_eq!(read_all(&mut server).await.expect("until EOF"), b"over");
    drop(server);
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

/// What both peers read when each writes `chunks` with a pause behind each, and then closes its half.
async fn exchange(way: Way, chunks: [Vec<usize>; 2]) -> (Vec<Vec<u8>>, u64, u64) {
    let Forwarded {
        client,
        server,
        forwarder,
    } = forwarded(way, b"prefix").await;
    let peers = [client, server]
        .into_iter()
        .zip(chunks)
        .map(|(stream, chunks)| {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let writing = async move {
                    for bytes in chunks {
                        writer.write_all(&pattern(bytes)).await.expect("write");
                        tokio::task::yield_now().await;
                    }
                    writer.shutdown().await.expect("half-close");
                };
                let mut all = Vec::new();
                let (_, read) = tokio::join!(writing, reader.read_to_end(&mut all));
                read.expect("until EOF");
                all
            })
        });
    let mut read = Vec::new();
    for peer in peers.collect::<Vec<_>>() {
        read.push(peer.await.expect("no panic"));
    }
    let Transferred {
        sent,
        received,
        end,
    } = forwarder.await.expect("no panic");
    assert!(matches!(end, End::Closed), "{way:?}: {end:?}");
    (read, sent, received)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn splice_does_what_copy_does(
        up in proptest::collection::vec(0usize..200_000, 0..8),
        down in proptest::collection::vec(0usize..200_000, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let copied = exchange(Way::Copy, [up.clone(), down.clone()]).await;
            let spliced = exchange(Way::Splice, [up.clone(), down.clone()]).await;
            let expected = |chunks: &[usize]| chunks.iter().flat_map(|bytes| pattern(*bytes)).collect::<Vec<_>>();
            assert!(copied.0 == [expected(&down), [b"prefix", &expected(&up)[..]].concat()], "intact");
            assert!(copied == spliced, "the same bytes and the same counts");
        });
    }
}
