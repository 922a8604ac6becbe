//! Who is at the other end: bytes in clear, or within mutual TLS.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::OPAQUE_IDLE;
use crate::ahead::ReadAhead;
use crate::tcp::{self, Cut};

pub(super) trait Downstream: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static {
    const MUTUAL_TLS: bool;

    fn tcp(&self) -> &TcpStream;

    /// Carries bytes until both are done. When one of them breaks, or `cut` says so, both are reset.
    fn carry(
        self,
        upstream: TcpStream,
        prefix: Bytes,
        cut: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = ()> + Send;
}

impl Downstream for TcpStream {
    const MUTUAL_TLS: bool = false;

    fn tcp(&self) -> &TcpStream {
        self
    }

    async fn carry(self, upstream: TcpStream, prefix: Bytes, cut: impl Future<Output = ()> + Send) {
        tcp::forward_plain_until(self, upstream, OPAQUE_IDLE, prefix, cut).await;
    }
}

impl Downstream for TlsStream<ReadAhead<TcpStream>> {
    const MUTUAL_TLS: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.get_ref()
    }

    async fn carry(
        mut self,
        mut upstream: TcpStream,
        prefix: Bytes,
        cut: impl Future<Output = ()> + Send,
    ) {
        let end = tokio::select! {
            biased;
            () = cut => None,
            ended = tcp::forward(&mut self, &mut upstream, OPAQUE_IDLE, prefix) => Some(ended.end),
        };
        if !matches!(end, Some(tcp::End::Closed)) {
            tcp::reset(&upstream);
            tcp::reset(self.tcp());
        }
    }
}
