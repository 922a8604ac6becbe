//! A token bucket: so many a second, and so many at once.

use tokio::time::Instant;

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
}
