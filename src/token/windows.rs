//! The windows of a token's life in which it is due and late.

use std::time::Duration;

/// The minimum time between two fetches, unless a token was rejected.
pub(crate) const FETCH_SPACING: Duration = Duration::from_secs(1);

const MIN_MARGIN: Duration = Duration::from_secs(1);
const MAX_MARGIN: Duration = Duration::from_secs(10);
const MAX_DUE_WINDOW: Duration = Duration::from_secs(300);

/// Returns the times after which a token with this life is due and late, if it arrived at this age.
///
/// `jitter`, between 0 and 1, moves the due time later by up to half of the due window, so that
/// tokens which were fetched together are not refreshed together.
pub(crate) fn due_and_late(life: Duration, age: Duration, jitter: f64) -> (Duration, Duration) {
    let (due, late) = windows(life, jitter);
    let earliest = age.saturating_add(FETCH_SPACING);
    if due < earliest {
        // The life is too short for a margin: it would cost more than one fetch a second.
        return (earliest.min(life), life);
    }
    (due, late)
}

/// Returns the same times, whatever the age.
pub(crate) fn windows(life: Duration, jitter: f64) -> (Duration, Duration) {
    let margin = (life / 20).clamp(MIN_MARGIN, MAX_MARGIN);
    let window = (life / 10).min(MAX_DUE_WINDOW);
    let late = life.saturating_sub(margin).max(life / 2);
    let due = late.saturating_sub(window) + (window / 2).mul_f64(jitter);
    (due, late)
}
