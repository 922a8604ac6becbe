//! Authorization: who may call what, by what mutual TLS has proven and nothing else.
//!
//! ```text
//!   a rule that denies is for the call, or may be for all one knows ──▶ denied
//!   somebody says who is allowed, and no rule surely is for the call ──▶ denied
//!   otherwise                                                        ──▶ allowed
//! ```
//!
//! Whether a rule is for a call may be unknown: the caller has proven no identity, the path means different things to
//! different servers ([`weir_config::path`]), or there are only bytes. What is unknown denies, in rules of either kind.

use std::sync::Arc;

use http::Method;
use weir_config::path;
use weir_config::snapshot::{self, PathMatch, RouteMatch};

/// What holds for one port.
#[derive(Debug)]
pub struct Authorizer {
    enforced: Rules,
    /// With those that only audit.
    audited: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    deny: Vec<Rule>,
    allow: Option<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    policy: Arc<str>,
    from: Option<Vec<snapshot::Peer>>,
    to: Option<Vec<Operation>>,
}

#[derive(Debug)]
struct Operation {
    method: Option<Method>,
    path: Path,
}

/// In canonical form.
#[derive(Debug)]
enum Path {
    Any,
    Exact(Vec<u8>),
    Below(Vec<u8>),
    /// It came without a form, which the control plane does not let pass.
    Unreadable,
}

/// Somebody who wants something.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// As proven by mutual TLS.
    pub caller: Option<&'a str>,
    /// `None`: to send bytes that nobody looks at.
    pub call: Option<(&'a Method, &'a str)>,
}

/// Why it was denied, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub reason: &'static str,
    /// `None`: nobody said that it may.
    pub policy: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// If what only audits were enforced.
    WouldBeDenied(Denied),
    Denied(Denied),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Surely,
    Unknown,
    Not,
}

impl Match {
    const fn of(matches: bool) -> Self {
        if matches { Self::Surely } else { Self::Not }
    }

    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Not, _) | (_, Self::Not) => Self::Not,
            (Self::Surely, Self::Surely) => Self::Surely,
            _ => Self::Unknown,
        }
    }

    /// The best of several.
    fn any(matches: impl Iterator<Item = Self>) -> Self {
        let mut best = Self::Not;
        for one in matches {
            match one {
                Self::Surely => return one,
                Self::Unknown => best = one,
                Self::Not => {}
            }
        }
        best
    }
}

impl Authorizer {
    pub fn new(said: &snapshot::Authorization) -> Self {
        Self {
            enforced: Rules::new(&said.enforced),
            audited: said.audited.as_ref().map(Rules::new),
        }
    }

    pub fn admit(&self, question: Question<'_>) -> Verdict {
        if let Err(denied) = self.enforced.admit(question) {
            return Verdict::Denied(denied);
        }
        match self.audited.as_ref().map(|rules| rules.admit(question)) {
            Some(Err(denied)) => Verdict::WouldBeDenied(denied),
            None | Some(Ok(())) => Verdict::Allowed,
        }
    }
}

impl Rules {
    fn new(said: &snapshot::AccessRules) -> Self {
        let rules = |said: &Vec<snapshot::AccessRule>| said.iter().map(Rule::new).collect();
        Self {
            deny: rules(&said.deny),
            allow: said.allow.as_ref().map(rules),
        }
    }

    fn admit(&self, question: Question<'_>) -> Result<(), Denied> {
        for rule in &self.deny {
            let reason = match rule.is_for(question, true) {
                Match::Surely => "denied-by-rule",
                Match::Unknown => "cannot-decide",
                Match::Not => continue,
            };
            let policy = Some(rule.policy.clone());
            return Err(Denied { reason, policy });
        }
        let Some(allow) = &self.allow else {
            return Ok(());
        };
        let policy = None;
        match Match::any(allow.iter().map(|rule| rule.is_for(question, false))) {
            Match::Surely => Ok(()),
            Match::Unknown => Err(Denied {
                reason: "cannot-decide",
                policy,
            }),
            Match::Not => Err(Denied {
                reason: "allowed-by-nobody",
                policy,
            }),
        }
    }
}

impl Rule {
    fn new(said: &snapshot::AccessRule) -> Self {
        let operations = |to: &Vec<RouteMatch>| to.iter().map(Operation::new).collect();
        Self {
            policy: said.policy.as_str().into(),
            from: said.from.clone(),
            to: said.to.as_ref().map(operations),
        }
    }

    fn is_for(&self, question: Question<'_>, denies: bool) -> Match {
        let from = match &self.from {
            None => Match::Surely,
            Some(from) => Match::any(from.iter().map(|peer| is_peer(peer, question.caller))),
        };
        if from == Match::Not {
            return from;
        }
        from.and(match (&self.to, question.call) {
            (None, _) => Match::Surely,
            (Some(_), None) => Match::Unknown,
            (Some(to), Some((method, path))) => {
                Match::any(to.iter().map(|to| to.is_meant_by(method, path, denies)))
            }
        })
    }
}

fn is_peer(peer: &snapshot::Peer, caller: Option<&str>) -> Match {
    let Some(caller) = caller else {
        return Match::Unknown;
    };
    if let Some(identity) = &peer.identity {
        return Match::of(identity == caller);
    }
    let Some((namespace, service_account)) = workload(caller) else {
        return Match::Unknown;
    };
    let is = |said: &Option<String>, found| said.as_deref().is_none_or(|said| said == found);
    Match::of(is(&peer.namespace, namespace) && is(&peer.service_account, service_account))
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, and nothing that only begins or ends like it.
fn workload(identity: &str) -> Option<(&str, &str)> {
    let (_, path) = identity.strip_prefix("spiffe://")?.split_once('/')?;
    let mut parts = path.split('/');
    let found = match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("ns", namespace, "sa", service_account) => (namespace, service_account),
        _ => return None,
    };
    parts.next().is_none().then_some(found)
}

impl Operation {
    /// A gRPC method is a path, whatever the call says of its content: servers go by nothing else.
    fn new(said: &RouteMatch) -> Self {
        let form = |path: &str| path::canonical(path).map(std::borrow::Cow::into_owned);
        let exact = |path: &str| form(path).map_or(Path::Unreadable, Path::Exact);
        let below = |path: &str| match form(path) {
            Some(form) if form == b"/" => Path::Any,
            Some(form) => Path::Below(form),
            None => Path::Unreadable,
        };
        match said {
            RouteMatch::Grpc { service, method } => Self {
                method: None,
                path: match method {
                    Some(method) => exact(&format!("/{service}/{method}")),
                    None => below(&format!("/{service}")),
                },
            },
            RouteMatch::Http { method, path } => {
                let parsed = method.as_ref().map(|method| method.parse::<Method>());
                let unreadable = matches!(parsed, Some(Err(_)));
                Self {
                    method: parsed.and_then(Result::ok),
                    path: match path {
                        _ if unreadable => Path::Unreadable,
                        PathMatch::Exact(path) => exact(path),
                        PathMatch::Prefix(path) => below(path),
                    },
                }
            }
        }
    }

    fn is_meant_by(&self, method: &Method, path: &str, denies: bool) -> Match {
        let is_method = |wanted: &Method| wanted == method || (denies && may_be(wanted, method));
        if !self.method.as_ref().is_none_or(is_method) {
            return Match::Not;
        }
        if matches!(self.path, Path::Any) {
            return Match::Surely;
        }
        let Some(path) = path::canonical(path) else {
            return Match::Unknown;
        };
        match &self.path {
            Path::Any => Match::Surely,
            Path::Unreadable => Match::Unknown,
            Path::Exact(wanted) => Match::of(*path == **wanted),
            Path::Below(wanted) => Match::of(
                path.strip_prefix(wanted.as_slice())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
            ),
        }
    }
}

/// Methods know their case, and yet there are servers to which `get` is GET; and all answer HEAD by what they do for GET.
fn may_be(wanted: &Method, method: &Method) -> bool {
    let spelt = |name: &Method| method.as_str().eq_ignore_ascii_case(name.as_str());
    spelt(wanted) || (wanted == Method::GET && spelt(&Method::HEAD))
}

#[cfg(test)]
mod tests;
