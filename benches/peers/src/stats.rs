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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle_and_what_is_around_it() {
        let spread = Spread::of_counts([5, 1, 4, 2, 3]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 5.0));
        assert_eq!((spread.first_quartile, spread.third_quartile), (2.0, 4.0));
    }

    #[test]
    fn nothing_is_zero() {
        assert_eq!(Spread::of([]).most, 0.0);
    }
}
