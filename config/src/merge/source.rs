//! Who said so.

use std::fmt;

use crate::resource::{Kind, ObjectName};

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    BuiltIn,
    MeshConfig(String),
    Policy(ObjectName),
    /// One of a policy's `routes`, by its place in the list.
    Route(ObjectName, usize),
    /// One of a FaultPolicy's `faults`, by its place in the list.
    Fault(ObjectName, usize),
    /// One of an AuthorizationPolicy's `rules`, by its place in the list.
    Authorization(ObjectName, usize),
    /// One of the rules of an HTTPRoute or GRPCRoute, by its place in the list.
    Gateway(Kind, ObjectName, usize),
}

impl Source {
    /// Of the policy; that of a cluster-wide resource is nobody's.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::BuiltIn | Self::MeshConfig(_) => "",
            Self::Policy(name)
            | Self::Route(name, _)
            | Self::Fault(name, _)
            | Self::Authorization(name, _)
            | Self::Gateway(_, name, _) => &name.namespace,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("default"),
            Self::MeshConfig(name) => write!(f, "MeshConfig {name}"),
            Self::Policy(name) => write!(f, "ResiliencePolicy {name}"),
            Self::Route(name, index) => write!(f, "ResiliencePolicy {name} routes[{index}]"),
            Self::Authorization(name, index) => {
                write!(f, "AuthorizationPolicy {name} rules[{index}]")
            }
            Self::Fault(name, index) => write!(f, "FaultPolicy {name} faults[{index}]"),
            Self::Gateway(kind, name, index) => write!(f, "{kind} {name} rules[{index}]"),
        }
    }
}
