//! gRPC's status codes, and what HTTP takes for the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// gRPC's status codes by name. `Ok` is not among them: an answer without a message is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrpcStatus {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcStatus {
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Of an answer for callers of either sort, its gRPC and its HTTP status. The user writes one of the two; the other is
    /// what the other protocol takes for the same thing.
    pub(crate) fn in_both(grpc: Option<Self>, http: Option<u32>) -> Option<(u8, u16)> {
        let http = http.and_then(|status| u16::try_from(status).ok());
        let grpc = grpc.or_else(|| http.map(Self::of_http))?;
        Some((grpc.code(), http.unwrap_or_else(|| grpc.http())))
    }

    /// As grpc-gateway and google.rpc.Code have it.
    const fn http(self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
        }
    }

    /// gRPC's own table ("HTTP to gRPC status code mapping"), and its sensible inverse where that one is coarse.
    const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::Aborted,
            429 => Self::ResourceExhausted,
            500 => Self::Internal,
            501 => Self::Unimplemented,
            504 => Self::DeadlineExceeded,
            _ => Self::Unavailable,
        }
    }
}
