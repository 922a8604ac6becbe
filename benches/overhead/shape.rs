//! What is sent through a hop, and what counts as its answer.

use std::fmt;

/// Payload of a small message, and of an answer to a GET.
pub const SMALL: usize = 100;
pub const LARGE: usize = 64 * 1024;
/// A server stream: so many messages of so many bytes, each in a DATA frame of its own.
pub const STREAM_MESSAGES: usize = 100;
pub const STREAM_MESSAGE: usize = 1024;
/// gRPC's prefix of a message: not compressed, and its length.
pub const GRPC_PREFIX: usize = 5;

/// What is spoken on a port of the backend; each subject has one way in for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wire {
    Http1,
    Http2,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// GET over a kept connection, 100 B back.
    Http1,
    /// The same over HTTP/2.
    Http2,
    /// gRPC unary, 100 B each way.
    GrpcSmall,
    /// gRPC unary, 64 KiB each way.
    GrpcLarge,
    /// gRPC server streaming: 100 messages of 1 KiB an answer.
    GrpcStream,
    /// 100 B each way over a kept connection that nobody understands.
    TcpRequest,
    /// As many bytes as go through, one way.
    TcpBulk,
    /// A connection, 100 B each way, and its end.
    TcpConnect,
}

impl Wire {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tcp];

    /// Where the backend speaks it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http1 => 8001,
            Self::Http2 => 8002,
            Self::Tcp => 8003,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wire| wire.name() == text)
    }
}

impl Shape {
    pub const ALL: [Self; 8] = [
        Self::Http1,
        Self::Http2,
        Self::GrpcSmall,
        Self::GrpcLarge,
        Self::GrpcStream,
        Self::TcpRequest,
        Self::TcpBulk,
        Self::TcpConnect,
    ];

    pub const fn wire(self) -> Wire {
        match self {
            Self::Http1 => Wire::Http1,
            Self::Http2 | Self::GrpcSmall | Self::GrpcLarge | Self::GrpcStream => Wire::Http2,
            Self::TcpRequest | Self::TcpBulk | Self::TcpConnect => Wire::Tcp,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::GrpcSmall => "grpc-100B",
            Self::GrpcLarge => "grpc-64KiB",
            Self::GrpcStream => "grpc-stream",
            Self::TcpRequest => "tcp-request",
            Self::TcpBulk => "tcp-bulk",
            Self::TcpConnect => "tcp-connect",
        }
    }

    pub const fn is_grpc(self) -> bool {
        matches!(self, Self::GrpcSmall | Self::GrpcLarge | Self::GrpcStream)
    }

    /// What one unit of "per request" is called where it is not a request.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::TcpBulk => "MiB",
            Self::TcpConnect => "connection",
            _ => "request",
        }
    }

    /// Body of a request, bytes.
    pub const fn asked(self) -> usize {
        match self {
            Self::Http1 | Self::Http2 | Self::TcpBulk => 0,
            Self::GrpcSmall | Self::GrpcStream => GRPC_PREFIX + SMALL,
            Self::GrpcLarge => GRPC_PREFIX + LARGE,
            Self::TcpRequest | Self::TcpConnect => SMALL,
        }
    }

    /// Body of an answer, bytes.
    pub const fn answered(self) -> usize {
        match self {
            Self::Http1 | Self::Http2 | Self::TcpRequest | Self::TcpConnect => SMALL,
            Self::GrpcSmall => GRPC_PREFIX + SMALL,
            Self::GrpcLarge => GRPC_PREFIX + LARGE,
            Self::GrpcStream => STREAM_MESSAGES * (GRPC_PREFIX + STREAM_MESSAGE),
            Self::TcpBulk => 0,
        }
    }

    /// Bytes after which a body begins a new message, and so a new frame.
    pub const fn message(self) -> usize {
        match self {
            Self::GrpcStream => GRPC_PREFIX + STREAM_MESSAGE,
            Self::GrpcLarge => GRPC_PREFIX + LARGE,
            _ => GRPC_PREFIX + SMALL,
        }
    }

    /// Connections, and requests at once on each, that keep one worker busy.
    pub const fn saturating(self) -> (usize, usize) {
        match self.wire() {
            Wire::Http1 => (64, 1),
            Wire::Http2 => match self {
                Self::GrpcLarge | Self::GrpcStream => (16, 1),
                _ => (64, 1),
            },
            Wire::Tcp => match self {
                Self::TcpBulk => (4, 1),
                Self::TcpConnect => (8, 1),
                _ => (64, 1),
            },
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
