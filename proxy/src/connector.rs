//! Getting a connection to an address: past the redirection, within a limit, and to nobody but who is expected.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ahead::ReadAhead;
use crate::error::ConnectError;
use crate::identity::{Identity, SpiffeId, spiffe_id};
use crate::socket;
use crate::tcp::{self, Cut};

/// For TCP and, again, for TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Connector {
    pub identity: Arc<Identity>,
    /// Put on sockets that the redirection must let pass, where the proxy has no user of its own.
    pub mark: Option<u32>,
}

/// A connection to an endpoint.
pub enum Stream {
    Plain(ReadAhead<TcpStream>),
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

impl Connector {
    pub async fn plain(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, socket::connect(address, self.mark)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ConnectError::Io {
                address,
                reason: error.to_string(),
            }),
            Err(_) => Err(ConnectError::Timeout {
                address,
                limit: CONNECT_TIMEOUT,
            }),
        }
    }

    /// Mutual TLS where the endpoint has an identity, plain text where it has none. There is no third way: an
    /// endpoint that should have one and cannot prove it gets no byte.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<&SpiffeId>,
        alpn: &[u8],
    ) -> Result<Stream, ConnectError> {
        let Some(expected) = expected else {
            let plain = self.plain(address).await?;
            return Ok(Stream::Plain(ReadAhead::new(plain)));
        };
        let credentials = self.identity.current().filter(|own| own.is_valid());
        let config = credentials.ok_or(ConnectError::NoCertificate)?.client(alpn);
        let tcp = ReadAhead::new(self.plain(address).await?);
        // No name is sent and none is judged: identity is what the certificate says, see below.
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let tls = match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                return Err(ConnectError::Tls {
                    address,
                    reason: error.to_string(),
                });
            }
            Err(_) => {
                return Err(ConnectError::Timeout {
                    address,
                    limit: CONNECT_TIMEOUT,
                });
            }
        };
        let (_, session) = tls.get_ref();
        let found = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map_or(Err("it showed no certificate"), spiffe_id);
        match found {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                return Err(ConnectError::WrongIdentity {
                    address,
                    expected: expected.as_str().into(),
                    found: found.as_str().into(),
                });
            }
            Err(reason) => {
                return Err(ConnectError::Tls {
                    address,
                    reason: reason.into(),
                });
            }
        }
        if session.alpn_protocol() != Some(alpn) {
            return Err(ConnectError::Tls {
                address,
                reason: "the peer did not agree on a protocol".into(),
            });
        }
        Ok(Stream::Tls(Box::new(tls)))
    }
}

impl Stream {
    /// The socket itself, where there is no TLS on it and nothing of it has been read.
    pub fn into_plain(self) -> Result<TcpStream, Self> {
        match self {
            Self::Plain(stream) => stream.into_inner().map_err(Self::Plain),
            Self::Tls(_) => Err(self),
        }
    }

    /// Makes the drop of this connection a reset: a stream that was cut must not look complete.
    pub fn reset(&self) {
        match self {
            Self::Plain(stream) => tcp::reset(stream.get_ref()),
            Self::Tls(stream) => tcp::reset(stream.get_ref().0.get_ref()),
        }
    }
}

impl Cut for Stream {
    fn cut(&self) {
        self.reset();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
