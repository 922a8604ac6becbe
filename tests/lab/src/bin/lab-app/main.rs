//! The app of the end to end tests: speaks what a sidecar must carry, on one port a protocol.
//!
//! | port | speaks |
//! |---|---|
//! | 8080 | HTTP/1.1: answers, bodies, WebSocket, any other upgrade (`http.rs`) |
//! | 8081 | HTTP/1.1 by hand: 103 Early Hints at once, the response a while later (`tcp.rs`) |
//! | 9090 | HTTP/2 without TLS: gRPC of every kind, and streams that never end (`grpc.rs`) |
//! | 9091 | the same, and misbehaves when it is told to (`poison.rs`) |
//! | 2525 | a greeting first, as SMTP and MySQL do, then echo |
//! | 7000 | echo, half-close passed on |
//! | 7001 | takes and never reads |
//!
//! It knows nothing of the mesh. `GET /ledger` on 8080 says how many bytes each stream has got rid of, or taken.

mod grpc;
mod http;
mod ledger;
mod poison;
mod relay;
mod tcp;

use std::process::ExitCode;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long requests that run at SIGTERM may go on.
const GRACE: Duration = Duration::from_secs(4);

/// False until the end begins.
pub(crate) type Ending = watch::Receiver<bool>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (end, ending) = watch::channel(false);
    listen(8080, &ending, http::serve).await?;
    listen(8081, &ending, tcp::hint).await?;
    listen(9090, &ending, grpc::serve).await?;
    listen(poison::PORT, &ending, poison::serve).await?;
    listen(2525, &ending, tcp::greet).await?;
    listen(7000, &ending, tcp::echo).await?;
    listen(7001, &ending, tcp::hold).await?;
    drop(ending);
    println!("listening");
    terminate.recv().await;
    // Listeners close, connections finish what they serve; each of them holds a receiver.
    end.send_replace(true);
    let _ = tokio::time::timeout(GRACE, end.closed()).await;
    Ok(ExitCode::SUCCESS)
}

/// Serves each connection with a task of its own, until the end begins.
async fn listen<F, S>(port: u16, ending: &Ending, serve: S) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(TcpStream, Ending) -> F + Send + 'static,
{
    let listener = TcpListener::bind(("::", port)).await?;
    let (of_connections, mut ending) = (ending.clone(), ending.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(serve(stream, of_connections.clone()));
                    }
                }
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    });
    Ok(())
}
