//! A reader that is slow holds its sender back.

use super::*;

/// How much `writer` takes until it is blocked.
async fn fill(writer: &mut (impl AsyncWrite + Unpin)) -> usize {
    let chunk = vec![7; 4096];
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(200), writer.write(&chunk)).await {
        assert!(taken < 64 << 20, "nothing blocks the sender");
        taken += written.expect("write");
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_blocks_the_sender_after_one_buffer() {
    const EDGE: usize = 1000; // what each duplex stream holds by itself
    let ((mut client, downstream), (upstream, mut server)) = (duplex(EDGE), duplex(EDGE));
    let forwarder = tokio::spawn(forward(downstream, upstream, LONG, Bytes::new()));
    let taken = fill(&mut client).await;
    assert!(
        taken <= 2 * EDGE + crate::piece::PIECE_BYTES,
        "{taken} bytes are somewhere inside"
    );

    drop(client);
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.expect("EOF");
    assert_eq!(all.len(), taken, "and nothing is lost");
    drop(server);
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

#[tokio::test]
async fn a_slow_reader_blocks_the_sender_through_the_kernel_too() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"").await;
        let taken = fill(&mut client).await;
        // Four socket buffers by Linux's defaults, and one pipe.
        assert!(
            taken < 32 << 20,
            "{way:?}: {taken} bytes are somewhere inside"
        );
        client.shutdown().await.expect("half-close");
        assert_eq!(
            read_all(&mut server).await.expect("until EOF").len(),
            taken,
            "{way:?}"
        );
        drop((client, server));
        forwarder.await.expect("no panic");
    }
}
