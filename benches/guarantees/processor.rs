//! Simulated work of another kind: cores that all work in hand shares evenly, and that may get less done the more there is of it
//! (locks, caches, garbage).
//!
//! Egalitarian processor sharing: each piece advances by `min(1, cores / n)` of a second a second. All advance alike, so one
//! number (`done`) is the work that a piece present all the time would have had; a piece is finished when that has grown by
//! what it takes. Completions are computed, not waited for: a timer that fires late takes no capacity away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

/// Work done, and what tells pieces apart that end at the same time.
type Due = (Duration, u64);

pub struct Processor(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    cores: f64,
    /// With more than this in hand, the cores get less done, in proportion.
    thrashes_above: Option<usize>,
    done: Duration,
    since: Instant,
    pieces: BTreeMap<Due, oneshot::Sender<()>>,
    next: u64,
}

/// A piece in hand; whoever goes away takes it along.
struct InHand<'a> {
    shared: &'a Shared,
    due: Due,
}

impl Processor {
    /// Must be made within a runtime: it keeps a task there until it is dropped.
    pub fn new(cores: f64, thrashes_above: Option<usize>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                cores,
                thrashes_above,
                done: Duration::ZERO,
                since: Instant::now(),
                pieces: BTreeMap::new(),
                next: 0,
            }),
            changed: Notify::new(),
        });
        tokio::spawn(finish_in_time(Arc::downgrade(&shared)));
        Self(shared)
    }

    pub async fn work(&self, takes: Duration) {
        let (sender, finished) = oneshot::channel();
        let due = self.0.advanced().take_in_hand(takes, sender);
        self.0.changed.notify_one();
        let _in_hand = InHand {
            shared: &self.0,
            due,
        };
        // The sender is dropped with the processor only.
        let _ = finished.await;
    }

    pub fn set_cores(&self, cores: f64) {
        self.0.advanced().cores = cores;
        self.0.changed.notify_one();
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.0.changed.notify_one();
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let was_there = self.shared.advanced().pieces.remove(&self.due);
        if was_there.is_some() {
            self.shared.changed.notify_one();
        }
    }
}

async fn finish_in_time(shared: std::sync::Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let next = shared.advanced().next_completion();
        // While it waits it keeps the processor alive, so it looks now and then whether anybody else does.
        let longest = Instant::now() + Duration::from_secs(1);
        tokio::select! {
            () = sleep_until(next.map_or(longest, |next| next.min(longest))) => {}
            () = shared.changed.notified() => {}
        }
    }
}

impl Shared {
    /// All that is due by now is finished.
    fn advanced(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(Instant::now());
        state
    }
}

impl State {
    fn advance(&mut self, now: Instant) {
        while let Some(at) = self.next_completion()
            && at <= now
        {
            let ((done, _), finished) = self.pieces.pop_first().expect("it completes");
            self.done = done.max(self.done);
            self.since = at;
            // Its caller may be gone.
            let _ = finished.send(());
        }
        let speed = self.speed();
        let passed = now.saturating_duration_since(self.since);
        self.done += passed.mul_f64(speed);
        self.since = self.since.max(now);
    }

    fn take_in_hand(&mut self, takes: Duration, finished: oneshot::Sender<()>) -> Due {
        let due = (self.done + takes, self.next);
        self.next += 1;
        self.pieces.insert(due, finished);
        due
    }

    fn next_completion(&self) -> Option<Instant> {
        let ((due, _), _) = self.pieces.first_key_value()?;
        Some(self.since + due.saturating_sub(self.done).div_f64(self.speed()))
    }

    /// Of one piece.
    fn speed(&self) -> f64 {
        let in_hand = self.pieces.len().max(1) as f64;
        let share = (self.cores / in_hand).min(1.0);
        match self.thrashes_above {
            Some(limit) => share * (limit as f64 / in_hand).min(1.0),
            None => share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_for(processor: Processor, pieces: usize, takes: Duration) -> Duration {
        let processor = Arc::new(processor);
        let begin = Instant::now();
        let work = (0..pieces).map(|_| {
            let processor = processor.clone();
            tokio::spawn(async move { processor.work(takes).await })
        });
        for work in work.collect::<Vec<_>>() {
            work.await.expect("it works");
        }
        begin.elapsed()
    }

    fn is_close(took: Duration, expected_ms: u64) {
        let off = took.abs_diff(Duration::from_millis(expected_ms));
        assert!(off <= Duration::from_millis(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_hand_shares_the_cores_evenly() {
        let takes = Duration::from_millis(10);
        is_close(time_for(Processor::new(8.0, None), 8, takes).await, 10);
        is_close(time_for(Processor::new(8.0, None), 80, takes).await, 100);
    }

    /// Planted bug: leaving `thrashes_above` out of `speed` turns this red.
    #[tokio::test(start_paused = true)]
    async fn with_too_much_in_hand_less_gets_done() {
        let takes = Duration::from_millis(10);
        let processor = Processor::new(8.0, Some(40));
        // All of the same length, so 80 are in hand until the end: half as much a second.
        is_close(time_for(processor, 80, takes).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_the_cores_to_the_others_and_fewer_cores_do_less() {
        let processor = Arc::new(Processor::new(1.0, None));
        let begin = Instant::now();
        let gone = tokio::time::timeout(
            Duration::from_millis(20),
            processor.work(Duration::from_secs(10)),
        );
        let stays = processor.work(Duration::from_millis(30));
        let (gone, ()) = tokio::join!(gone, stays);
        assert!(gone.is_err());
        // 20 ms at half speed, then alone.
        is_close(begin.elapsed(), 40);
        processor.set_cores(0.25);
        let begin = Instant::now();
        processor.work(Duration::from_millis(10)).await;
        is_close(begin.elapsed(), 40);
    }
}
