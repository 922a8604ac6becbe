//! The load: open loop. Nothing that a proxy does delays the next request; a slow answer costs one more connection.

use std::time::Duration;

use hdrhistogram::Histogram;
use http::{HeaderValue, Method};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::{Client, Question, Way};

/// A caller gives up here, long after every deadline that a proxy was told.
const PATIENCE: Duration = Duration::from_secs(5);
/// In microseconds; three digits.
const LATE_MAX: u64 = 60_000_000;

pub struct Load {
    pub ways: Vec<Way>,
    pub method: Method,
    /// In the order of their times.
    pub sends: Vec<Send>,
}

/// One request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Send {
    pub at: Duration,
    /// Which of the ways it goes.
    pub way: usize,
    pub path: &'static str,
    /// It is what the experiment is about, rather than what makes it hard.
    pub watched: bool,
}

/// One request, as the caller knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its place among all that were sent.
    pub number: usize,
    /// When it was meant to be sent.
    pub at: Duration,
    /// By how much later it was sent.
    pub late: Duration,
    /// From the intended time until the whole answer had come, or it was clear that none would.
    pub latency: Duration,
    pub outcome: Outcome,
    pub way: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Answered(u16),
    /// The connection broke, or could not be had.
    Broken,
    GaveUp,
}

impl Outcome {
    pub fn is_good(self) -> bool {
        self == Self::Answered(200)
    }

    /// Told that there is too much to do, rather than let in.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Answered(429 | 503))
    }
}

pub struct Driven {
    /// What is watched, in the order of intended times.
    pub samples: Vec<Sample>,
    /// By how many microseconds requests were sent after they were meant to be.
    pub late: Histogram<u64>,
}

/// Sends everything, and waits for the last answer.
pub async fn drive(load: Load, start: Instant) -> Driven {
    let clients: Vec<Client> = load.ways.iter().map(|way| Client::new(*way)).collect();
    let mut late = Histogram::new_with_max(LATE_MAX, 3).expect("these bounds are fine");
    let mut requests = JoinSet::new();
    for (number, send) in load.sends.iter().copied().enumerate() {
        let intended = start + send.at;
        if intended > Instant::now() {
            sleep_until(intended).await;
        }
        let own = intended.elapsed();
        late.saturating_record(own.as_micros() as u64);
        let client = clients[send.way].clone();
        let question = Question {
            method: load.method.clone(),
            path: send.path,
            traceparent: traceparent(number),
        };
        requests.spawn(async move {
            let asked = timeout(PATIENCE, client.ask(question)).await;
            let sample = Sample {
                number,
                at: send.at,
                late: own,
                latency: intended.elapsed(),
                outcome: match asked {
                    Ok(Some(status)) => Outcome::Answered(status),
                    Ok(None) => Outcome::Broken,
                    Err(_) => Outcome::GaveUp,
                },
                way: send.way,
            };
            send.watched.then_some(sample)
        });
    }
    let samples = requests.join_all().await;
    let mut samples: Vec<Sample> = samples.into_iter().flatten().collect();
    samples.sort_by_key(|sample| sample.at);
    Driven { samples, late }
}

/// Its trace id is the number of the request, from 1 on: zero is not one.
fn traceparent(number: usize) -> HeaderValue {
    let id = number + 1;
    let text = format!("00-{id:032x}-{id:016x}-01");
    HeaderValue::from_str(&text).expect("digits and dashes")
}

/// The number of the request that a `traceparent` belongs to.
pub fn number_of(traceparent: &HeaderValue) -> Option<usize> {
    let id = traceparent.to_str().ok()?.split('-').nth(1)?;
    usize::from_str_radix(id, 16).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_again_by_its_trace_id() {
        for number in [0, 1, 4_000_000] {
            assert_eq!(number_of(&traceparent(number)), Some(number));
        }
        assert_eq!(number_of(&HeaderValue::from_static("00-x-1-01")), None);
    }
}
