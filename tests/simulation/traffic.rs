//! When requests arrive: open loop, whatever becomes of those before.

use std::time::Duration;

use fastrand::Rng;

use crate::server::exponential;

#[derive(Clone, Copy, Debug)]
pub enum Pattern {
    /// Independent callers.
    Poisson,
    /// A load generator.
    Constant,
    /// So many at once, at independent moments.
    Bursts(u32),
}

#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub pattern: Pattern,
    /// Requests a second; may be changed at any time.
    pub rate: f64,
    /// Of the burst that is going on.
    left: u32,
}

impl Traffic {
    pub fn new(pattern: Pattern, rate: f64) -> Self {
        let left = 0;
        Self {
            pattern,
            rate,
            left,
        }
    }

    /// How long after this arrival the next one comes.
    pub fn gap(&mut self, rng: &mut Rng) -> Duration {
        let mean = Duration::from_secs_f64(1.0 / self.rate);
        match self.pattern {
            Pattern::Constant => mean,
            Pattern::Poisson => exponential(mean, rng),
            Pattern::Bursts(_) if self.left > 0 => {
                self.left -= 1;
                Duration::ZERO
            }
            Pattern::Bursts(size) => {
                self.left = size - 1;
                exponential(mean * size, rng)
            }
        }
    }
}

#[test]
fn every_pattern_has_the_rate_that_it_says() {
    let mut rng = Rng::with_seed(7);
    for pattern in [Pattern::Poisson, Pattern::Constant, Pattern::Bursts(20)] {
        let mut traffic = Traffic::new(pattern, 1000.0);
        let passed: Duration = (0..100_000).map(|_| traffic.gap(&mut rng)).sum();
        let rate = 100_000.0 / passed.as_secs_f64();
        assert!((950.0..1050.0).contains(&rate), "{pattern:?}: {rate}");
    }
}
