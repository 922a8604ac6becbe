//! What a caller's sidecar does.

use super::Message::{Plainly, Quoting};
use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        on: "Outbound",
        field: "retries.perTryTimeout",
        holds: "!has(self.deadline) || self.deadline == 'Unlimited' || !has(self.retries) || \
                !has(self.retries.perTryTimeout) || duration(self.retries.perTryTimeout) <= duration(self.deadline)",
        message: Quoting(
            "'a try may take ' + self.retries.perTryTimeout + ', but the whole call ends after ' + self.deadline",
        ),
        help: "make perTryTimeout shorter, or leave it out: a try then has its share of the deadline",
    },
    Rule {
        on: "Outbound",
        field: "limits.queueTimeout",
        holds: "!has(self.deadline) || self.deadline == 'Unlimited' || !has(self.limits) || \
                !has(self.limits.queueTimeout) || (has(self.limits.queue) && self.limits.queue == 0) || \
                duration(self.limits.queueTimeout) < duration(self.deadline)",
        message: Quoting(
            "'a call may wait ' + self.limits.queueTimeout + ' for its turn, but it ends after ' + self.deadline",
        ),
        help: "make queueTimeout a small part of the deadline",
    },
    Rule {
        on: "Outbound",
        field: "circuitBreaker.slowCallDuration",
        holds: "!has(self.deadline) || self.deadline == 'Unlimited' || !has(self.circuitBreaker) || \
                !has(self.circuitBreaker.slowCallDuration) || \
                duration(self.circuitBreaker.slowCallDuration) < duration(self.deadline)",
        message: Quoting(
            "'a call is slow after ' + self.circuitBreaker.slowCallDuration + ', but every call has ended after ' \
                  + self.deadline + ': none is ever seen to be slow'",
        ),
        help: "make slowCallDuration shorter than the deadline",
    },
    Rule {
        on: "Outbound",
        field: "circuitBreaker.halfOpenCalls",
        holds: "!has(self.circuitBreaker) || !has(self.circuitBreaker.halfOpenCalls) || !has(self.limits) || \
                !has(self.limits.inFlight) || self.circuitBreaker.halfOpenCalls <= self.limits.inFlight",
        message: Plainly(
            "a half-open breaker lets more probes through than the limit allows calls in flight",
        ),
        help: "make halfOpenCalls at most limits.inFlight",
    },
    Rule {
        on: "Backoff",
        field: "base",
        holds: "!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)",
        message: Quoting("'the first wait is ' + self.base + ', but the longest ' + self.max"),
        help: "the wait doubles from `base` up to `max`: write both",
    },
    Rule {
        on: "EndpointGate",
        field: "maxOpenFor",
        holds: "!has(self.openFor) || !has(self.maxOpenFor) || duration(self.openFor) <= duration(self.maxOpenFor)",
        message: Quoting(
            "'a gate first opens for ' + self.openFor + ', but never for longer than ' + self.maxOpenFor",
        ),
        help: "the time doubles from `openFor` up to `maxOpenFor`",
    },
    Rule {
        on: "CircuitBreaker",
        field: "failureRate",
        holds: "!has(self.failureRate) || self.failureRate > 0",
        message: Plainly(
            "a failureRate of 0 is always reached: the breaker would open without any reason",
        ),
        help: "write 1 to 100",
    },
    Rule {
        on: "CircuitBreaker",
        field: "slowCallRate",
        holds: "!has(self.slowCallRate) || self.slowCallRate > 0",
        message: Plainly(
            "a slowCallRate of 0 is always reached: the breaker would open without any reason",
        ),
        help: "write 1 to 100",
    },
    Rule {
        on: "CircuitBreaker",
        field: "force",
        holds: "!has(self.force) || !has(self.mode) || self.mode != 'Observe'",
        message: Quoting(
            "'a breaker that only observes cannot be held ' + (self.force == 'Open' ? 'open' : 'closed') + \
                  ': it refuses nothing'",
        ),
        help: "leave out one of the two",
    },
    Rule {
        on: "Fallback",
        field: "httpStatus",
        holds: "!has(self.grpcStatus) || !has(self.httpStatus)",
        message: Plainly("a fallback has a gRPC or an HTTP status, not both"),
        help: "keep the one that the service speaks: callers of the other sort get the code that means the same",
    },
    Rule {
        on: "Fallback",
        field: "",
        holds: "!has(self.message) || has(self.grpcStatus) || has(self.httpStatus)",
        message: Plainly("a fallback needs a status to answer with"),
        help: "write grpcStatus: Unavailable, or httpStatus: 503",
    },
    Rule {
        on: "Fallback",
        field: "",
        holds: "has(self.grpcStatus) || has(self.httpStatus) || has(self.message) || has(self.stale) || \
                has(self.alternate)",
        message: Plainly("a fallback needs something to fall back on"),
        help: "write grpcStatus: Unavailable, httpStatus: 503, stale or alternate",
    },
    Rule {
        on: "MeshConfigSpec",
        field: "defaults.fallback.alternate",
        holds: "!has(self.defaults) || !has(self.defaults.fallback) || !has(self.defaults.fallback.alternate)",
        message: Plainly("no one service can stand in for all services of a mesh"),
        help: "write it in the ResiliencePolicy of the service that it stands in for",
    },
    Rule {
        on: "LoadBalancing",
        field: "algorithm",
        holds: "!has(self.algorithm) || self.algorithm != 'ConsistentHash' || has(self.consistentHash)",
        message: Plainly("ConsistentHash needs to know which calls belong together"),
        help: "write consistentHash: {header: x-user}, or {cookie: NAME}, {attribute: SourceIdentity} or {attribute: Path}",
    },
    Rule {
        on: "ConsistentHash",
        field: "",
        holds: "has(self.header) || has(self.cookie) || has(self.attribute)",
        message: Plainly("there is nothing here to tell calls apart by"),
        help: "write consistentHash: {header: x-user}, or {cookie: NAME}, {attribute: SourceIdentity} or {attribute: Path}",
    },
    Rule {
        on: "ConsistentHash",
        field: "cookie",
        holds: "!has(self.header) || !has(self.cookie)",
        message: Plainly("calls are told apart by one thing: header or cookie, not both"),
        help: "keep one of them",
    },
    Rule {
        on: "ConsistentHash",
        field: "attribute",
        holds: "!has(self.attribute) || (has(self.header) == has(self.cookie))",
        message: Quoting(
            "'calls are told apart by one thing: ' + (has(self.header) ? 'header' : 'cookie') + \
                  ' or attribute, not both'",
        ),
        help: "keep one of them",
    },
];
