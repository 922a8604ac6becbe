//! Which endpoint gets a call: one that is due for a probe, else the one that the call's key says, else the cheaper of
//! two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::request::Parts;
use tokio::time::Instant;

use super::{Chosen, Endpoints, Members};
use crate::balance::Candidate;
use crate::error::Error;
use crate::learnt::{Config, Started};
use crate::member::Member;
use crate::policy::ring::{self, Bound, Place, Ring};
use crate::request::{Context, Request};

impl Endpoints {
    /// For bytes that nobody looks at.
    pub fn choose(self: &Arc<Self>, context: &Context) -> Result<Chosen, Error> {
        self.choose_for(context, None, Instant::now())
    }

    pub fn choose_for_request(self: &Arc<Self>, request: &Request) -> Result<Chosen, Error> {
        let context = &request.context;
        self.choose_for(context, Some(&request.head), context.begun)
    }

    /// Chooses, and counts the call as in flight there.
    fn choose_for(
        self: &Arc<Self>,
        context: &Context,
        head: Option<&Parts>,
        now: Instant,
    ) -> Result<Chosen, Error> {
        let list = self.list.load();
        if list.is_empty() {
            return Err(Error::NoEndpoints {
                service: self.service.to_string(),
            });
        }
        if self.tally.half_open() > 0
            && !context.hedge
            && let Some(probe) = self.claim_probe(&list, context, now)
        {
            return Ok(probe);
        }
        let config = self.config.load();
        let unbounded;
        let observes = self.observes.load(Ordering::Relaxed);
        if observes && head.is_some() && self.is_full(&list, config.per_endpoint_max) {
            self.metrics.would_refuse("per-endpoint-limit");
        }
        let config = if head.is_some() && !observes {
            &**config
        } else {
            // How many connections there may be has been asked before, for all endpoints together.
            unbounded = Config {
                per_endpoint_max: u32::MAX,
                ..**config
            };
            &unbounded
        };
        // Where a connection goes, those that are there weigh as much as calls: they may all begin to speak.
        let in_flight_of = |member: &Member| match head {
            Some(_) => member.in_flight(),
            None => member.in_flight() + member.connections(),
        };
        let index_of =
            |address: &SocketAddr| list.iter().position(|member| member.address() == *address);
        let tried: Vec<usize> = context.tried.iter().filter_map(index_of).collect();
        let candidate = |index: usize| {
            let member = &list[index];
            let in_flight = in_flight_of(member);
            let mut candidate = member.learnt().candidate(
                config,
                in_flight,
                member.is_draining(),
                || self.p99(),
                now,
            );
            if let Some(share) = list.share(index) {
                candidate.load = candidate.load.with_share(share, in_flight);
            }
            candidate
        };
        let by_key = match &list.ring {
            Some(ring) => self.choose_by_key(ring, &list, head, &tried, candidate),
            None => None,
        };
        let mut rng = fastrand::Rng::new();
        let reach = [0, 1].map(|part| self.reach[part].load(Ordering::Relaxed));
        let pool = list.pool(self.tally.out(), reach);
        let chosen = by_key.or_else(|| pool.choose(&tried, &mut rng, candidate));
        // A second try beside the first is of use elsewhere only.
        let is_elsewhere = |index: &usize| !context.hedge || !tried.contains(index);
        let Some(index) = chosen.filter(is_elsewhere) else {
            let count =
                |test: fn(&Member) -> bool| list.iter().filter(|member| test(member)).count();
            return Err(Error::NoEndpointAvailable {
                service: self.service.to_string(),
                ejected: count(|member| !member.is_eligible()),
                draining: count(Member::is_draining),
                busy: list
                    .iter()
                    .filter(|e| e.in_flight() >= config.per_endpoint_max)
                    .count(),
            });
        };
        let member = &list[index];
        let bounded = context.deadline.instant().is_some();
        let call = member.learnt().start(bounded, now);
        Ok(self.started(member, call))
    }

    /// Whether all that would be called have as many calls in flight as they may.
    fn is_full(&self, list: &Members, per_endpoint_max: u32) -> bool {
        let mut called = list
            .iter()
            .filter(|member| member.is_eligible() && !member.is_draining())
            .peekable();
        called.peek().is_some() && called.all(|member| member.in_flight() >= per_endpoint_max)
    }

    /// `None`: the call has no key, or nobody near its place on the ring can take it.
    fn choose_by_key(
        &self,
        ring: &Ring,
        list: &[Arc<Member>],
        head: Option<&Parts>,
        tried: &[usize],
        candidate: impl Fn(usize) -> Candidate,
    ) -> Option<usize> {
        let affinity = self.affinity.load();
        let affinity = affinity.as_ref()?;
        let key = affinity.key(head, || self.own_key())?;
        let out = self.tally.out();
        let connections = match head {
            Some(_) => 0,
            None => self.connections.load(Ordering::Relaxed),
        };
        let bound = Bound {
            in_flight: self.in_flight.load(Ordering::Relaxed) + connections,
            factor: affinity.bound,
            available: list.len().saturating_sub(out).max(1) as f64 / list.len() as f64,
        };
        ring.choose(key, bound, tried, |index| Place {
            candidate: candidate(index),
            in_flight: match head {
                Some(_) => list[index].in_flight(),
                None => list[index].in_flight() + list[index].connections(),
            },
            weight: list[index].weight(),
        })
    }

    /// Who this workload is, as a key. `None` until it has a certificate.
    fn own_key(&self) -> Option<u64> {
        let own = self.connector.identity.current()?;
        Some(ring::hash(own.id.as_str().as_bytes()))
    }

    /// An endpoint that has just passed its synthetic probe needs a real request, and no balancer would choose it.
    fn claim_probe(
        self: &Arc<Self>,
        list: &[Arc<Member>],
        context: &Context,
        now: Instant,
    ) -> Option<Chosen> {
        // What has failed at one of them is no probe of it: it was to go elsewhere.
        let wants = |e: &&Arc<Member>| {
            e.mirror.is_half_open() && !e.is_draining() && !context.tried.contains(&e.address())
        };
        for member in list.iter().filter(wants) {
            let bounded = context.deadline.instant().is_some();
            let call = (member.learnt()).start_probe(context.replayable, bounded, now);
            if let Some(call) = call {
                return Some(self.started(member, call));
            }
        }
        None
    }

    pub(super) fn started(self: &Arc<Self>, member: &Arc<Member>, call: Started) -> Chosen {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        Chosen {
            member: member.clone(),
            endpoints: self.clone(),
            call,
            race: None,
            is_connection: false,
            connect_failed: false,
            retry_after: None,
            over_quota: false,
        }
    }
}
