//! Medians and what lies around them.

use serde::Serialize;

/// A median with the quartiles, least and most around it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) first_quartile: f64,
    pub(crate) median: f64,
    pub(crate) third_quartile: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// All zero if there are no values.
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

/// The value that so many percent of all stay within; 0 if there are none.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// To three decimals: more are noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
