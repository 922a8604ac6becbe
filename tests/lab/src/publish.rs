//! A port of a Service on the machine's own loopback. The listening socket was made outside, by
//! the process that started the lab; a socket stays in the network it was made in.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

pub async fn relay(listener: TcpListener, to: SocketAddr) {
    loop {
        let Ok((mut outside, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            // What fails here is seen outside as a connection that closes.
            if let Ok(mut inside) = TcpStream::connect(to).await {
                let _ = outside.set_nodelay(true);
                let _ = inside.set_nodelay(true);
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
