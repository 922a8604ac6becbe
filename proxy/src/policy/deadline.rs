//! Deadlines: how long the caller will wait, carried from hop to hop and never made longer.
//!
//! ```text
//!   grpc-timeout: 1500m ───────────┐
//!   x-request-timeout-ms: 1200 ────┤ min ▶ deadline ▶ each try's share ▶ what remains, to the next hop
//!   the route's own ───────────────┘
//! ```
//!
//! On the wire a deadline is a span, not a moment: clocks of two machines differ, spans do not (gRPC's
//! PROTOCOL-HTTP2, Envoy's `x-envoy-expected-rq-timeout-ms`). Inside it is a moment. Whatever is rounded is
//! rounded down: a callee must never believe that it has more time than the caller will wait.
//!
//! The parsers read what strangers send: anything malformed is as if it were absent, and nothing panics.

use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// gRPC allows eight digits.
const DIGITS_MAX: usize = 8;
const VALUE_MAX: u128 = 99_999_999;
/// Longer is no deadline; and it keeps a hostile `99999999H` from overflowing a clock.
const SPAN_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What is forwarded when less is left: zero means *no timeout* to some peers.
const FORWARD_MIN: Duration = Duration::from_millis(1);

/// Finest first, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// When the caller of a request stops waiting; `None` inside: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub const NEVER: Self = Self(None);

    pub fn after(span: Duration, now: Instant) -> Self {
        Self((span < SPAN_MAX).then(|| now + span))
    }

    /// The earliest of what the request says.
    pub fn of_request(incoming: impl IntoIterator<Item = Duration>, now: Instant) -> Self {
        let earliest = incoming.into_iter().min();
        earliest.map_or(Self::NEVER, |span| Self::after(span, now))
    }

    /// When the share of one try is over, of `tries_left` (this one included): early enough to leave the others theirs, so
    /// that a black hole does not take the time of the try that would have worked.
    #[must_use]
    pub fn share(&self, tries_left: u32, now: Instant) -> Self {
        let share = self.remaining(now).map(|left| left / tries_left.max(1));
        share.map_or(Self::NEVER, |span| Self::after(span, now))
    }

    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.into_iter().chain(other.0).min())
    }

    /// The later of two: never, if one of them is.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(self.0.zip(other.0).map(|(one, another)| one.max(another)))
    }

    /// `None`: there is no end. Zero: it is over.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now))
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.0.is_some_and(|at| now >= at)
    }

    pub fn instant(&self) -> Option<Instant> {
        self.0
    }

    /// What to tell the next hop: what remains, at least 1 ms. Not less the time that the way there takes: all that is
    /// known is how long answers take, and a callee told that much less would give up on those that come in time.
    pub fn forward(&self, now: Instant) -> Option<Duration> {
        self.remaining(now).map(|left| left.max(FORWARD_MIN))
    }
}

/// `1*8DIGIT ("H" / "M" / "S" / "m" / "u" / "n")`, gRPC's `grpc-timeout`.
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let nanos = u128::from(parse_digits(digits)?) * nanos;
    Some(Duration::new(
        (nanos / 1_000_000_000) as u64, // at most 99999999 h
        (nanos % 1_000_000_000) as u32,
    ))
}

/// Whole milliseconds: `x-request-timeout-ms`, `x-envoy-expected-rq-timeout-ms`. Zero switches a timeout off there, so
/// it says nothing here.
pub fn parse_millis(value: &[u8]) -> Option<Duration> {
    if value.len() > 15 {
        return None;
    }
    parse_digits(value)
        .filter(|&millis| millis > 0)
        .map(Duration::from_millis)
}

fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = |sum, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Some(digits.iter().fold(0, value))
}

/// A `grpc-timeout` header's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    bytes: [u8; DIGITS_MAX + 1],
    start: usize,
}

impl GrpcTimeout {
    /// In the finest unit that eight digits can hold, rounded down.
    pub fn new(span: Duration) -> Self {
        let nanos = span.as_nanos();
        let fits = |&&(_, unit): &&(u8, u128)| nanos / unit <= VALUE_MAX;
        let (letter, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[UNITS.len() - 1]);
        let mut value = (nanos / unit).min(VALUE_MAX) as u32;
        let mut this = Self {
            bytes: [*letter; DIGITS_MAX + 1],
            start: DIGITS_MAX,
        };
        loop {
            this.start -= 1;
            this.bytes[this.start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return this;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("digits and a letter")
    }
}

impl fmt::Debug for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whole milliseconds, rounded down, but never the zero that would switch the timeout off.
pub fn format_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn grpc_timeouts_are_read_in_all_six_units() {
        for (text, span) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("1500m", millis(1500)),
            ("7u", Duration::from_micros(7)),
            ("00000010n", Duration::from_nanos(10)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), Some(span), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_as_if_it_were_absent() {
        for text in [
            "",
            "m",
            "1",
            "1s",
            "-1m",
            "+1m",
            "1.5S",
            " 1m",
            "1m ",
            "123456789n",
            "1mm",
            "\u{661}m",
        ] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), None, "{text:?}");
        }
        for text in ["", "0", "-1", "1.5", "1ms", "9999999999999999"] {
            assert_eq!(parse_millis(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_millis(b"1200"), Some(millis(1200)));
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        for (span, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(15), "15000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(GrpcTimeout::new(span).as_str(), text);
        }
    }

    #[test]
    fn the_earliest_of_all_deadlines_binds() {
        let now = Instant::now();
        let left = |incoming: &[u64]| {
            let incoming = incoming.iter().copied().map(millis);
            Deadline::of_request(incoming, now).remaining(now)
        };
        assert_eq!(left(&[500, 300, 1000]), Some(millis(300)));
        assert_eq!(left(&[5000]), Some(millis(5000)));
        assert_eq!(left(&[]), None);
    }

    #[test]
    fn a_deadline_in_ten_thousand_years_is_none() {
        let now = Instant::now();
        let incoming = parse_grpc_timeout(b"99999999H");
        assert_eq!(Deadline::of_request(incoming, now), Deadline::NEVER);
        assert_eq!(Deadline::after(Duration::MAX, now), Deadline::NEVER);
    }

    #[test]
    fn it_is_over_when_it_is_and_then_nothing_remains() {
        let now = Instant::now();
        let deadline = Deadline::after(millis(100), now);
        assert!(!deadline.is_over(now + millis(99)));
        assert!(deadline.is_over(now + millis(100)));
        assert_eq!(deadline.remaining(now + millis(500)), Some(Duration::ZERO));
        assert!(!Deadline::NEVER.is_over(now));
        assert_eq!(deadline.min(Deadline::NEVER), deadline);
        assert_eq!(Deadline::NEVER.min(deadline), deadline);
    }

    #[test]
    fn the_next_hop_is_told_what_is_left_but_never_zero() {
        let now = Instant::now();
        let deadline = Deadline::after(millis(100), now);
        assert_eq!(deadline.forward(now + millis(8)), Some(millis(92)));
        assert_eq!(deadline.forward(now + millis(800)), Some(millis(1)));
        assert_eq!(Deadline::NEVER.forward(now), None);
        assert_eq!(format_millis(Duration::from_micros(1999)), 1);
        assert_eq!(format_millis(Duration::from_micros(1)), 1);
    }

    #[test]
    fn a_try_leaves_time_for_the_next_one() {
        let now = Instant::now();
        let share = |left: Option<u64>, tries_left| {
            let deadline = Deadline::of_request(left.map(millis), now);
            deadline.share(tries_left, now).remaining(now)
        };
        assert_eq!(share(Some(2000), 2), Some(millis(1000)));
        assert_eq!(share(Some(2000), 3), Some(millis(2000) / 3));
        assert_eq!(
            share(Some(2000), 1),
            Some(millis(2000)),
            "the last try has it all"
        );
        assert_eq!(share(None, 2), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_never_longer_and_hardly_shorter(
            nanos in prop_oneof![0u64..1_000_000_000, any::<u64>()]
        ) {
            let span = Duration::from_nanos(nanos);
            let text = GrpcTimeout::new(span);
            prop_assert!(text.as_bytes().len() <= 9);
            let read = parse_grpc_timeout(text.as_bytes()).expect("our own form");
            prop_assert!(read <= span);
            prop_assert!((span - read).as_nanos() <= span.as_nanos() / 1000, "{span:?} became {read:?}");
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), route: u32) {
            let now = Instant::now();
            let incoming = [parse_grpc_timeout(&bytes), parse_millis(&bytes)];
            let route = Duration::from_millis(u64::from(route));
            let deadline = Deadline::of_request(incoming.into_iter().flatten(), now)
                .min(Deadline::after(route, now));
            prop_assert!(deadline.remaining(now).is_some_and(|left| left <= route));
            let _ = deadline.forward(now).map(GrpcTimeout::new);
        }

        #[test]
        fn any_number_of_digits_and_any_unit_is_safe(digits in "[0-9]{0,30}", unit in "[HMSmunx]?") {
            let now = Instant::now();
            let text = digits + &unit;
            let incoming = [parse_grpc_timeout(text.as_bytes()), parse_millis(text.as_bytes())];
            let _ = Deadline::of_request(incoming.into_iter().flatten(), now).remaining(now);
        }
    }
}
