//! Medians and percentiles.

use serde::Serialize;

/// A median with the quartiles, the minimum and the maximum.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) first_quartile: f64,
    pub(crate) median: f64,
    pub(crate) third_quartile: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Returns zeros if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().map(rounded).collect();
        values.sort_by(f64::total_cmp);
        Self {
            least: percentile(&values, 0),
            first_quartile: percentile(&values, 25),
            median: percentile(&values, 50),
            third_quartile: percentile(&values, 75),
            most: percentile(&values, 100),
        }
    }

    pub(crate) fn of_counts(values: impl IntoIterator<Item = usize>) -> Self {
        Self::of(values.into_iter().map(|value| value as f64))
    }
}

/// Returns the value that `percent` percent of the values do not exceed, or 0 if there are none.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Rounds to three decimals, since more are noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_has_median_quartiles_and_extremes() {
        let spread = Spread::of_counts([5, 1, 4, 2, 3]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 5.0));
        assert_eq!((spread.first_quartile, spread.third_quartile), (2.0, 4.0));
    }

    #[test]
    fn spread_of_nothing_is_zero() {
        assert_eq!(Spread::of([]).most, 0.0);
    }
}
