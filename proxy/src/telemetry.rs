//! Metrics: one registry, and handles that are resolved when policy is applied, never during a request.
//!
//! Labels come from discovery and from code, never from what a request says, so nobody outside can make them grow
//! (security.md: metrics cardinality).

use std::sync::LazyLock;

use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec,
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use weir_config::snapshot::Mode;

use crate::layer::admission::Load;
use crate::policy::admission::{Counts, Reason};
use crate::policy::hedge::Withheld;
use crate::policy::outcome::Outcome;
use crate::policy::priority::Tier;
use crate::policy::transition::{Phase, Transition};

/// Half a millisecond to ten seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    refused: IntCounterVec,
    rate_limited: IntCounterVec,
    throttled: IntCounterVec,
    throttling: IntGaugeVec,
    hedges: IntCounterVec,
    hedges_withheld: IntCounterVec,
    inbound: InboundVecs,
    would_refuse: IntCounterVec,
    fallbacks: IntCounterVec,
    routed: IntCounterVec,
    mirrored: IntCounterVec,
    denied: IntCounterVec,
    revoked: IntCounterVec,
    revoked_calls: IntCounterVec,
    would_deny: IntCounterVec,
    faults_injected: IntCounterVec,
    faults_spared: IntCounterVec,
    stale_answers: IntGauge,
    stale_bytes: IntGauge,
    breaker_state: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    endpoint_state: IntGaugeVec,
    ejections: IntCounterVec,
    would_eject: IntCounterVec,
    breaker_forced: IntGaugeVec,
    connections: IntCounterVec,
    open_connections: IntGaugeVec,
    opaque_connections: IntGaugeVec,
    rejected_connections: IntCounterVec,
    detection: IntCounterVec,
    control_plane: IntGauge,
    policy_version: IntGauge,
    pushes: IntCounterVec,
    facts_lost: IntCounter,
    not_inherited: IntCounter,
    certificate_expiry: GaugeVec,
    panics: IntCounter,
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry
                .register(Box::new(vec.clone()))
                .expect("the name is new");
            vec
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry
                .register(Box::new(vec.clone()))
                .expect("the name is new");
            vec
        };
        let float_gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = GaugeVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry
                .register(Box::new(vec.clone()))
                .expect("the name is new");
            vec
        };
        let float_counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = CounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry
                .register(Box::new(vec.clone()))
                .expect("the name is new");
            vec
        };
        let single_gauge = |name: &str, help: &str| {
            let one = IntGauge::new(name, help).expect("the name is valid");
            registry
                .register(Box::new(one.clone()))
                .expect("the name is new");
            one
        };
        let single_counter = |name: &str, help: &str| {
            let one = IntCounter::new(name, help).expect("the name is valid");
            registry
                .register(Box::new(one.clone()))
                .expect("the name is new");
            one
        };
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "weir_request_duration_seconds",
                "From a request's head to its response's end.",
            )
            .buckets(BUCKETS.to_vec()),
            &["direction", "service", "route"],
        )
        .expect("the name is valid");
        registry
            .register(Box::new(duration.clone()))
            .expect("the name is new");
        let certificate_expiry = GaugeVec::new(
            Opts::new(
                "weir_certificate_expiry_timestamp_seconds",
                "When this sidecar's certificate ends.",
            ),
            &["identity"],
        )
        .expect("the name is valid");
        registry
            .register(Box::new(certificate_expiry.clone()))
            .expect("the name is new");
        Self {
            requests: counter(
                "weir_requests_total",
                "Requests by how they ended.",
                &["direction", "service", "route", "class", "tls"],
            ),
            duration,
            attempts: counter(
                "weir_attempts_total",
                "Tries sent to an endpoint.",
                &["service", "class"],
            ),
            retries: counter("weir_retries_total", "Tries after the first.", &["service"]),
            would_refuse: counter(
                "weir_would_refuse_total",
                "Requests that a policy in mode Observe would have refused, by reason.",
                &["direction", "service", "reason"],
            ),
            refused: counter(
                "weir_refused_total",
                "Requests that the sidecar answered itself, by reason.",
                &["direction", "service", "reason"],
            ),
            inbound: InboundVecs {
                in_flight: gauge(
                    "weir_inbound_in_flight",
                    "Requests in the app now, streams apart.",
                    &["service"],
                ),
                streams: gauge(
                    "weir_inbound_streams",
                    "Upgraded connections, event streams and long polls in the app now.",
                    &["service"],
                ),
                queued: gauge(
                    "weir_inbound_queued",
                    "Requests that wait for the app now.",
                    &["service"],
                ),
                limit: gauge(
                    "weir_inbound_limit",
                    "Requests that the app can work on at once, as it was learnt.",
                    &["service"],
                ),
                utilisation: float_gauge(
                    "weir_inbound_utilisation_ratio",
                    "In flight over the limit: what to scale on.",
                    &["service"],
                ),
                offered: counter(
                    "weir_inbound_offered_total",
                    "Requests that came for the app, shed ones included.",
                    &["service"],
                ),
                admitted: counter(
                    "weir_inbound_admitted_total",
                    "Requests that got into the app.",
                    &["service"],
                ),
                shed: counter(
                    "weir_inbound_shed_total",
                    "Requests turned away, or that would have been where the limit only observes.",
                    &["service", "tier", "reason"],
                ),
                waited: counter(
                    "weir_inbound_queued_total",
                    "Requests that waited and got in.",
                    &["service"],
                ),
                queue_delay: float_counter(
                    "weir_inbound_queue_delay_seconds_total",
                    "How long those waited, in all.",
                    &["service"],
                ),
                saturated: float_counter(
                    "weir_inbound_saturated_seconds_total",
                    "How long requests found no room in the app.",
                    &["service"],
                ),
                is_saturated: gauge(
                    "weir_inbound_saturated",
                    "1 while requests find no room in the app again and again.",
                    &["service"],
                ),
            },
            rate_limited: counter(
                "weir_rate_limited_total",
                "Requests above a rate limit; with mode=observe they passed all the same.",
                &["service", "per", "mode"],
            ),
            throttling: gauge(
                "weir_throttling",
                "1 while calls to an overloaded service are dropped again and again.",
                &["service"],
            ),
            throttled: counter(
                "weir_throttled_total",
                "Tries that an overloaded service was spared; with mode=observe they were sent all the same.",
                &["service", "mode"],
            ),
            hedges: counter(
                "weir_hedges_total",
                "Second tries beside a slow first one, by what they came to; observed ones were not made.",
                &["service", "result"],
            ),
            hedges_withheld: counter(
                "weir_hedges_withheld_total",
                "Slow calls that were not made a second time, by reason.",
                &["service", "reason"],
            ),
            fallbacks: counter(
                "weir_fallbacks_total",
                "Calls that failed, and what their callers got instead.",
                &["service", "kind"],
            ),
            revoked: counter(
                "weir_revoked_connections_total",
                "Open connections that were cut because a policy took away the right to them.",
                &["service", "carries"],
            ),
            revoked_calls: counter(
                "weir_revoked_calls_total",
                "Calls that were cut because a policy had taken away the right to them, and they did not end.",
                &["service"],
            ),
            routed: counter(
                "weir_routed_total",
                "Calls that a rule of a route sent to a backend (empty: to one that is not there).",
                &["service", "route", "backend"],
            ),
            mirrored: counter(
                "weir_mirrored_total",
                "Copies of calls by what became of them: answered, failed, or left out because there were too many or the body was too long.",
                &["service", "route", "backend", "result"],
            ),
            denied: counter(
                "weir_denied_total",
                "Requests and opaque connections whose caller may not, by the policy that says so (empty: none that it may).",
                &["service", "policy", "reason"],
            ),
            would_deny: counter(
                "weir_would_deny_total",
                "Those that would be denied if policies in mode Audit were enforced.",
                &["service", "policy", "reason"],
            ),
            faults_injected: counter(
                "weir_faults_injected_total",
                "Tries that a FaultPolicy did something to.",
                &["service", "policy", "kind"],
            ),
            faults_spared: counter(
                "weir_faults_spared_total",
                "Tries that were left alone, because faults held as many as they may.",
                &["service"],
            ),
            stale_answers: single_gauge(
                "weir_stale_answers",
                "Answers kept for when nobody gives a fresh one.",
            ),
            stale_bytes: single_gauge("weir_stale_bytes", "What those take up; 16 MiB at most."),
            breaker_state: gauge(
                "weir_breaker_state",
                "0 closed, 1 open, 2 half-open.",
                &["service", "route"],
            ),
            breaker_transitions: counter(
                "weir_breaker_transitions_total",
                "Changes of the breaker's state.",
                &["service", "route", "to", "reason"],
            ),
            would_eject: counter(
                "weir_would_eject_total",
                "Endpoints that would have been taken out, but for mode Observe or the cap on how many may be.",
                &["service", "reason"],
            ),
            breaker_forced: gauge(
                "weir_breaker_forced",
                "1 while a policy or an operator holds the breaker as it is.",
                &["service", "route"],
            ),
            endpoint_state: gauge(
                "weir_endpoint_state",
                "0 closed, 1 open (ejected), 2 half-open, 3 ramping.",
                &["service", "endpoint"],
            ),
            ejections: counter(
                "weir_ejections_total",
                "Endpoints taken out because they failed, by reason.",
                &["service", "reason"],
            ),
            connections: counter(
                "weir_connections_total",
                "Connections accepted, by what they carried.",
                &["direction", "service", "tls", "protocol"],
            ),
            open_connections: gauge(
                "weir_open_connections",
                "Connections open now.",
                &["direction"],
            ),
            opaque_connections: gauge(
                "weir_opaque_connections",
                "Opaque connections to a service that are open, or being opened, now.",
                &["service"],
            ),
            rejected_connections: counter(
                "weir_rejected_connections_total",
                "Connections that were refused, by reason.",
                &["direction", "reason"],
            ),
            detection: counter(
                "weir_detection_total",
                "How the protocol of a connection was found out.",
                &["direction", "service", "verdict", "why"],
            ),
            control_plane: single_gauge(
                "weir_control_plane_connected",
                "1 while the control stream is up.",
            ),
            policy_version: single_gauge(
                "weir_policy_version",
                "The control plane's version in force.",
            ),
            pushes: counter("weir_pushes_total", "Pushes received.", &["result"]),
            facts_lost: single_counter(
                "weir_facts_lost_total",
                "Facts that could not be reported.",
            ),
            not_inherited: single_counter(
                "weir_not_inherited_total",
                "Calls to the app of which nothing could be noted for the calls that it makes: there was no room.",
            ),
            certificate_expiry,
            panics: single_counter("weir_panics_total", "Bugs: each ended one connection."),
            registry,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What callers of one service got instead of an error.
pub struct FallbackMetrics {
    pub stale: IntCounter,
    pub alternate: IntCounter,
    pub fixed: IntCounter,
}

/// Of one backend of one rule.
#[derive(Clone, Debug)]
pub struct RoutedMetrics(IntCounter);

impl RoutedMetrics {
    pub fn new(service: &str, rule: &str, backend: Option<&str>) -> Self {
        let labels = [service, rule, backend.unwrap_or_default()];
        Self(METRICS.routed.with_label_values(&labels))
    }

    pub fn count(&self) {
        self.0.inc();
    }
}

#[derive(Clone, Debug)]
pub struct MirrorMetrics {
    pub answered: IntCounter,
    pub failed: IntCounter,
    pub left_out: IntCounter,
}

impl MirrorMetrics {
    pub fn new(service: &str, rule: &str, backend: &str) -> Self {
        let result = |result| {
            let labels = [service, rule, backend, result];
            METRICS.mirrored.with_label_values(&labels)
        };
        Self {
            answered: result("answered"),
            failed: result("failed"),
            left_out: result("left-out"),
        }
    }
}

impl FallbackMetrics {
    pub fn new(service: &str) -> Self {
        let kind = |kind| METRICS.fallbacks.with_label_values(&[service, kind]);
        Self {
            stale: kind("stale"),
            alternate: kind("alternate"),
            fixed: kind("fixed"),
        }
    }
}

/// `policy`: its name, which the control plane says.
pub fn denied(service: &str, policy: Option<&str>, reason: &'static str) {
    let labels = [service, policy.unwrap_or_default(), reason];
    METRICS.denied.with_label_values(&labels).inc();
}

/// `carries`: "opaque" or "upgraded".
pub fn revoked(service: &str, carries: &'static str) {
    METRICS.revoked.with_label_values(&[service, carries]).inc();
}

pub fn revoked_call(service: &str) {
    METRICS.revoked_calls.with_label_values(&[service]).inc();
}

pub fn would_deny(service: &str, policy: Option<&str>, reason: &'static str) {
    let labels = [service, policy.unwrap_or_default(), reason];
    METRICS.would_deny.with_label_values(&labels).inc();
}

/// `policy`: its name, which the control plane says.
pub fn fault_injected(service: &str, policy: &str, kind: &'static str) {
    let labels = [service, policy, kind];
    METRICS.faults_injected.with_label_values(&labels).inc();
}

pub fn fault_spared(service: &str) {
    METRICS.faults_spared.with_label_values(&[service]).inc();
}

pub fn stale_kept(answers: usize, bytes: usize) {
    let number = |size| i64::try_from(size).unwrap_or(i64::MAX);
    METRICS.stale_answers.set(number(answers));
    METRICS.stale_bytes.set(number(bytes));
}

/// The handles of one route of one service, in one direction.
pub struct RouteMetrics {
    /// success, failure, cancelled × plain, mutual TLS.
    requests: [[IntCounter; 2]; 3],
    duration: Histogram,
    direction: Direction,
    service: String,
}

impl RouteMetrics {
    pub fn new(direction: Direction, service: &str, route: &str) -> Self {
        let one = |class, tls| {
            METRICS
                .requests
                .with_label_values(&[direction.as_str(), service, route, class, tls])
        };
        let both = |class| [one(class, "none"), one(class, "mtls")];
        Self {
            requests: [both("success"), both("failure"), both("cancelled")],
            duration: METRICS
                .duration
                .with_label_values(&[direction.as_str(), service, route]),
            direction,
            service: service.to_owned(),
        }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn observe(&self, outcome: Outcome, mutual_tls: bool, seconds: f64) {
        let class = match outcome {
            Outcome::Success => 0,
            Outcome::Failure(_) => 1,
            Outcome::Cancelled => 2,
        };
        self.requests[class][usize::from(mutual_tls)].inc();
        self.duration.observe(seconds);
    }

    /// Off the common path, so a label look-up is fine.
    pub fn refused(&self, reason: &str) {
        METRICS
            .refused
            .with_label_values(&[self.direction.as_str(), &self.service, reason])
            .inc();
    }
}

/// Off the common path, like [`refused`].
pub fn would_refuse(direction: Direction, service: &str, reason: &str) {
    METRICS
        .would_refuse
        .with_label_values(&[direction.as_str(), service, reason])
        .inc();
}

pub fn refused(direction: Direction, service: &str, reason: &str) {
    METRICS
        .refused
        .with_label_values(&[direction.as_str(), service, reason])
        .inc();
}

/// What is known of the load of apps.
struct InboundVecs {
    in_flight: IntGaugeVec,
    streams: IntGaugeVec,
    queued: IntGaugeVec,
    limit: IntGaugeVec,
    utilisation: GaugeVec,
    offered: IntCounterVec,
    admitted: IntCounterVec,
    shed: IntCounterVec,
    waited: IntCounterVec,
    queue_delay: CounterVec,
    saturated: CounterVec,
    is_saturated: IntGaugeVec,
}

/// The handles of one service's load. They are brought up to date when somebody looks, so a request pays nothing.
pub struct InboundMetrics {
    service: String,
    in_flight: IntGauge,
    streams: IntGauge,
    queued: IntGauge,
    limit: IntGauge,
    utilisation: Gauge,
    offered: IntCounter,
    admitted: IntCounter,
    waited: IntCounter,
    queue_delay: Counter,
    saturated: Counter,
    is_saturated: IntGauge,
}

impl InboundMetrics {
    pub fn new(service: &str) -> Self {
        let of = &METRICS.inbound;
        let label = &[service];
        Self {
            service: service.to_owned(),
            in_flight: of.in_flight.with_label_values(label),
            streams: of.streams.with_label_values(label),
            queued: of.queued.with_label_values(label),
            limit: of.limit.with_label_values(label),
            utilisation: of.utilisation.with_label_values(label),
            offered: of.offered.with_label_values(label),
            admitted: of.admitted.with_label_values(label),
            waited: of.waited.with_label_values(label),
            queue_delay: of.queue_delay.with_label_values(label),
            saturated: of.saturated.with_label_values(label),
            is_saturated: of.is_saturated.with_label_values(label),
        }
    }

    pub fn saturated(&self, is: bool) {
        self.is_saturated.set(is.into());
    }

    /// Counters go up by what has come since `published`.
    pub fn publish(&self, load: &Load, published: &Counts) {
        self.in_flight.set(load.in_flight.into());
        self.streams.set(load.streams.into());
        self.queued.set(load.queued.into());
        self.limit.set(load.limit.into());
        self.utilisation
            .set(f64::from(load.in_flight) / f64::from(load.limit.max(1)));
        let counts = &load.counts;
        self.offered.inc_by(counts.offered - published.offered);
        self.admitted.inc_by(counts.admitted - published.admitted);
        self.waited.inc_by(counts.waited - published.waited);
        self.queue_delay
            .inc_by((counts.waited_for - published.waited_for).as_secs_f64());
        self.saturated
            .inc_by((counts.saturated - published.saturated).as_secs_f64());
        for tier in Tier::ALL {
            for reason in Reason::ALL {
                let shed = |counts: &Counts| counts.shed[tier.index()][reason as usize];
                let more = shed(counts) - shed(published);
                // Only what happens has a series: 30 of zeros for each service help nobody.
                if more > 0 {
                    METRICS
                        .inbound
                        .shed
                        .with_label_values(&[&self.service, tier.as_str(), reason.as_str()])
                        .inc_by(more);
                }
            }
        }
    }
}

/// The handle of one rate limit of a service.
pub fn rate_limited(service: &str, per: &str, mode: Mode) -> IntCounter {
    METRICS
        .rate_limited
        .with_label_values(&[service, per, mode_name(mode)])
}

/// The handles of the throttle of one service.
pub struct ThrottleMetrics {
    /// enforce, observe
    throttled: [IntCounter; 2],
    throttling: IntGauge,
}

impl ThrottleMetrics {
    pub fn new(service: &str) -> Self {
        let of = |mode| {
            METRICS
                .throttled
                .with_label_values(&[service, mode_name(mode)])
        };
        Self {
            throttled: [of(Mode::Enforce), of(Mode::Observe)],
            throttling: METRICS.throttling.with_label_values(&[service]),
        }
    }

    pub fn throttling(&self, is: bool) {
        self.throttling.set(is.into());
    }

    pub fn throttled(&self, mode: Mode) {
        self.of(mode).inc();
    }

    pub fn count(&self, mode: Mode) -> u64 {
        self.of(mode).get()
    }

    fn of(&self, mode: Mode) -> &IntCounter {
        match mode {
            Mode::Enforce => &self.throttled[0],
            Mode::Observe => &self.throttled[1],
        }
    }
}

/// The handles of the hedging of one service.
pub struct HedgeMetrics {
    /// won, lost, failed, observed
    hedges: [IntCounter; 4],
    withheld: [IntCounter; Withheld::ALL.len()],
}

impl HedgeMetrics {
    pub fn new(service: &str) -> Self {
        let result = |result| METRICS.hedges.with_label_values(&[service, result]);
        let withheld = |reason: Withheld| {
            METRICS
                .hedges_withheld
                .with_label_values(&[service, reason.as_str()])
        };
        Self {
            hedges: ["won", "lost", "failed", "observed"].map(result),
            withheld: Withheld::ALL.map(withheld),
        }
    }

    /// It answered first.
    pub fn won(&self) {
        self.hedges[0].inc();
    }

    /// The first try did.
    pub fn lost(&self) {
        self.hedges[1].inc();
    }

    /// It had no good answer.
    pub fn failed(&self) {
        self.hedges[2].inc();
    }

    /// It would have been made.
    pub fn observed(&self) {
        self.hedges[3].inc();
    }

    pub fn withheld(&self, reason: Withheld) {
        self.withheld[reason as usize].inc();
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// The handles of one backend.
pub struct BackendMetrics {
    service: String,
    attempts: [IntCounter; 3],
    pub retries: IntCounter,
    pub opaque_connections: IntGauge,
}

impl BackendMetrics {
    pub fn new(service: &str) -> Self {
        let attempts = |class| METRICS.attempts.with_label_values(&[service, class]);
        Self {
            service: service.to_owned(),
            attempts: [
                attempts("success"),
                attempts("failure"),
                attempts("cancelled"),
            ],
            retries: METRICS.retries.with_label_values(&[service]),
            opaque_connections: METRICS.opaque_connections.with_label_values(&[service]),
        }
    }

    pub fn attempt(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => &self.attempts[0],
            Outcome::Failure(_) => &self.attempts[1],
            Outcome::Cancelled => &self.attempts[2],
        }
        .inc();
    }

    pub fn endpoint_changed(&self, endpoint: &str, transition: &Transition) {
        let ejected = [&self.service, transition.why.as_str()];
        if !transition.enforced {
            METRICS.would_eject.with_label_values(&ejected).inc();
            return;
        }
        METRICS
            .endpoint_state
            .with_label_values(&[&self.service, endpoint])
            .set(number(transition.to));
        if transition.to == Phase::Open {
            METRICS.ejections.with_label_values(&ejected).inc();
        }
    }

    pub fn endpoint_gone(&self, endpoint: &str) {
        let _ = METRICS
            .endpoint_state
            .remove_label_values(&[&self.service, endpoint]);
    }

    pub fn breaker_state(&self, route: &str, phase: Phase) {
        METRICS
            .breaker_state
            .with_label_values(&[&self.service, route])
            .set(number(phase));
    }

    pub fn breaker_changed(&self, route: &str, transition: &Transition, forced: bool) {
        self.breaker_state(route, transition.to);
        METRICS
            .breaker_forced
            .with_label_values(&[&self.service, route])
            .set(forced.into());
        METRICS
            .breaker_transitions
            .with_label_values(&[
                &self.service,
                route,
                transition.to.as_str(),
                transition.why.as_str(),
            ])
            .inc();
    }

    /// Off the common path: only while a policy observes and would refuse.
    pub fn would_refuse(&self, reason: &str) {
        would_refuse(Direction::Outbound, &self.service, reason);
    }
}

fn number(phase: Phase) -> i64 {
    match phase {
        Phase::Closed => 0,
        Phase::Open => 1,
        Phase::HalfOpen => 2,
        Phase::Ramping => 3,
    }
}

pub fn connection(direction: Direction, service: &str, mutual_tls: bool, protocol: &str) {
    let tls = if mutual_tls { "mtls" } else { "none" };
    METRICS
        .connections
        .with_label_values(&[direction.as_str(), service, tls, protocol])
        .inc();
}

pub fn open_connections(direction: Direction) -> IntGauge {
    METRICS
        .open_connections
        .with_label_values(&[direction.as_str()])
}

pub fn rejected_connection(direction: Direction, reason: &str) {
    METRICS
        .rejected_connections
        .with_label_values(&[direction.as_str(), reason])
        .inc();
}

/// What was decided about a connection's protocol, and why: HTTP policy is never lost silently.
pub fn detected(direction: Direction, service: &str, verdict: &str, why: &str) {
    METRICS
        .detection
        .with_label_values(&[direction.as_str(), service, verdict, why])
        .inc();
}

pub fn control_plane_connected(connected: bool) {
    METRICS.control_plane.set(connected.into());
}

pub fn pushed(accepted: bool, version: u64) {
    if accepted {
        METRICS
            .policy_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
    }
    METRICS
        .pushes
        .with_label_values(&[if accepted { "accepted" } else { "refused" }])
        .inc();
}

pub fn not_inherited() {
    METRICS.not_inherited.inc();
}

pub fn fact_lost() {
    METRICS.facts_lost.inc();
}

pub fn certificate(identity: &str, expires_unix: f64) {
    METRICS
        .certificate_expiry
        .with_label_values(&[identity])
        .set(expires_unix);
}

pub fn panicked() {
    METRICS.panics.inc();
}

/// The Prometheus text format.
pub fn render() -> Vec<u8> {
    let mut text = Vec::new();
    // Writing into memory fails only for a metric without a name, and none is made.
    let _ = TextEncoder::new().encode(&METRICS.registry.gather(), &mut text);
    text
}
