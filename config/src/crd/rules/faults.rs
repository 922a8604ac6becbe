//! What goes wrong on purpose.

use super::Message::{Plainly, Quoting};
use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        on: "FaultPolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(a, self.targetRefs.exists_one(b, a == b))",
        message: Plainly("this target is named twice"),
        help: "leave one of the two out",
    },
    Rule {
        on: "FaultPolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(target, target.kind != 'Namespace')",
        message: Plainly("faults are for the Services that are named, not for a whole namespace"),
        help: "name them one by one, such as {kind: Service, name: payment}",
    },
    Rule {
        on: "FaultPolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(target, target.kind != 'ServiceAccount')",
        message: Plainly(
            "faults are for the Services that are named, not for who runs as a ServiceAccount",
        ),
        help: "name them one by one, such as {kind: Service, name: payment}",
    },
    Rule {
        on: "FaultPolicySpec",
        field: "",
        holds: "has(self.endsAt) || has(self.duration)",
        message: Plainly("a fault needs an end"),
        help: "write duration: 10m, or endsAt: and a time in UTC",
    },
    Rule {
        on: "FaultPolicySpec",
        field: "duration",
        holds: "!has(self.duration) || duration(self.duration) <= duration('24h')",
        message: Plainly("a fault lasts 24h at most"),
        help: "for a date that is further away write endsAt",
    },
    Rule {
        on: "Fault",
        field: "",
        holds: "has(self.delay) || has(self.abort) || has(self.connection) || has(self.slowBody)",
        message: Plainly("nothing happens to these calls"),
        help: "write delay, abort, connection or slowBody",
    },
    Rule {
        on: "Fault",
        field: "connection",
        holds: "!has(self.abort) || !has(self.connection)",
        message: Plainly("of abort and connection only one can happen to a call"),
        help: "write two faults, each with its percentage",
    },
    Rule {
        on: "Fault",
        field: "slowBody",
        holds: "!has(self.slowBody) || has(self.abort) == has(self.connection)",
        message: Quoting(
            "'of ' + (has(self.abort) ? 'abort' : 'connection') + ' and slowBody only one can happen to a call'",
        ),
        help: "write two faults, each with its percentage",
    },
    Rule {
        on: "Fault",
        field: "delay",
        holds: "!has(self.delay) || !has(self.connection) || self.connection != 'BlackHole'",
        message: Plainly("what is never answered cannot be delayed"),
        help: "leave one of the two out",
    },
    Rule {
        on: "FaultDelay",
        field: "",
        holds: "duration(self.time) + (has(self.jitter) ? duration(self.jitter) : duration('0s')) <= duration('10m')",
        message: Plainly("a call is delayed by 10m at most, jitter included"),
        help: "connection: BlackHole never answers",
    },
    Rule {
        on: "FaultAbort",
        field: "httpStatus",
        holds: "!has(self.grpcStatus) || !has(self.httpStatus)",
        message: Plainly("a call is aborted with a gRPC or an HTTP status, not both"),
        help: "keep the one that the service speaks: callers of the other sort get the code that means the same",
    },
    Rule {
        on: "FaultAbort",
        field: "",
        holds: "has(self.grpcStatus) || has(self.httpStatus)",
        message: Plainly("an aborted call needs a status"),
        help: "write grpcStatus: Unavailable, or httpStatus: 503",
    },
];
