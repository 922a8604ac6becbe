//! Rate limits: so many requests a second for each key, some at once after a pause, and not one more.
//!
//! ```text
//!   request ─▶ its caller's bucket ─▶ its method's ─▶ … ─▶ everybody's ─▶ taken from all of them
//!                   │ empty             │                    │
//!                   └───────────────────┴────────────────────┴─▶ refused, taken from none, and when to come back
//! ```
//!
//! A token bucket in the form of GCRA (ITU-T I.371, "virtual scheduling"): all that is kept of a key is the moment at
//! which its bucket will be full again. A bucket that is full says nothing that a new one would not say, so only such
//! ones are forgotten to make room. While none is full, keys that come on top share one bucket: whoever invents keys
//! neither makes the table grow, nor pushes anybody's state out of it, his own included, nor gets more than one share.
//!
//! No clock, no dice, no lock: the caller passes `now` and says what the keys of a request are, as hashes that
//! nobody outside can foresee.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;
use weir_config::snapshot::{RateLimit as Config, RateLimitKey};

/// Of one limit: callers, tenants, methods. 4096 of them are some 150 KiB.
const KEYS_MAX: usize = 4096;
/// Looking for buckets that are full again takes a look at every one: not more often than this.
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Whose bucket, as a hash. Two keys with the same hash would share a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// What a limit counts together, ready for the request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Per {
    Caller,
    Method,
    /// `None`: no request can have such a header, so all are counted together.
    Header(Option<HeaderName>),
    Total,
}

/// All limits of one port.
#[derive(Debug, Default)]
pub struct RateLimits {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    per: Per,
    /// One token is earned in this time.
    interval: Duration,
    /// How far ahead of time a bucket may be emptied: the burst, without the token that is asked for.
    tolerance: Duration,
    buckets: Buckets,
    /// Of the request that is being judged.
    asked: Key,
}

/// When each bucket will be full again; one that is not here is full.
#[derive(Debug)]
struct Buckets {
    full_at: HashMap<Key, Instant, BuildHasherDefault<Hashed>>,
    /// Shared by all who found no place.
    overflow: Instant,
    swept: Instant,
}

/// The request must not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first limit that it is above, by its place.
    pub rule: usize,
    /// After this long it would be within all of them, if nobody else comes.
    pub retry_after: Duration,
}

impl RateLimits {
    /// A new policy: a limit that counts the same things as one before goes on with what that has counted.
    pub fn reconfigure(&mut self, limits: &[Config], now: Instant) {
        let mut known = std::mem::take(&mut self.rules);
        for config in limits {
            let mut rule = Rule::new(config, now);
            if let Some(same) = known.iter().position(|before| before.per == rule.per) {
                let before = known.swap_remove(same);
                rule.inherit(before, now);
            }
            self.rules.push(rule);
        }
    }

    /// What each limit counts together, in the order in which they are looked at.
    pub fn rules(&self) -> impl Iterator<Item = &Per> {
        self.rules.iter().map(|rule| &rule.per)
    }

    /// Whether a request may be made, whose key under each limit is what `key` says.
    pub fn admit(&mut self, now: Instant, key: impl Fn(&Per) -> Key) -> Result<(), Refused> {
        let mut refused: Option<Refused> = None;
        for (place, rule) in self.rules.iter_mut().enumerate() {
            rule.asked = key(&rule.per);
            let wait = rule.wait(now);
            if !wait.is_zero() {
                let refused = refused.get_or_insert(Refused {
                    rule: place,
                    retry_after: wait,
                });
                refused.retry_after = refused.retry_after.max(wait);
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for rule in &mut self.rules {
            rule.take(now);
        }
        Ok(())
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.rules
            .iter()
            .map(|rule| rule.buckets.full_at.len())
            .sum()
    }
}

impl Rule {
    fn new(config: &Config, now: Instant) -> Self {
        // Rounded up: a limit is never exceeded, not even by a nanosecond a request.
        let nanos = 1_000_000_000_u64.div_ceil(config.requests_per_second.get().into());
        let interval = Duration::from_nanos(nanos);
        Self {
            per: Per::of(&config.per),
            interval,
            tolerance: interval * (config.burst.get() - 1),
            buckets: Buckets {
                full_at: HashMap::default(),
                overflow: now,
                swept: now,
            },
            asked: Key::default(),
        }
    }

    /// What was taken stays taken, in tokens, whatever time they now take to be earned.
    fn inherit(&mut self, before: Self, now: Instant) {
        let longest = self.tolerance + self.interval;
        let scale = self.interval.div_duration_f64(before.interval);
        let scaled = |full_at: Instant| {
            let left = full_at.saturating_duration_since(now).mul_f64(scale);
            now + left.min(longest)
        };
        self.buckets = before.buckets;
        for full_at in self.buckets.full_at.values_mut() {
            *full_at = scaled(*full_at);
        }
        self.buckets.overflow = scaled(self.buckets.overflow);
    }

    /// How long until there is a token for whom is asked; zero: there is one.
    fn wait(&mut self, now: Instant) -> Duration {
        let full_at = *self.buckets.of(self.asked, now);
        full_at
            .saturating_duration_since(now)
            .saturating_sub(self.tolerance)
    }

    fn take(&mut self, now: Instant) {
        let interval = self.interval;
        let full_at = self.buckets.of(self.asked, now);
        *full_at = (*full_at).max(now) + interval;
    }
}

impl Buckets {
    /// The bucket of `key`, or the one of those for whom there is no place.
    fn of(&mut self, key: Key, now: Instant) -> &mut Instant {
        if self.full_at.len() >= KEYS_MAX && !self.full_at.contains_key(&key) {
            if now >= self.swept + SWEEP_EVERY {
                self.swept = now;
                self.full_at.retain(|_, full_at| *full_at > now);
            }
            if self.full_at.len() >= KEYS_MAX {
                return &mut self.overflow;
            }
        }
        self.full_at.entry(key).or_insert(now)
    }
}

impl Per {
    fn of(key: &RateLimitKey) -> Self {
        match key {
            RateLimitKey::Caller => Self::Caller,
            RateLimitKey::Method => Self::Method,
            RateLimitKey::Header(name) => Self::Header(name.parse().ok()),
            RateLimitKey::Total => Self::Total,
        }
    }

    /// For metrics and messages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Method => "method",
            Self::Header(_) => "header",
            Self::Total => "total",
        }
    }
}

/// For keys that are hashes already.
#[derive(Debug, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is hashed as one number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests;
