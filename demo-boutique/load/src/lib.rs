//! Load for the boutique, and for benchmarks.
//!
//! **Open loop.** Requests have times at which they are *meant* to be sent, drawn before the run and
//! independent of how the target does; latency counts from that time. A target that stalls for a second
//! therefore shows a second of latency for everybody who would have called in it, not only for the few
//! callers a closed loop keeps (what Gil Tene calls coordinated omission).
//!
//! **Bounded by construction.** A [`Plan`] cannot be made without an end, a limit of requests at once and
//! in all, and a [`Target`] in a network it may load: loopback, or a lab's. Nothing is skipped silently:
//! a request that may not start because too many are under way is counted as [`Class::Dropped`].
//!
//! ```no_run
//! # async fn example() -> Result<(), boutique_load::Refused> {
//! use boutique_load::{Arrivals, Bounds, Journeys, Plan, Reach, Target, Work, run};
//! use std::time::Duration;
//!
//! let report = run(
//!     Plan {
//!         target: Target::parse("http://127.0.0.1:8080", &Reach::loopback())?,
//!         work: Work::Http(Journeys::shop()),
//!         rate: "50,200@10s,50@20s".parse()?,
//!         arrivals: Arrivals::Poisson,
//!         bounds: Bounds::new(Duration::from_secs(30))?,
//!         seed: 1,
//!         headers: Vec::new(),
//!     },
//!     |_event| {},
//! )
//! .await;
//! println!("{:?}", report.window(Duration::from_secs(10)..Duration::from_secs(20)).all);
//! # Ok(())
//! # }
//! ```
//!
//! [`run`] wants tokio's real clock, not a paused one: it keeps time with a thread of its own.

mod bounds;
mod carts;
mod grpc;
mod http1;
mod journey;
mod outcome;
mod pacer;
mod plan;
mod rate;
mod report;
mod run;
mod sample;
mod schedule;
mod span;
mod summary;
mod target;

pub use bounds::{Bounds, Refused};
pub use grpc::GrpcCall;
pub use journey::{Journey, Journeys};
pub use outcome::Class;
pub use plan::{Plan, Work};
pub use rate::Rate;
pub use report::{JourneyReport, Point, Report};
pub use run::{Event, Tick, run, run_until};
pub use sample::Sample;
pub use schedule::{Arrival, Arrivals, Schedule};
pub use span::parse_span;
pub use summary::{Percentiles, Summary, Totals};
pub use target::{Network, Reach, Target};
