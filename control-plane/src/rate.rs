//! A token bucket: so many a second, and so many at once; and one for each of many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// That are counted at a time.
const BUCKETS_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled_at: None,
        }
    }

    pub fn admit(&mut self, now: Instant) -> bool {
        let before = self.filled_at.replace(now).unwrap_or(now);
        let earned = now.saturating_duration_since(before).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Whether the next would be refused.
    pub fn is_empty(&self, now: Instant) -> bool {
        !self.clone().admit(now)
    }

    /// Whether it has forgotten everything, so that a new one would say the same.
    pub fn is_full(&self, now: Instant) -> bool {
        let Some(filled_at) = self.filled_at else {
            return true;
        };
        let earned = now.saturating_duration_since(filled_at).as_secs_f64() * self.per_second;
        self.tokens + earned >= self.burst
    }
}

/// A bucket for each; all clones are the same buckets.
#[derive(Clone)]
pub struct Buckets<K> {
    new: Bucket,
    by_key: Arc<Mutex<HashMap<K, Bucket>>>,
}

impl<K: Hash + Eq> Buckets<K> {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self {
            new: Bucket::new(per_second, burst),
            by_key: Arc::default(),
        }
    }

    pub fn admit(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.lock();
        // Forgets whom there is nothing to hold against; when that is not enough, everybody.
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now));
            if buckets.len() >= BUCKETS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert_with(|| self.new.clone());
        bucket.admit(now)
    }

    /// Whether the next would be refused.
    pub fn is_empty(&self, key: &K, now: Instant) -> bool {
        let buckets = self.lock();
        buckets.get(key).is_some_and(|bucket| bucket.is_empty(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Bucket>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let mut bucket = Bucket::new(2.0, 3.0);
        let now = Instant::now();
        assert_eq!((0..5).filter(|_| bucket.admit(now)).count(), 3);
        assert!(!bucket.is_full(now));
        assert_eq!(
            (0..5)
                .filter(|_| bucket.admit(now + Duration::from_secs(1)))
                .count(),
            2
        );
        assert!(bucket.is_full(now + Duration::from_secs(10)));
    }

    #[test]
    fn each_has_a_bucket_of_its_own_and_strangers_without_end_cost_bounded_memory() {
        let buckets = Buckets::new(1.0, 2.0);
        let now = Instant::now();
        assert!(buckets.admit(0, now) && buckets.admit(0, now) && !buckets.admit(0, now));
        assert!(buckets.is_empty(&0, now) && !buckets.is_empty(&1, now));
        assert!(buckets.admit(1, now));
        for key in 0..3 * BUCKETS_MAX {
            buckets.admit(key, now);
            assert!(buckets.lock().len() <= BUCKETS_MAX);
        }
    }
}
