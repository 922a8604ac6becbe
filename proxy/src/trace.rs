//! Which trace a request belongs to: what ties the calls that an app makes to the call that it answers.
//!
//! W3C Trace Context (`traceparent`), else `x-request-id`, which is what Envoy's users pass on. Both are read from strangers:
//! whatever is malformed is as if it were absent, nothing is allocated, nothing panics.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

use crate::head::{REQUEST_ID, TRACEPARENT};

/// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`.
const TRACEPARENT_LEN: usize = 55;
/// Shorter ids are counters or words: two requests that have nothing to do with each other would share one.
const REQUEST_ID_LEN_MIN: usize = 16;
const REQUEST_ID_LEN_MAX: usize = 128;

/// Two requests with the same key belong to the same trace. The 16 bytes of a trace id, or a request id hashed to as many
/// under keys of this process, so that nobody can make one that meets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceKey([u64; 2]);

impl TraceKey {
    /// `None`: it says nothing of a trace, or not in a way that means one thing.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let traceparent = single(headers, &TRACEPARENT)
            .and_then(trace_id)
            .map(Self::of_trace_id);
        traceparent.or_else(|| single(headers, &REQUEST_ID).and_then(Self::of_request_id))
    }

    const fn of_trace_id(id: u128) -> Self {
        Self([(id >> 64) as u64, id as u64])
    }

    fn of_request_id(id: &[u8]) -> Option<Self> {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        if !is_request_id(id) || id.len() < REQUEST_ID_LEN_MIN {
            return None;
        }
        Some(Self(KEYS.each_ref().map(|key| key.hash_one(id))))
    }

    /// Its last bits, which are random in every trace id (W3C Trace Context level 2): for spreading.
    pub const fn low_bits(self) -> usize {
        self.0[1] as usize
    }
}

/// Several values of a field that may occur once mean nothing (W3C Trace Context section 3.2).
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// Visible ASCII, and no more of it than an id needs.
pub fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// The trace id of a `traceparent`, by the letter of W3C Trace Context section 3.2.2.
pub fn trace_id(value: &[u8]) -> Option<u128> {
    let (known, rest) = value.split_at_checked(TRACEPARENT_LEN)?;
    let field = |from: usize, to: usize| hex(&known[from..to]);
    let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    let (version, trace_id, parent_id) = (field(0, 2)?, field(3, 35)?, field(36, 52)?);
    let _flags = field(53, 55)?;
    // Version 00 ends here; a later one may go on after a dash; ff is forbidden.
    let ends = match version {
        0x00 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    (dashes && ends && trace_id != 0 && parent_id != 0).then_some(trace_id)
}

/// Lower case only, as the specification has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE_ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn key(fields: &[(&'static str, &str)]) -> Option<TraceKey> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        TraceKey::of_headers(&headers)
    }

    #[test]
    fn a_traceparent_is_read_whatever_its_parent_and_flags() {
        assert_eq!(trace_id(VALID.as_bytes()), Some(TRACE_ID));
        let other_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-00";
        assert_eq!(trace_id(other_span.as_bytes()), Some(TRACE_ID));
    }

    #[test]
    fn a_later_version_may_say_more_and_the_first_may_not() {
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(trace_id(later.as_bytes()), Some(TRACE_ID));
        assert_eq!(
            trace_id(format!("{later}-what-is-new").as_bytes()),
            Some(TRACE_ID)
        );
        assert_eq!(trace_id(format!("{later}.what").as_bytes()), None);
        assert_eq!(trace_id(format!("{VALID}-more").as_bytes()), None);
        let forbidden = VALID.replacen("00", "ff", 1);
        assert_eq!(trace_id(forbidden.as_bytes()), None);
    }

    #[test]
    fn what_is_malformed_is_as_if_it_were_absent() {
        for text in [
            "",
            "00",
            &VALID[..54],
            &VALID.to_uppercase(),
            &VALID.replace('-', "_"),
            &VALID.replacen("4b", "4g", 1),
            &VALID.replacen("4b", "+b", 1),
            &VALID.replacen("01", "0x", 1),
            &format!(" {VALID}"),
            &format!("{VALID} "),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(trace_id(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn two_traceparents_mean_nothing() {
        assert!(key(&[("traceparent", VALID)]).is_some());
        assert_eq!(key(&[("traceparent", VALID), ("traceparent", VALID)]), None);
    }

    #[test]
    fn a_request_id_serves_where_there_is_no_trace_and_only_if_it_is_one() {
        let id = "7b1e4c52-0a9d-4a39-9a53-5d7c0a3c1f11";
        let of_id = key(&[("x-request-id", id)]);
        assert!(of_id.is_some());
        assert_eq!(
            of_id,
            key(&[("x-request-id", id), ("traceparent", "00-bad")])
        );
        assert_ne!(of_id, key(&[("x-request-id", id), ("traceparent", VALID)]));
        assert_ne!(of_id, key(&[("x-request-id", &id.replace('7', "8"))]));
        for poor in ["42", "request id with spaces", &"x".repeat(129)] {
            assert_eq!(key(&[("x-request-id", poor)]), None, "{poor:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            let _ = trace_id(&bytes);
            let _ = TraceKey::of_request_id(&bytes);
        }

        /// One byte wrong anywhere, and what is accepted still says what its bytes say.
        #[test]
        fn a_traceparent_with_one_other_byte_is_refused_or_read_by_the_letter(at in 0usize..55, byte: u8) {
            let mut text = VALID.as_bytes().to_vec();
            text[at] = byte;
            if let Some(read) = trace_id(&text) {
                let digits = std::str::from_utf8(&text[3..35]).expect("accepted, so digits");
                prop_assert_eq!(format!("{read:032x}"), digits);
                prop_assert!(text.iter().all(|byte| b"0123456789abcdef-".contains(byte)));
            } else {
                prop_assert_ne!(&text[..], VALID.as_bytes());
            }
        }

        #[test]
        fn every_valid_one_is_read(trace in 1u128.., parent in 1u64.., flags: u8) {
            let text = format!("00-{trace:032x}-{parent:016x}-{flags:02x}");
            prop_assert_eq!(trace_id(text.as_bytes()), Some(trace));
        }
    }
}
