//! What the service's own sidecar does.

use super::Message::{Plainly, Quoting};
use super::Rule;

const IDENTITY: &str = "!has(self.identity) || \
     self.identity.matches('^(spiffe://[^/]+/)?ns/[a-z0-9.-]{1,253}/sa/[a-z0-9.-]{1,253}$')";

pub(super) const RULES: &[Rule] = &[
    Rule {
        on: "ResiliencePolicySpec",
        field: "inbound.limits.queueTimeout",
        holds: "!has(self.outbound) || !has(self.outbound.deadline) || self.outbound.deadline == 'Unlimited' || \
                !has(self.inbound) || !has(self.inbound.limits) || !has(self.inbound.limits.queueTimeout) || \
                duration(self.inbound.limits.queueTimeout) < duration(self.outbound.deadline)",
        message: Quoting(
            "'a request may wait ' + self.inbound.limits.queueTimeout + \
                  ' for its turn, but its caller gives up after ' + self.outbound.deadline",
        ),
        help: "make queueTimeout a small part of the deadline",
    },
    Rule {
        on: "ResiliencePolicySpec",
        field: "inbound.queue.maxWait",
        holds: "!has(self.outbound) || !has(self.outbound.deadline) || self.outbound.deadline == 'Unlimited' || \
                !has(self.inbound) || !has(self.inbound.queue) || !has(self.inbound.queue.maxWait) || \
                duration(self.inbound.queue.maxWait) < duration(self.outbound.deadline)",
        message: Quoting(
            "'a request may wait ' + self.inbound.queue.maxWait + \
                  ' for its turn, but its caller gives up after ' + self.outbound.deadline",
        ),
        help: "make maxWait a small part of the deadline",
    },
    Rule {
        on: "Inbound",
        field: "limits.queue",
        holds: "!has(self.limits) || !has(self.limits.queue) || !has(self.queue) || !has(self.queue.size)",
        message: Plainly("limits.queue and queue.size are two names of one thing"),
        help: "keep queue.size",
    },
    Rule {
        on: "Inbound",
        field: "limits.queueTimeout",
        holds: "!has(self.limits) || !has(self.limits.queueTimeout) || !has(self.queue) || !has(self.queue.maxWait)",
        message: Plainly("limits.queueTimeout and queue.maxWait are two names of one thing"),
        help: "keep queue.maxWait",
    },
    Rule {
        on: "Inbound",
        field: "rateLimit",
        holds: "!has(self.rateLimit) || !has(self.rateLimits) || size(self.rateLimits) == 0",
        message: Plainly("a policy has one rateLimit or a list of rateLimits, not both"),
        help: "write it as one more item of the list",
    },
    Rule {
        on: "Adaptive",
        field: "min",
        holds: "!has(self.min) || !has(self.max) || self.min <= self.max",
        message: Plainly("the limit moves from min up to max, but min is the larger"),
        help: "write both, the smaller as min",
    },
    Rule {
        on: "RateLimit",
        field: "per",
        holds: "!has(self.per) || self.per != 'Header' || has(self.header)",
        message: Plainly("a limit for each value of a header needs the header's name"),
        help: "write it beside it: {per: Header, header: x-tenant}",
    },
    Rule {
        on: "RateLimit",
        field: "header",
        holds: "!has(self.header) || (has(self.per) && self.per == 'Header')",
        message: Plainly("a header's name has no effect unless requests are counted per header"),
        help: "write per: Header beside it, or take it out",
    },
    Rule {
        on: "RateLimit",
        field: "header",
        holds: "!has(self.header) || !has(self.per) || self.per != 'Header' || \
                !self.header.matches('^(?i)x-weir-')",
        message: Quoting(
            "'`' + self.header + '` is between sidecars: no request has it when it is counted'",
        ),
        help: "to limit each caller, write per: Caller: that goes by proven identity",
    },
    Rule {
        on: "PriorityMatch",
        field: "",
        holds: "has(self.identity) || has(self.grpc) || has(self.http)",
        message: Plainly("a match needs an identity, or grpc or http"),
        help: "such as {identity: ns/boutique/sa/checkout}",
    },
    Rule {
        on: "PriorityMatch",
        field: "http",
        holds: "!has(self.grpc) || !has(self.http)",
        message: Plainly("a call is gRPC or other HTTP, never both"),
        help: "write two rules",
    },
    Rule {
        on: "PriorityMatch",
        field: "identity",
        holds: IDENTITY,
        message: Quoting(r#"'expected the identity of a workload, found "' + self.identity + '"'"#),
        help: "write ns/NAMESPACE/sa/SERVICE-ACCOUNT, such as ns/boutique/sa/checkout",
    },
];
