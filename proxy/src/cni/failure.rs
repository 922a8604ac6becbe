//! What a container runtime is told when something cannot be done: the error of the CNI specification.

use serde_json::{Value, json};

/// Of the specification, and from 100 on our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    BadEnvironment = 4,
    Io = 5,
    Unreadable = 6,
    BadConfiguration = 7,
    TryAgain = 11,
    NotAvailable = 50,
    Redirection = 100,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
    /// What to do about it, for whoever reads the pod's events.
    pub(super) details: &'static str,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: "",
        }
    }

    pub(super) fn with(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    pub(super) fn json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code as u32,
            "msg": format!("weir-cni: {}", self.message),
            "details": self.details,
        })
    }
}
