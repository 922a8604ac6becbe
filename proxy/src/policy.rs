//! The policies, pure: each decides, none acts.
//!
//! A policy is a struct with `admit(now, …)` and `record(outcome, now)`. Time and randomness come in as
//! arguments; there is no socket, no lock, no task and no clock inside, so the same struct runs in the proxy,
//! in unit and property tests, in paused time and in a simulator. The tower layers that ask and obey are in
//! `layer/`.
//!
//! | module | decides | source |
//! |---|---|---|
//! | [`breaker`] | whether a service may be called at all | resilience4j |
//! | [`gate`] | whether one endpoint may be called, when it is probed and how it comes back | linkerd, gRFC A50, ours |
//! | [`stall`] | when an endpoint's silence means that it hangs | ours |
//! | [`ramp`] | the share of calls of an endpoint that is new or comes back | Envoy slow start |
//! | [`ewma`] | what a call to an endpoint costs, failures priced in | Finagle, linkerd |
//! | [`aperture`] | how many endpoints of a large pool are called | Finagle, gRFC A68 |
//! | [`ring`] | which endpoint a key belongs to, and who is next | Karger 1997, Mirrokni 2016 |
//! | [`latency`] | p50 and p99 of a pool | HdrHistogram |
//! | [`retry`] | whether a failed attempt is worth another one | gRFC A6, SRE book |
//! | [`terms`] | what a rule of a route says of deadline and tries in a policy's place | GEP-1742, GEP-1731 |
//! | [`budget`] | whether an extra attempt can be afforded | AWS SDKs, gRFC A6 |
//! | [`pushback`] | when an endpoint that failed wants to be asked again | gRFC A6, RFC 9110 |
//! | [`deadline`] | how long the caller waits, and what the next hop is told | gRPC, Envoy |
//! | [`inheritance`] | what the calls that an app makes take over from the call that it answers | ours |
//! | [`doomed`] | whether the app can still answer in time | Finagle |
//! | [`concurrency`] | whether a call may start, waits, or is refused | bulkhead |
//! | [`queue`] | whose turn it is | |
//! | [`admission`] | who gets into the app, who waits, who is turned away | puts the next six together |
//! | [`knee`] | how many requests the app can work on at once | Protego, Gradient2; ours |
//! | [`fair`] | whose turn it is among callers and tiers | fq_codel, CoDel, adaptive LIFO |
//! | [`callers`] | who wants more than its share | max-min fairness |
//! | [`headroom`] | places kept free for higher tiers, as many as they had to wait for or are slowed by | ours |
//! | [`pace`] | whether a tier takes longer in the app than it usually does | ours |
//! | [`cutoff`] | down to which priority requests are taken | DAGOR, Cinnamon |
//! | [`priority`] | whose request comes first when not all can be served | Cinnamon, DAGOR |
//! | [`authorize`] | who may call what | SPIFFE; ours |
//! | [`rate_limit`] | whether a caller asks more often than it may | GCRA |
//! | [`throttle`] | whether an overloaded service is asked at all | SRE book |
//! | [`load`] | how busy an endpoint says it is | ORCA, Prequal |
//! | [`episode`] | whether what comes and goes is worth telling people | |
//! | [`hedge`] | whether a slow call is made a second time | The Tail at Scale |
//! | [`fault`] | what goes wrong with a try on purpose | Envoy, gRFC A33; ours |
//! | [`stale`] | which answers are kept, and who gets them when nobody gives a fresh one | RFC 5861, RFC 9111 |
//!
//! and the words they share: [`outcome`] (success, failure and whose fault, cancelled), [`transition`] (the
//! facts that breakers and gates report), [`window`] (exact counts over a sliding span), [`jitter`]. The choice
//! among endpoints is [`balance`](crate::balance).

pub mod admission;
pub mod aperture;
pub mod authorize;
pub mod breaker;
pub mod budget;
pub mod callers;
pub mod concurrency;
pub mod cutoff;
pub mod deadline;
pub mod doomed;
pub mod episode;
pub mod ewma;
pub mod fair;
pub mod fault;
pub mod gate;
pub mod headroom;
pub mod hedge;
pub mod inheritance;
pub mod jitter;
pub mod knee;
pub mod latency;
pub mod load;
pub mod memory;
pub mod outcome;
pub mod pace;
pub mod priority;
pub mod pushback;
pub mod queue;
pub mod ramp;
pub mod rate_limit;
pub mod retry;
pub mod ring;
pub mod stale;
pub mod stall;
pub mod terms;
pub mod throttle;
pub mod transition;
pub mod window;
