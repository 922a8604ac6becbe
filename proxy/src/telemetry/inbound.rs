//! What a service's own sidecar knows of its load, and the callers that it held to a rate.

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use weir_config::snapshot::Mode;

use super::{METRICS, Registrar, mode_name};
use crate::layer::admission::Load;
use crate::policy::admission::{Counts, Reason};
use crate::policy::priority::Tier;

pub(super) struct Families {
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
    rate_limited: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            in_flight: of.gauge(
                "weir_inbound_in_flight",
                "Requests in the app now, streams apart.",
                &["service"],
            ),
            streams: of.gauge(
                "weir_inbound_streams",
                "Upgraded connections, event streams and long polls in the app now.",
                &["service"],
            ),
            queued: of.gauge(
                "weir_inbound_queued",
                "Requests that wait for the app now.",
                &["service"],
            ),
            limit: of.gauge(
                "weir_inbound_limit",
                "Requests that the app can work on at once, as it was learnt.",
                &["service"],
            ),
            utilisation: of.float_gauge(
                "weir_inbound_utilisation_ratio",
                "In flight over the limit: what to scale on.",
                &["service"],
            ),
            offered: of.counter(
                "weir_inbound_offered_total",
                "Requests that came for the app, shed ones included.",
                &["service"],
            ),
            admitted: of.counter(
                "weir_inbound_admitted_total",
                "Requests that got into the app.",
                &["service"],
            ),
            shed: of.counter(
                "weir_inbound_shed_total",
                "Requests turned away, or that would have been where the limit only observes.",
                &["service", "tier", "reason"],
            ),
            waited: of.counter(
                "weir_inbound_queued_total",
                "Requests that waited and got in.",
                &["service"],
            ),
            queue_delay: of.float_counter(
                "weir_inbound_queue_delay_seconds_total",
                "How long those waited, in all.",
                &["service"],
            ),
            saturated: of.float_counter(
                "weir_inbound_saturated_seconds_total",
                "How long requests found no room in the app.",
                &["service"],
            ),
            is_saturated: of.gauge(
                "weir_inbound_saturated",
                "1 while requests find no room in the app again and again.",
                &["service"],
            ),
            rate_limited: of.counter(
                "weir_rate_limited_total",
                "Requests above a rate limit; with mode=observe they passed all the same.",
                &["service", "per", "mode"],
            ),
        }
    }
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
        .inbound
        .rate_limited
        .with_label_values(&[service, per, mode_name(mode)])
}
