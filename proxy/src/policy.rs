//! The policies, pure: each decides, none acts.
//!
//! A policy is a struct with `admit(now, …)` and `record(outcome, now)`. Time and randomness come in as
//! arguments; there is no socket, no lock, no task and no clock inside, so the same struct runs in the proxy,
//! in unit and property tests, in paused time and in a simulator. The tower layers that ask and obey are in
//! `layer/`.
//!
//! | module | decides | source |
//! |---|---|---|
//! | [`outcome`] | – the words: success, failure and whose fault, cancelled | |
//! | [`transition`] | – the facts that breakers and gates report | |
//! | [`window`] | – exact counts over a sliding span | Hystrix |
//! | [`jitter`] | – by how much waits vary | Brooker 2015 |
//! | [`breaker`] | whether a service may be called at all | resilience4j |
//! | [`gate`] | whether one endpoint may be called, when it is probed and how it comes back | linkerd, gRFC A50, ours |
//! | [`stall`] | when an endpoint's silence means that it hangs | ours |
//! | [`ramp`] | the share of calls of an endpoint that is new or comes back | Envoy slow start |

pub mod breaker;
pub mod gate;
pub mod jitter;
pub mod outcome;
pub mod ramp;
pub mod stall;
pub mod transition;
pub mod window;
