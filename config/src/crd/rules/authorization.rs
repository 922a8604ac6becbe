//! Who may call what.

use super::Message::{Plainly, Quoting};
use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        on: "AuthorizationPolicySpec",
        field: "targetRefs",
        holds: "self.targetRefs.all(a, self.targetRefs.exists_one(b, a == b))",
        message: Plainly("this target is named twice"),
        help: "leave one of the two out",
    },
    Rule {
        on: "AuthorizationPolicySpec",
        field: "",
        holds: "!has(self.action) || self.action != 'Deny' || (has(self.rules) && size(self.rules) > 0)",
        message: Plainly("a policy that denies nothing"),
        help: "write rules; to deny everything, rules: [{}]",
    },
    Rule {
        on: "Peer",
        field: "",
        holds: "has(self.identity) || has(self.__namespace__) || has(self.serviceAccount)",
        message: Plainly("nobody is named"),
        help: "write identity, namespace or serviceAccount; leave `from` out for everybody",
    },
    Rule {
        on: "Peer",
        field: "",
        holds: "!has(self.identity) || (!has(self.__namespace__) && !has(self.serviceAccount))",
        message: Plainly("an identity is a namespace and a service account already"),
        help: "write two entries, or one of both ways",
    },
    Rule {
        on: "Peer",
        field: "identity",
        // A pattern would be too dear: there may be thousands of peers, and an API server reckons with the longest.
        holds: "!has(self.identity) || ((self.identity.startsWith('ns/') || \
                self.identity.startsWith('spiffe://')) && self.identity.contains('/sa/'))",
        message: Quoting(r#"'expected the identity of a workload, found "' + self.identity + '"'"#),
        help: "write ns/NAMESPACE/sa/SERVICE-ACCOUNT, such as ns/boutique/sa/checkout",
    },
];
