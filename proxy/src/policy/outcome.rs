//! What became of a call, in the few words that policies tell apart.
//!
//! The layers map statuses, resets and timeouts to these (the table is in `error.rs`); a policy never sees
//! a status code. A client error (4xx, gRPC INVALID_ARGUMENT and its like) is a *success* here: the endpoint
//! did its work.

/// How a call ended, for the policies that learn from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(Fault),
    /// The caller went away before the outcome was known: neither good nor bad.
    Cancelled,
}

/// Why a call failed, as far as it matters for whom to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The endpoint's: connect or TLS error, reset, 5xx, gRPC UNAVAILABLE, INTERNAL, UNKNOWN or DATA_LOSS
    /// or no status at all, per-try timeout.
    Hard,
    /// It answered that it has too much to do: 429, 503 marked as overload, RESOURCE_EXHAUSTED. A reason to
    /// send it less, not to send it nothing: ejecting it would push its load onto the others.
    Overload,
    /// The caller's own deadline was too short to tell. No evidence that the endpoint is broken, but a
    /// penalty when endpoints are compared.
    Deadline,
}
