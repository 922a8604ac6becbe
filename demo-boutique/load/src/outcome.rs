//! What became of a request, in the few classes that a picture can show.
//!
//! | class | HTTP | gRPC |
//! |---|---|---|
//! | ok | 2xx, 3xx | 0 |
//! | degraded | the same, with `boutique-degraded` or `x-boutique-degraded` | |
//! | shed | 429; 503 with `x-weir-overload` | 8, RESOURCE_EXHAUSTED |
//! | timeout | no answer in time; 504 | no answer in time; 4, DEADLINE_EXCEEDED |
//! | error | everything else, also no connection or a broken one | |
//! | dropped | never sent: too many requests were under way | |
//!
//! An order that is answered with 3xx is an error: who has nothing in the cart is sent to look at it, and nothing was ordered.
//!
//! A 503 that says no more than Retry-After is an error: whoever fails may be polite about it, and a
//! measurement that took it for deliberate shedding would flatter.

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;
use hyper::http::StatusCode;
use serde::Serialize;

const DEGRADED_HEADERS: [&str; 2] = ["boutique-degraded", "x-boutique-degraded"];
const SHED_HEADER: &str = "x-weir-overload";

const GRPC_OK: u16 = 0;
const GRPC_DEADLINE_EXCEEDED: u16 = 4;
const GRPC_RESOURCE_EXHAUSTED: u16 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Ok,
    Degraded,
    Shed,
    Error,
    Timeout,
    Dropped,
}

/// Why there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Connect,
    Broken,
    BodyTooLarge,
    NoGrpcStatus,
    Timeout,
    Dropped,
}

impl Fault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Broken => "connection broken",
            Self::BodyTooLarge => "body too large",
            Self::NoGrpcStatus => "no grpc-status",
            Self::Timeout => "no answer in time",
            Self::Dropped => "too many in flight",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Http {
        class: Class,
        status: u16,
        /// It said when to come back.
        retry_after: bool,
    },
    Grpc {
        class: Class,
        status: u16,
    },
    Fault(Fault),
}

impl Outcome {
    pub(crate) fn http(status: StatusCode, headers: &HeaderMap) -> Self {
        let is_degraded = || {
            DEGRADED_HEADERS
                .iter()
                .any(|name| headers.contains_key(*name))
        };
        let class = match status.as_u16() {
            200..=399 if is_degraded() => Class::Degraded,
            200..=399 => Class::Ok,
            429 => Class::Shed,
            503 if headers.contains_key(SHED_HEADER) => Class::Shed,
            504 => Class::Timeout,
            _ => Class::Error,
        };
        Self::Http {
            class,
            status: status.as_u16(),
            retry_after: headers.contains_key(RETRY_AFTER),
        }
    }

    /// The same, as the answer to an order.
    pub(crate) fn of_order(mut self) -> Self {
        if let Self::Http { class, status, .. } = &mut self
            && (300..400).contains(status)
        {
            *class = Class::Error;
        }
        self
    }

    pub(crate) fn is_served(self) -> bool {
        matches!(self.class(), Class::Ok | Class::Degraded)
    }

    pub(crate) fn retry_after(self) -> bool {
        matches!(self, Self::Http { retry_after, .. } if retry_after)
    }

    pub(crate) fn grpc(status: u16) -> Self {
        let class = match status {
            GRPC_OK => Class::Ok,
            GRPC_DEADLINE_EXCEEDED => Class::Timeout,
            GRPC_RESOURCE_EXHAUSTED => Class::Shed,
            _ => Class::Error,
        };
        Self::Grpc { class, status }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Http { class, .. } | Self::Grpc { class, .. } => class,
            Self::Fault(Fault::Timeout) => Class::Timeout,
            Self::Fault(Fault::Dropped) => Class::Dropped,
            Self::Fault(_) => Class::Error,
        }
    }

    pub(crate) fn status(self) -> Option<u16> {
        match self {
            Self::Http { status, .. } | Self::Grpc { status, .. } => Some(status),
            Self::Fault(_) => None,
        }
    }

    /// For a list of what went wrong.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Http { status, .. } => format!("status {status}"),
            Self::Grpc { status, .. } => format!("grpc-status {status}"),
            Self::Fault(fault) => fault.text().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn class(status: u16, header: Option<&'static str>) -> Class {
        let name = header.map(HeaderName::from_static);
        let headers = name.map(|name| (name, HeaderValue::from_static("1")));
        let status = StatusCode::from_u16(status).expect("a status");
        Outcome::http(status, &headers.into_iter().collect()).class()
    }

    #[test]
    fn an_answer_is_degraded_only_when_it_says_so() {
        assert_eq!(class(200, None), Class::Ok);
        assert_eq!(class(303, None), Class::Ok);
        assert_eq!(class(200, Some("boutique-degraded")), Class::Degraded);
        assert_eq!(class(200, Some("x-boutique-degraded")), Class::Degraded);
        assert_eq!(class(500, Some("x-boutique-degraded")), Class::Error);
    }

    #[test]
    fn an_order_that_is_sent_elsewhere_ordered_nothing() {
        let answer = |status| Outcome::http(status, &HeaderMap::new()).of_order().class();
        assert_eq!(answer(StatusCode::OK), Class::Ok);
        assert_eq!(answer(StatusCode::SEE_OTHER), Class::Error);
        assert_eq!(answer(StatusCode::TOO_MANY_REQUESTS), Class::Shed);
    }

    #[test]
    fn a_failure_is_shed_only_when_it_says_so() {
        assert_eq!(class(429, None), Class::Shed);
        assert_eq!(class(503, Some("x-weir-overload")), Class::Shed);
        assert_eq!(class(503, Some("retry-after")), Class::Error);
        assert_eq!(class(503, None), Class::Error);
        assert_eq!(class(404, None), Class::Error);
    }

    #[test]
    fn a_deadline_that_passed_elsewhere_is_a_timeout_too() {
        assert_eq!(class(504, None), Class::Timeout);
        assert_eq!(Outcome::grpc(4).class(), Class::Timeout);
    }

    #[test]
    fn grpc_statuses_have_their_classes() {
        assert_eq!(Outcome::grpc(0).class(), Class::Ok);
        assert_eq!(Outcome::grpc(8).class(), Class::Shed);
        assert_eq!(Outcome::grpc(14).class(), Class::Error);
    }
}
