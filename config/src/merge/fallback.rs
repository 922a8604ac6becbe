//! What callers get instead of an error.

use crate::resource::{AlternateBackend, Fallback, GrpcStatus};
use crate::snapshot;
use crate::units::Count;

/// `namespace`: of whoever says so.
pub(super) fn fallback(said: &Fallback, namespace: &str) -> snapshot::Fallback {
    let default = snapshot::Stale::default();
    snapshot::Fallback {
        stale: said.stale.map(|stale| snapshot::Stale {
            max_age: stale.max_age.unwrap_or(default.max_age),
        }),
        alternate: (said.alternate.as_ref()).map(|it| alternate(it, namespace)),
        answer: fallback_answer(said),
    }
}

pub(crate) fn alternate(said: &AlternateBackend, namespace: &str) -> snapshot::ServiceKey {
    snapshot::ServiceKey {
        namespace: said.namespace.as_deref().unwrap_or(namespace).to_owned(),
        name: said.name.clone(),
        port: u16::try_from(said.port.get()).expect("its bound is that of ports"),
    }
}

fn fallback_answer(said: &Fallback) -> Option<snapshot::FallbackAnswer> {
    let http = said.http_status.map(Count::get);
    let (grpc_status, http_status) = GrpcStatus::in_both(said.grpc_status, http)?;
    Some(snapshot::FallbackAnswer {
        grpc_status,
        http_status,
        message: (said.message.clone()).unwrap_or_else(|| "the call could not be made".to_owned()),
    })
}
