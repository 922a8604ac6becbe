//! How many facts a subscriber may still be sent, as in Reactive Streams: what it requested, less
//! what it was sent. No clock, no I/O.

/// More than anybody needs, and far from overflow.
const REQUESTED_MAX: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    open: u64,
}

impl Credit {
    /// Requests add up. Asking for nothing is a mistake (Reactive Streams, rule 3.9).
    pub fn request(&mut self, count: u32) -> Result<(), &'static str> {
        if count == 0 {
            return Err("request_n is 0, expected at least 1");
        }
        self.open = (self.open + u64::from(count)).min(REQUESTED_MAX);
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.open > 0
    }

    /// One was sent; only ever while there is credit.
    pub fn spend(&mut self) {
        self.open = self.open.checked_sub(1).expect("sent within the credit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of requests and chances to send, never more is sent than was requested,
        /// and all that was requested can be sent.
        #[test]
        fn what_is_sent_is_what_was_requested(steps in proptest::collection::vec((any::<bool>(), 1u32..50), 0..200)) {
            let (mut credit, mut requested, mut sent) = (Credit::default(), 0u64, 0u64);
            for (ask, count) in steps {
                if ask {
                    credit.request(count).expect("more than nothing");
                    requested += u64::from(count);
                } else if credit.is_open() {
                    credit.spend();
                    sent += 1;
                }
                prop_assert!(sent <= requested);
            }
            while credit.is_open() {
                credit.spend();
                sent += 1;
            }
            prop_assert_eq!(sent, requested);
        }
    }

    #[test]
    fn endless_requests_do_not_overflow() {
        let mut credit = Credit::default();
        for _ in 0..10 {
            credit.request(u32::MAX).expect("valid");
        }
        assert_eq!(credit.open, REQUESTED_MAX);
        credit.request(0).expect_err("nothing");
    }
}
