use super::*;

/// One connection, to a peer that never says anything.
async fn silent() -> (Connections, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (sender, _) = h2::client::handshake(near).await.expect("a preface fits");
    let http2 = Http2 {
        sender,
        streams: Arc::new(Streams::new(INITIAL_STREAMS)),
    };
    let connections = Connections {
        http2: vec![http2],
        ..Connections::default()
    };
    (connections, far)
}

#[tokio::test]
async fn a_connection_on_which_three_requests_in_a_row_were_given_up_gets_no_more() {
    let (mut connections, _far) = silent().await;
    for _ in 0..UNANSWERED_MAX {
        drop(connections.roomy().expect("there is room"));
    }
    assert!(connections.roomy().is_none());
}

#[tokio::test]
async fn an_answer_in_between_shows_that_it_leads_somewhere() {
    let (mut connections, _far) = silent().await;
    for _ in 0..10 {
        drop(connections.roomy().expect("there is room"));
        drop(connections.roomy().expect("there is room"));
        let (_, mut slot) = connections.roomy().expect("there is room");
        slot.answered();
    }
}
