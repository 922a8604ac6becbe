use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tower::service_fn;

use super::*;
use crate::drain;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n";

fn connection(target: Target) -> Connection {
    Connection {
        target,
        service: "app".into(),
        worker: 0,
        caller: None,
    }
}

/// An app that answers everything with nothing.
fn app() -> Target {
    Target::App(Stack::new(service_fn(
        |_: Box<crate::request::Request>| async { Ok(Response::new(Body::empty())) },
    )))
}

/// A caller of `app`, and what its connection comes to.
fn caller() -> (DuplexStream, JoinHandle<Result<(), String>>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async move {
        let (_signal, drain) = drain::channel();
        let served = serve(far, Protocol::Http1, connection(app()), drain).await;
        served.map_err(|error| error.to_string())
    };
    (near, tokio::spawn(serving))
}

async fn answered(caller: &mut DuplexStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = caller.read_buf(&mut answer).await.expect("it is read");
        assert_ne!(read, 0, "it ended");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

fn about(found: Duration, expected: u64) {
    let seconds = found.as_secs_f64();
    assert!((seconds - expected as f64).abs() < 0.5, "{seconds} s");
}

/// After ten seconds it was closed, and counted as a rejection; the app's next request met that.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_five_minutes_and_its_end_is_no_rejection() {
    let (mut caller, serving) = caller();
    for _ in 0..3 {
        caller.write_all(REQUEST).await.expect("it is open");
        answered(&mut caller).await;
        tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    }
    let before = Instant::now();
    assert_eq!(serving.await.expect("no panic"), Ok(()));
    about(before.elapsed(), 60);
    assert_eq!(caller.read_u8().await.map_err(|e| e.kind()), Err(std::io::ErrorKind::UnexpectedEof));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_has_ten_seconds_also_after_a_minute_of_silence() {
    for requests in 0..3 {
        let (mut caller, serving) = caller();
        for _ in 0..requests {
            caller.write_all(REQUEST).await.expect("it is open");
            answered(&mut caller).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let trickling = tokio::spawn(async move {
            let begun = Instant::now();
            for byte in REQUEST {
                if caller.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            begun
        });
        let served = serving.await.expect("no panic");
        assert!(served.is_err(), "a slow head is refused");
        let ended = Instant::now();
        about(ended - trickling.await.expect("no panic"), 10);
    }
}
