use http::Response;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::*;
use crate::ahead::ReadAhead;
use crate::error::Error;

const ADDRESS: &str = "10.0.0.1:80";

/// What is heard of an app that does this with each connection.
async fn heard<Done: Future<Output = ()> + Send + 'static>(
    app: impl Fn(TcpStream) -> Done + Send + 'static,
) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            app(stream).await;
        }
    });
    let stream = TcpStream::connect(address).await.expect("it listens");
    is_answered(Stream::Plain(ReadAhead::new(stream)), address).await
}

#[tokio::test]
async fn who_answers_or_closes_is_awake() {
    assert!(
        heard(|mut stream| async move {
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).await.expect("the question");
            assert!(asked[..length].starts_with(b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:"));
            let _ = stream.write_all(b"HTTP/1.1 405 \r\n\r\n").await;
        })
        .await
    );
    assert!(heard(async |stream| drop(stream)).await);
    // A server of HTTP/2 only: what it hears is no preface.
    assert!(
        heard(|stream| async move {
            let _ = h2::server::handshake(stream).await;
        })
        .await
    );
}

#[tokio::test]
async fn an_app_that_hangs_is_not() {
    assert!(
        !heard(|mut stream| async move {
            let mut asked = [0; 512];
            while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {}
        })
        .await
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stream = TcpStream::connect(address).await.expect("by the kernel");
    assert!(
        !is_answered(Stream::Plain(ReadAhead::new(stream)), address).await,
        "frozen"
    );
}

/// What is heard by way of a sidecar that gives this answer, or none.
async fn heard_by_way(answer: Option<Response<()>>) -> bool {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let sidecar = tokio::spawn(async move {
        let mut connection = h2::server::handshake(theirs).await.expect("a preface");
        let mut unanswered = Vec::new();
        while let Some(asked) = connection.accept().await {
            let Ok((request, mut respond)) = asked else {
                return;
            };
            assert_eq!(request.method(), Method::OPTIONS);
            assert_eq!(request.uri().path(), "*");
            match &answer {
                Some(answer) => {
                    respond.send_response(answer.clone(), true).expect("open");
                }
                None => unanswered.push(respond),
            }
        }
    });
    let address = ADDRESS.parse().expect("an address");
    let asked = by_way_of_its_sidecar(ours, address);
    let heard = tokio::time::timeout(Duration::from_millis(200), asked).await;
    sidecar.abort();
    heard.unwrap_or(false)
}

#[tokio::test]
async fn by_way_of_its_sidecar_the_app_counts_and_not_the_sidecar() {
    let answer =
        |name: &http::HeaderName| Response::builder().status(503).header(name, "1").body(());
    let plain = Response::builder().status(404).body(()).expect("a status");
    assert!(heard_by_way(Some(plain)).await);
    assert!(!heard_by_way(None).await);
    for own in [&head::UNPROCESSED, &head::OVERLOAD] {
        let own = answer(own).expect("a header");
        assert!(!heard_by_way(Some(own)).await, "no app has heard of it");
    }
    let denied = Error::Denied {
        service: "shop/server:80".into(),
        reason: "no rule allows it",
    };
    let denied = denied.into_response(false).map(drop);
    assert!(!heard_by_way(Some(denied)).await, "nor of this");
}
