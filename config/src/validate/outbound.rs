//! What an `outbound:` block may say of the same call in two places.

mod alternate;
mod balancing;
mod breaker;

pub(super) use alternate::check as check_alternate;

use super::Contradiction;
use crate::diagnostic::Severity;
use crate::merge::{Effective, Source};
use crate::resource::Outbound;
use crate::snapshot;
use crate::units::Duration;

/// What is looked at: a policy's own block, that block with a route's on top, or a mesh's defaults.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Policy,
    Route(usize),
    Mesh,
}

pub(super) fn check_block(outbound: &Outbound, path: &str, found: &mut Vec<Contradiction>) {
    if let Some(block) = &outbound.load_balancing {
        balancing::check_block(block, &format!("{path}.loadBalancing"), found);
    }
    check_fallback(outbound, path, found);
}

/// Its fixed answer is one: what the other sort of caller gets follows from it.
fn check_fallback(outbound: &Outbound, path: &str, found: &mut Vec<Contradiction>) {
    let Some(fallback) = &outbound.fallback else {
        return;
    };
    let path = format!("{path}.fallback");
    match (fallback.grpc_status, fallback.http_status) {
        (Some(_), Some(_)) => found.push(
            Contradiction::error(format!("{path}.httpStatus"), "a fallback has a gRPC or an HTTP status, not both")
                .also(format!("{path}.grpcStatus"), "the other")
                .help("keep the one that the service speaks: callers of the other sort get the code that means the same"),
        ),
        (None, None) if fallback.message.is_some() => found.push(
            Contradiction::error(&path, "a fallback needs a status to answer with")
                .help("write grpcStatus: Unavailable, or httpStatus: 503"),
        ),
        (None, None) if fallback.stale.is_none() && fallback.alternate.is_none() => found.push(
            Contradiction::error(&path, "a fallback needs something to fall back on")
                .help("write grpcStatus: Unavailable, httpStatus: 503, stale or alternate"),
        ),
        _ => {}
    }
    if fallback
        .message
        .as_ref()
        .is_some_and(|message| message.chars().count() > 1024)
    {
        found.push(Contradiction::error(
            format!("{path}.message"),
            "a message may have 1024 characters",
        ));
    }
}

/// Contradictions between values, wherever each of them comes from; only those in which the scope's own words have
/// a part, so that none is told twice.
pub(super) fn check_values(
    effective: &Effective<snapshot::Outbound>,
    scope: Scope,
    found: &mut Vec<Contradiction>,
) {
    let mut check = Check {
        effective,
        scope,
        found,
    };
    check.tries();
    check.backoff();
    check.gate();
    check.balancing();
    check.limits();
    if let Some(breaker) = effective.value.breaker {
        check.breaker(&breaker);
    }
}

struct Check<'a> {
    effective: &'a Effective<snapshot::Outbound>,
    scope: Scope,
    found: &'a mut Vec<Contradiction>,
}

const DEADLINE: &str = "outbound.deadline";
const PER_TRY: &str = "outbound.retries.perTryTimeout";
const IN_FLIGHT: &str = "outbound.limits.inFlight";

impl Check<'_> {
    fn tries(&mut self) {
        let outbound = &self.effective.value;
        let (Some(per_try), Some(deadline)) = (outbound.retries.per_try_timeout, outbound.deadline)
        else {
            return;
        };
        if per_try > deadline {
            let message = format!(
                "a try may take {per_try}, but the whole call ends after {}",
                self.of(DEADLINE, deadline)
            );
            let help = "make perTryTimeout shorter, or leave it out: a try then has its share of the deadline";
            return self.against_deadline(PER_TRY, message, help);
        }
        let attempts = outbound.retries.attempts.get();
        let waits: u64 = (1..attempts).map(|retry| self.longest_wait(retry)).sum();
        let longest = u64::from(attempts) * millis(per_try) + waits;
        if attempts > 1 && longest > millis(deadline) {
            let message = format!(
                "{attempts} tries of {per_try} with the waits between them take up to {}, but the call ends after {}: \
                 the last try may be cut short",
                Duration::from_millis(longest),
                self.of(DEADLINE, deadline)
            );
            let help = "allow a longer deadline, fewer attempts or less time for each, unless that is what you want";
            self.tell(
                Severity::Warning,
                &[PER_TRY, DEADLINE, "outbound.retries.attempts"],
                message,
                help,
            );
        }
    }

    /// Before the `retry`th retry, in milliseconds: the wait doubles from base to max.
    fn longest_wait(&self, retry: u32) -> u64 {
        let retries = &self.effective.value.retries;
        (millis(retries.backoff_base) << (retry - 1)).min(millis(retries.backoff_max))
    }

    fn backoff(&mut self) {
        let retries = &self.effective.value.retries;
        if retries.backoff_base > retries.backoff_max {
            let (base, max) = (
                "outbound.retries.backoff.base",
                "outbound.retries.backoff.max",
            );
            let message = format!(
                "the first wait is {}, but the longest {}",
                self.of(base, retries.backoff_base),
                self.of(max, retries.backoff_max)
            );
            self.tell(
                Severity::Error,
                &[base, max],
                message,
                "the wait doubles from `base` up to `max`: write both",
            );
        }
    }

    fn gate(&mut self) {
        let gate = &self.effective.value.gate;
        if gate.open_for > gate.max_open_for {
            let (first, max) = (
                "outbound.endpointGate.openFor",
                "outbound.endpointGate.maxOpenFor",
            );
            let message = format!(
                "a gate first opens for {}, but never for longer than {}",
                self.of(first, gate.open_for),
                self.of(max, gate.max_open_for)
            );
            self.tell(
                Severity::Error,
                &[max, first],
                message,
                "the time doubles from `openFor` up to `maxOpenFor`",
            );
        }
    }

    fn limits(&mut self) {
        let limits = &self.effective.value.limits;
        let wait = limits.queue_timeout;
        if let Some(deadline) = self.effective.value.deadline
            && limits.queue.get() > 0
            && wait >= deadline
        {
            let path = "outbound.limits.queueTimeout";
            let message = format!(
                "a call may wait {} for its turn, but it ends after {}",
                self.of(path, wait),
                self.of(DEADLINE, deadline)
            );
            self.against_deadline(
                path,
                message,
                "make queueTimeout a small part of the deadline",
            );
        }
        let per_endpoint = "outbound.limits.perEndpoint";
        if limits.per_endpoint > limits.in_flight
            && self.is_said(per_endpoint)
            && self.is_said(IN_FLIGHT)
        {
            let message = format!(
                "one endpoint may have {} calls in flight, but the whole service only {}",
                limits.per_endpoint.get(),
                limits.in_flight.get()
            );
            self.tell(
                Severity::Warning,
                &[per_endpoint, IN_FLIGHT],
                message,
                "the smaller of the two is what counts",
            );
        }
    }

    /// The deadline may come from a place that this file cannot know (the mesh, the namespace), or be one of several
    /// routes' under a common value: then it is only likely to be wrong.
    fn against_deadline(&mut self, field: &str, message: String, help: &str) {
        let same = self.source(field) == self.source(DEADLINE);
        let severity = if same || self.is_own(field) && self.is_said(DEADLINE) {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.tell(severity, &[field, DEADLINE], message, help);
    }

    /// Points at the first of `fields` that the scope said itself, and at the next that anybody in this file said.
    fn tell(&mut self, severity: Severity, fields: &[&str], message: String, help: &str) {
        let Some(primary) = fields.iter().find(|field| self.is_own(field)) else {
            return;
        };
        let secondary = fields
            .iter()
            .find(|field| *field != primary && self.is_said(field));
        let looked_at = fields.iter().flat_map(|field| self.places(field)).collect();
        let secondary =
            secondary.and_then(|field| Some((self.path(field)?, last_step(field).to_owned())));
        let Some(path) = self.path(primary) else {
            return;
        };
        self.found.push(Contradiction {
            severity,
            path,
            message,
            help: Some(help.to_owned()),
            secondary,
            looked_at,
        });
    }

    fn source(&self, field: &str) -> &Source {
        let said = self.effective.from.iter().find(|(path, _)| path == field);
        said.map_or(&Source::BuiltIn, |(_, source)| source)
    }

    fn is_said(&self, field: &str) -> bool {
        *self.source(field) != Source::BuiltIn
    }

    /// Said by what is being looked at, rather than below it.
    fn is_own(&self, field: &str) -> bool {
        match self.scope {
            Scope::Policy | Scope::Mesh => self.is_said(field),
            Scope::Route(_) => matches!(self.source(field), Source::Route(..)),
        }
    }

    fn path(&self, field: &str) -> Option<String> {
        match self.source(field) {
            Source::BuiltIn | Source::Fault(..) | Source::Authorization(..) => None,
            Source::Policy(_) => Some(format!("spec.{field}")),
            Source::Route(_, index) => Some(format!("spec.routes[{index}].{field}")),
            Source::MeshConfig(_) => Some(mesh_path(field)),
            // A route of the Gateway API says nothing of what is merged.
            Source::Gateway(..) => None,
        }
    }

    /// Everywhere in this file where the field may be said.
    fn places(&self, field: &str) -> Vec<String> {
        match self.scope {
            Scope::Mesh => vec![mesh_path(field)],
            Scope::Policy => vec![format!("spec.{field}")],
            Scope::Route(index) => vec![
                format!("spec.{field}"),
                format!("spec.routes[{index}].{field}"),
            ],
        }
    }

    /// A value, and that nobody wrote it.
    fn of(&self, field: &str, value: impl std::fmt::Display) -> String {
        if self.is_said(field) {
            value.to_string()
        } else {
            format!("{value} (the default)")
        }
    }
}

fn mesh_path(field: &str) -> String {
    format!("spec.defaults{}", field.trim_start_matches("outbound"))
}

fn last_step(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
