//! From rounds to a figure: the median, and how far the rounds lie apart.

/// Several rounds of one figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    values: Vec<f64>,
}

/// Beyond this spread of a figure, relative to its median, a comparison says nothing.
pub const SPREAD_MAX: f64 = 0.35;

impl Sample {
    /// A round that failed is NaN: it keeps its place, so that rounds stay paired, and counts for nothing.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub fn median(&self) -> Option<f64> {
        quantile(&self.values, 0.5)
    }

    /// First and third quartile.
    pub fn quartiles(&self) -> Option<(f64, f64)> {
        Some((quantile(&self.values, 0.25)?, quantile(&self.values, 0.75)?))
    }

    /// Between the quartiles, relative to the median.
    pub fn spread(&self) -> Option<f64> {
        let (low, high) = self.quartiles()?;
        let median = self.median()?;
        (median.abs() > f64::EPSILON).then(|| (high - low) / median.abs())
    }

    pub fn is_steady(&self) -> bool {
        self.spread().is_none_or(|spread| spread <= SPREAD_MAX)
    }

    /// Round by round, so that what disturbed a whole round disturbs no ratio.
    pub fn ratio(&self, to: &Self) -> Self {
        let mut ratios = Self::default();
        for (own, other) in self.values.iter().zip(&to.values) {
            ratios.push(own / other);
        }
        ratios
    }

    /// Round by round.
    pub fn minus(&self, other: &Self) -> Self {
        let mut differences = Self::default();
        for (own, other) in self.values.iter().zip(&other.values) {
            differences.push(own - other);
        }
        differences
    }

    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            values: self.values.iter().map(|value| value * factor).collect(),
        }
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<Values: IntoIterator<Item = f64>>(values: Values) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.push(value));
        sample
    }
}

/// Linear between the two nearest values.
fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let position = at * last as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        values.iter().copied().collect()
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(sample(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(sample(&[]).median(), None);
    }

    #[test]
    fn one_wild_round_moves_neither_median_nor_spread() {
        let calm = sample(&[10.0, 10.1, 9.9, 10.0, 100.0]);
        assert_eq!(calm.median(), Some(10.0));
        assert!(calm.is_steady());
        assert!(!sample(&[10.0, 20.0, 30.0, 40.0, 50.0]).is_steady());
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        // Both doubled in the second round: the machine was slower, the ratio is not.
        let ratio = sample(&[10.0, 20.0, 11.0]).ratio(&sample(&[5.0, 10.0, 5.5]));
        assert_eq!(ratio.values(), [2.0, 2.0, 2.0]);
        assert_eq!(sample(&[1.0]).ratio(&sample(&[0.0])).median(), None);
    }

    #[test]
    fn a_round_that_failed_leaves_the_others_paired() {
        let ratio = sample(&[10.0, f64::NAN, 12.0]).ratio(&sample(&[5.0, 1.0, 6.0]));
        assert_eq!(ratio.median(), Some(2.0));
        assert_eq!(ratio.spread(), Some(0.0));
    }
}
