//! All that a run needs to know. Its parts were checked when they were made.

use std::time::Duration;

use hyper::http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::bounds::Bounds;
use crate::grpc::GrpcCall;
use crate::journey::Journeys;
use crate::rate::Rate;
use crate::schedule::{Arrivals, Schedule};
use crate::target::Target;

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub work: Work,
    pub rate: Rate,
    pub arrivals: Arrivals,
    pub bounds: Bounds,
    /// The same seed gives the same arrivals, journeys, products and visitors; but who checks out, if anybody can, depends on
    /// who has something in the cart by then.
    pub seed: u64,
    /// On every request, besides what its journey says.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug)]
pub enum Work {
    /// HTTP/1.1 with a pool of kept connections.
    Http(Journeys),
    /// One unary call over and over, on a fixed number of HTTP/2 connections.
    Grpc(GrpcCall),
}

impl Plan {
    /// When requests will be sent. Calling this changes nothing: a run draws the same.
    pub fn schedule(&self) -> Schedule {
        let weights = match &self.work {
            Work::Http(journeys) => journeys.weights(),
            Work::Grpc(_) => Vec::new(),
        };
        let rate = self.rate.clone();
        Schedule::new(rate, self.arrivals, &self.bounds, weights, self.seed)
    }

    /// Connections that may be needed at once.
    pub fn max_in_flight(&self) -> usize {
        self.bounds.in_flight()
    }

    pub(crate) fn journeys(&self) -> Vec<String> {
        match &self.work {
            Work::Http(journeys) => journeys.names(),
            Work::Grpc(call) => vec![call.path().to_owned()],
        }
    }

    pub(crate) fn describe(&self) -> Description {
        Description {
            target: self.target.authority().to_string(),
            protocol: match self.work {
                Work::Http(_) => "http/1.1",
                Work::Grpc(_) => "grpc",
            },
            rate: self.rate.to_string(),
            arrivals: match self.arrivals {
                Arrivals::Constant => "constant",
                Arrivals::Poisson => "poisson",
            },
            seed: self.seed,
            duration_s: self.bounds.end().as_secs_f64(),
            timeout_s: self.bounds.request_timeout().as_secs_f64(),
            max_in_flight: self.bounds.in_flight(),
            max_requests: self.bounds.requests(),
        }
    }
}

/// The plan as a report tells it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Description {
    target: String,
    protocol: &'static str,
    rate: String,
    arrivals: &'static str,
    seed: u64,
    duration_s: f64,
    timeout_s: f64,
    max_in_flight: usize,
    max_requests: u64,
}

impl Description {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }
}
