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

#[tokio::test(start_paused = true)]
async fn where_all_that_is_asked_comes_too_late_there_is_a_handshake_a_second_at_most() {
    let (mut connections, _far) = silent().await;
    let (other, _far) = silent().await;
    connections.http2.extend(other.http2);
    let mut give_up = |times: usize| {
        let given_up = (0..times).filter(|_| connections.roomy().is_some());
        given_up.count()
    };
    // Three on each; the first that is left opens the second no door, …
    assert_eq!(give_up(20), 20);
    tokio::time::advance(RETIRE_EVERY).await;
    // … until a second later.
    assert_eq!(give_up(20), 0);
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
