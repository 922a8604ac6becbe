//! Whom a policy is for, and which of its calls.

use super::Message::{Plainly, Quoting};
use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        on: "ResiliencePolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(a, self.targetRefs.exists_one(b, a == b))",
        message: Plainly("this target is named twice"),
        help: "leave one of the two out",
    },
    Rule {
        on: "TargetRef",
        field: "sectionName",
        holds: "self.kind != 'Namespace' || !has(self.sectionName)",
        message: Plainly("a namespace has no sections: `sectionName` is a port of a Service"),
        help: "leave it out, or write kind: Service",
    },
    Rule {
        on: "TargetRef",
        field: "sectionName",
        holds: "self.kind != 'ServiceAccount' || !has(self.sectionName)",
        message: Plainly("a ServiceAccount has no sections: `sectionName` is a port of a Service"),
        help: "leave it out, or write kind: Service",
    },
    Rule {
        on: "ResiliencePolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(target, target.kind != 'ServiceAccount')",
        message: Plainly(
            "a ServiceAccount says who may call: resilience is of Services and their Namespace",
        ),
        help: "name a Service that leads to these workloads, or the Namespace",
    },
    Rule {
        on: "GrpcMatch",
        field: "service",
        holds: r"self.service.matches('^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*$')",
        message: Quoting(
            r#"'expected a gRPC service with its package, found "' + self.service + '"'"#,
        ),
        help: "as the proto file has it, such as boutique.v1.Payment, without slashes",
    },
    Rule {
        on: "GrpcMatch",
        field: "method",
        holds: "!has(self.method) || self.method.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
        message: Quoting(r#"'expected the name of a gRPC method, found "' + self.method + '"'"#),
        help: "such as Authorize; leave it out for every method of the service",
    },
    Rule {
        on: "HttpMatch",
        field: "pathPrefix",
        holds: "!has(self.path) || !has(self.pathPrefix)",
        message: Plainly("a match has a path or a prefix of it, not both"),
        help: "keep one of them",
    },
    Rule {
        on: "HttpMatch",
        field: "",
        holds: "has(self.method) || has(self.path) || has(self.pathPrefix)",
        message: Plainly("a match needs a method, a path or a pathPrefix"),
        help: "what is for every call is written without a match: in spec.outbound, or with `to` or `match` left out",
    },
    Rule {
        on: "HttpMatch",
        field: "path",
        holds: "!has(self.path) || self.path.startsWith('/')",
        message: Quoting(
            r#"'a path begins with a slash, found "' + self.path + '"; write ' + (self.path.matches('[*:\\\\]') ? 'a path such as /orders' : '/' + self.path)"#,
        ),
        help: "",
    },
    Rule {
        on: "HttpMatch",
        field: "pathPrefix",
        holds: "!has(self.pathPrefix) || self.pathPrefix.startsWith('/')",
        message: Quoting(
            r#"'a path begins with a slash, found "' + self.pathPrefix + '"; write ' + (self.pathPrefix.matches('[*:\\\\]') ? 'a path such as /orders' : '/' + self.pathPrefix)"#,
        ),
        help: "",
    },
    Rule {
        on: "HttpMatch",
        field: "path",
        holds: "!has(self.path) || !self.path.startsWith('/') || !self.path.matches('[?#]')",
        message: Quoting(r#"'a path is matched without its query, found "' + self.path + '"'"#),
        help: "take out what follows `?` or `#`",
    },
    Rule {
        on: "HttpMatch",
        field: "pathPrefix",
        holds: "!has(self.pathPrefix) || !self.pathPrefix.startsWith('/') || !self.pathPrefix.matches('[?#]')",
        message: Quoting(
            r#"'a path is matched without its query, found "' + self.pathPrefix + '"'"#,
        ),
        help: "take out what follows `?` or `#`",
    },
    Rule {
        on: "HttpMatch",
        field: "path",
        holds: "!has(self.path) || !self.path.startsWith('/') || self.path.matches('[?#]') || !self.path.contains('*')",
        message: Quoting(r#"'a path has no wildcards, found "' + self.path + '"'"#),
        help: "pathPrefix matches everything below a path",
    },
    Rule {
        on: "HttpMatch",
        field: "pathPrefix",
        holds: "!has(self.pathPrefix) || !self.pathPrefix.startsWith('/') || self.pathPrefix.matches('[?#]') || \
                !self.pathPrefix.contains('*')",
        message: Quoting(r#"'a path has no wildcards, found "' + self.pathPrefix + '"'"#),
        help: "pathPrefix matches everything below a path",
    },
    Rule {
        on: "HttpMatch",
        field: "method",
        holds: "!has(self.method) || self.method.matches('^[A-Z_-]+$')",
        message: Quoting(r#"'expected an HTTP method such as GET, found "' + self.method + '"'"#),
        help: "",
    },
    Rule {
        on: "RoutePolicy",
        field: "outbound.endpointGate",
        holds: "!has(self.outbound) || !has(self.outbound.endpointGate)",
        message: Plainly("`endpointGate` holds for the whole service: a route cannot have its own"),
        help: "write it in spec.outbound.endpointGate",
    },
    Rule {
        on: "RoutePolicy",
        field: "outbound.loadBalancing",
        holds: "!has(self.outbound) || !has(self.outbound.loadBalancing)",
        message: Plainly(
            "`loadBalancing` holds for the whole service: a route cannot have its own",
        ),
        help: "write it in spec.outbound.loadBalancing",
    },
    Rule {
        on: "RoutePolicy",
        field: "outbound.limits",
        holds: "!has(self.outbound) || !has(self.outbound.limits)",
        message: Plainly("`limits` holds for the whole service: a route cannot have its own"),
        help: "write it in spec.outbound.limits",
    },
    Rule {
        on: "RoutePolicy",
        field: "outbound.retries.budget",
        holds: "!has(self.outbound) || !has(self.outbound.retries) || !has(self.outbound.retries.budget)",
        message: Plainly("`budget` holds for the whole service: a route cannot have its own"),
        help: "write it in spec.outbound.retries.budget",
    },
];
