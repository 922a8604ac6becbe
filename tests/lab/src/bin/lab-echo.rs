//! The app of the lab's own tests: an HTTP server that says which pod it is, and can be told to
//! behave badly.
//!
//! `lab-echo PORT`; paths: `/` the pod's name, `/env/NAME` a variable, `/file/PATH` a file,
//! `/crash` exit code 3, `/sick` unhealthy from now on, `/health` 200 until then. With
//! `TERM_MILLISECONDS` it goes on for that long after SIGTERM; with `JOURNAL` it writes down there
//! when its end began and was reached, as `NAME`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

static SICK: AtomicBool = AtomicBool::new(false);
/// Enough for the request heads of a test.
const HEAD_BYTES_MAX: usize = 8 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<ExitCode> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("usage: lab-echo PORT");
        return Ok(ExitCode::FAILURE);
    };
    let mut terminate = signal(SignalKind::terminate())?;
    // Both families where there are two.
    let listener = match TcpListener::bind(("::", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
    };
    println!("listening on {port}");
    let serve = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // A client that goes away is no news.
                    let _ = answer(stream).await;
                });
            }
        }
    };
    let end = async {
        terminate.recv().await;
        note("asked to end");
        let patience = std::env::var("TERM_MILLISECONDS").ok();
        let patience = patience.and_then(|text| text.parse().ok()).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(patience)).await;
    };
    tokio::select! {
        () = serve => {}
        () = end => note("ending"),
    }
    Ok(ExitCode::SUCCESS)
}

fn note(event: &str) {
    println!("{event}");
    if let (Ok(path), Ok(name)) = (std::env::var("JOURNAL"), std::env::var("NAME")) {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        // The test that reads it notices what is missing.
        let _ = file.and_then(|mut file| writeln!(file, "{name} {event}"));
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or("/");
    let (status, body) = respond(path);
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

fn respond(path: &str) -> (&'static str, String) {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if let Some(name) = path.strip_prefix("/env/") {
        return ("200 OK", variable(name));
    }
    if let Some(file) = path.strip_prefix("/file") {
        return match std::fs::read_to_string(file) {
            Ok(text) => ("200 OK", text),
            Err(error) => ("404 Not Found", error.to_string()),
        };
    }
    match path {
        "/crash" => std::process::exit(3),
        "/sick" => SICK.store(true, Ordering::Relaxed),
        "/health" if SICK.load(Ordering::Relaxed) => {
            return ("503 Service Unavailable", String::new());
        }
        _ => {}
    }
    ("200 OK", variable("HOSTNAME"))
}
