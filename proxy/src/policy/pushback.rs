//! When an endpoint that failed wants to be asked again: one reading of its answer, for whoever retries, prices the
//! failure, or keeps the endpoint's gate shut.
//!
//! gRPC's A6 says it in milliseconds and can forbid asking again; HTTP (RFC 9110 section 10.2.3) in seconds or as a
//! date. Strangers write these: what is no Retry-After is as if it were absent, and nothing panics.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not before that long.
    After(Duration),
    /// This request: not at all. Says nothing about the next one.
    Never,
}

impl Pushback {
    /// From the head of an answer; gRPC's word counts more than HTTP's. `today` is what a date is compared with.
    pub fn of_headers(headers: &HeaderMap, today: SystemTime) -> Option<Self> {
        let text = |name: HeaderName| {
            let value = headers.get(name)?;
            Some(value.to_str().unwrap_or_default().trim())
        };
        if let Some(millis) = text(GRPC_PUSHBACK) {
            // A6: a negative or unreadable value forbids retrying.
            let after = |millis| Self::After(Duration::from_millis(millis));
            return Some(millis.parse().map_or(Self::Never, after));
        }
        let text = text(header::RETRY_AFTER)?;
        if let Ok(seconds) = text.parse() {
            return Some(Self::After(Duration::from_secs(seconds)));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(Self::After(date.duration_since(today).unwrap_or_default()))
    }

    /// For how long the endpoint wants to be left alone.
    pub fn delay(self) -> Option<Duration> {
        match self {
            Self::After(delay) => Some(delay),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests;
