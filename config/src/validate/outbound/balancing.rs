//! Hashing needs something to hash, and only one thing.

use super::{Check, Contradiction};
use crate::diagnostic::Severity;
use crate::resource::LoadBalancing;
use crate::snapshot::BalanceAlgorithm;

const ALGORITHM: &str = "outbound.loadBalancing.algorithm";
const KEY: &str = "outbound.loadBalancing.consistentHash";
const SUCH_AS: &str = "write consistentHash: {header: x-user}, or {cookie: NAME}, {attribute: SourceIdentity} or \
                       {attribute: Path}";

pub(super) fn check_block(block: &LoadBalancing, path: &str, found: &mut Vec<Contradiction>) {
    let Some(key) = &block.consistent_hash else {
        return;
    };
    let path = format!("{path}.consistentHash");
    let mut said = [
        ("header", key.header.is_some()),
        ("cookie", key.cookie.is_some()),
        ("attribute", key.attribute.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, said)| said.then_some(name));
    match (said.next(), said.next()) {
        (None, _) => found.push(
            Contradiction::error(&path, "there is nothing here to tell calls apart by")
                .help(SUCH_AS),
        ),
        (Some(_), None) => {}
        (Some(first), Some(second)) => found.push(
            Contradiction::error(
                format!("{path}.{second}"),
                format!("calls are told apart by one thing: {first} or {second}, not both"),
            )
            .also(format!("{path}.{first}"), "the other")
            .help("keep one of them"),
        ),
    }
}

impl Check<'_> {
    pub(super) fn balancing(&mut self) {
        let algorithm = self.effective.value.balance.algorithm;
        let hashes = algorithm == BalanceAlgorithm::ConsistentHash;
        if hashes && !self.is_said(KEY) {
            let message = "ConsistentHash needs to know which calls belong together";
            self.tell(
                Severity::Error,
                &[ALGORITHM, KEY],
                message.to_owned(),
                SUCH_AS,
            );
        }
        if !hashes && self.is_said(KEY) {
            let algorithm = self.of(ALGORITHM, format!("{algorithm:?}"));
            self.tell(
                Severity::Warning,
                &[KEY, ALGORITHM],
                format!("this has no effect: calls are balanced by {algorithm}"),
                "write algorithm: ConsistentHash beside it",
            );
        }
    }
}
