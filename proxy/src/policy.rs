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
//! | [`breaker`] | whether a service may be called at all | resilience4j |

pub mod breaker;
pub mod outcome;
pub mod transition;
pub mod window;
