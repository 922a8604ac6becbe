//! Who got what, second by second: what an experiment is judged by.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// How a request ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Success,
    Failure,
    /// Turned away by a policy, at once: counted, but not among the latencies.
    Refused,
}

/// One second. What is said of requests belongs to the second in which they *arrived*, so that a late answer is not
/// credited to a time that was better.
#[derive(Clone)]
pub struct Second {
    pub offered: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub refused: u64,
    /// Requests sent to servers in this second, first tries included.
    pub attempts: u64,
    /// Good answers that came in this second, whenever they were asked for: goodput.
    pub completed: u64,
    /// Of successes and failures, in µs.
    pub latency: Histogram<u32>,
}

/// Sends are counted this finely, so that herds are seen.
pub const SLOT: Duration = Duration::from_millis(100);

pub struct Record {
    origin: Instant,
    seconds: Vec<Second>,
    /// By server and [`SLOT`].
    sent: Vec<Vec<u32>>,
}

impl Record {
    pub fn new(origin: Instant, servers: usize) -> Self {
        Self {
            origin,
            seconds: Vec::new(),
            sent: vec![Vec::new(); servers],
        }
    }

    /// A request arrived.
    pub fn offered(&mut self, now: Instant) {
        self.second(now).offered += 1;
    }

    /// A request, or a repetition of one, goes to a server.
    pub fn sent(&mut self, server: usize, now: Instant) {
        self.second(now).attempts += 1;
        let slot = (now - self.origin).div_duration_f64(SLOT) as usize;
        let slots = &mut self.sent[server];
        if slots.len() <= slot {
            slots.resize(slot + 1, 0);
        }
        slots[slot] += 1;
    }

    /// The request that arrived then has ended now.
    pub fn ended(&mut self, arrived: Instant, now: Instant, end: End) {
        if end == End::Success {
            self.second(now).completed += 1;
        }
        let second = self.second(arrived);
        match end {
            End::Success => second.succeeded += 1,
            End::Failure => second.failed += 1,
            End::Refused => {
                second.refused += 1;
                return;
            }
        }
        second
            .latency
            .saturating_record((now - arrived).as_micros() as u64);
    }

    /// All of the seconds from … to …, as one.
    pub fn over(&self, seconds: Range<u64>) -> Second {
        let mut all = Second::new();
        for second in self.seconds(seconds) {
            all.add(second);
        }
        all
    }

    /// Each of these seconds, as far as anything happened.
    pub fn seconds(&self, seconds: Range<u64>) -> &[Second] {
        let end = (seconds.end as usize).min(self.seconds.len());
        &self.seconds[(seconds.start as usize).min(end)..end]
    }

    /// What a server was sent from … to …, in slots of [`SLOT`].
    pub fn sends(&self, server: usize, span: Range<Duration>) -> impl Iterator<Item = u32> {
        let slot = |at: Duration| at.div_duration_f64(SLOT).round() as usize;
        (slot(span.start)..slot(span.end))
            .map(move |slot| self.sent[server].get(slot).copied().unwrap_or(0))
    }

    fn second(&mut self, at: Instant) -> &mut Second {
        let index = (at - self.origin).as_secs() as usize;
        while self.seconds.len() <= index {
            self.seconds.push(Second::new());
        }
        &mut self.seconds[index]
    }
}

impl Second {
    fn new() -> Self {
        Self {
            offered: 0,
            succeeded: 0,
            failed: 0,
            refused: 0,
            attempts: 0,
            completed: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds of a histogram"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.refused += other.refused;
        self.attempts += other.attempts;
        self.completed += other.completed;
        self.latency.add(&other.latency).expect("the same bounds");
    }

    /// Of what was offered; 1.0 of nothing.
    pub fn success(&self) -> f64 {
        share(self.succeeded, self.offered)
    }

    pub fn refused_share(&self) -> f64 {
        1.0 - share(self.offered - self.refused, self.offered)
    }

    /// Attempts for each request that was offered.
    pub fn amplification(&self) -> f64 {
        share(self.attempts, self.offered)
    }

    /// In milliseconds; `share` 0.0 to 1.0.
    pub fn quantile(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1000.0
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    part as f64 / whole as f64
}

#[test]
fn a_request_counts_in_the_second_of_its_arrival_and_goodput_in_that_of_its_answer() {
    let origin = Instant::now();
    let at = |millis| origin + Duration::from_millis(millis);
    let mut record = Record::new(origin, 2);
    record.offered(at(900));
    record.sent(1, at(900));
    record.sent(1, at(1100));
    record.ended(at(900), at(1200), End::Success);
    record.offered(at(1500));
    record.ended(at(1500), at(1500), End::Refused);
    let (first, second) = (record.over(0..1), record.over(1..9));
    assert_eq!((first.success(), first.completed), (1.0, 0));
    assert_eq!((second.success(), second.completed), (0.0, 1));
    assert_eq!((second.refused_share(), second.latency.len()), (1.0, 0));
    assert!((295.0..305.0).contains(&first.quantile(0.99)));
    let sends: Vec<_> = record
        .sends(1, Duration::from_millis(800)..Duration::from_millis(1300))
        .collect();
    assert_eq!(sends, [0, 1, 0, 1, 0]);
}
