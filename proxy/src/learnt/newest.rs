//! Who answered last.

use tokio::time::Instant;

/// The last answers of a pool: for each endpoint, the newest of all the others.
pub struct Newest {
    first: Option<(Instant, usize)>,
    second: Option<Instant>,
}

impl Newest {
    pub fn of(last_completions: impl Iterator<Item = Option<Instant>>) -> Self {
        let mut newest = Self {
            first: None,
            second: None,
        };
        for (index, last) in last_completions.enumerate() {
            let Some(last) = last else { continue };
            if newest.first.is_none_or(|(first, _)| last > first) {
                newest.second = newest.first.map(|(first, _)| first);
                newest.first = Some((last, index));
            } else {
                newest.second = newest.second.max(Some(last));
            }
        }
        newest
    }

    pub fn but(&self, index: usize) -> Option<Instant> {
        match self.first {
            Some((first, of)) if of != index => Some(first),
            _ => self.second,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_endpoint_is_compared_with_the_newest_answer_of_the_others() {
        let now = Instant::now();
        let at = |secs| Some(now + Duration::from_secs(secs));
        let newest = Newest::of([at(3), None, at(7), at(5)].into_iter());
        assert_eq!([0, 1, 2].map(|i| newest.but(i)), [at(7), at(7), at(5)]);
        assert_eq!(Newest::of([at(3)].into_iter()).but(0), None);
    }
}
