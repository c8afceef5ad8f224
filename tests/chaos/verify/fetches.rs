//! The invariants of fetches: one at a time, a few tries each, pauses after failures, and no more
//! requests than the plan needs.

use std::time::Duration;

use super::{Run, SECOND, SPACING, Try, Violations};
use crate::callers::AttemptEnd;
use crate::server::{ApiRecord, Outcome};
use crate::{FETCH_TIMEOUT, LONGEST_PAUSE, TRY_TIMEOUT};

/// Rule 1: the earliest time, in seconds after its request, at which a token of the shortest
/// lifetime of the plan is due.
const SOONEST_DUE: f64 = 2.6;
/// Rule 13: the tries of a fetch, and the longest wait between them.
const TRIES: usize = 3;
const LONGEST_WAIT: Duration = Duration::from_millis(400);
/// Rule 9: a fetch that misses its time limit by 25 ms is abandoned, since its runtime was not
/// polled. It did not fail, and no pause follows.
const MISSED: Duration = Duration::from_millis(20);

/// The tries of one fetch so far.
struct Fetch {
    tries: usize,
    started: Duration,
}

impl Fetch {
    fn deadline(&self) -> Duration {
        self.started + FETCH_TIMEOUT
    }

    /// Returns true if the fetch may try again after this try.
    fn may_try(&self, last: &Try<'_>) -> bool {
        let is_transient = last.request.is_none_or(|request| match request.outcome {
            Outcome::Unanswered | Outcome::Dead | Outcome::Transient => true,
            Outcome::Issued | Outcome::RetryAfter(_) | Outcome::InvalidClient => false,
        });
        let has_timed_out = last.duration() >= TRY_TIMEOUT;
        let is_quick = last.duration() < SECOND;
        last.attempt.end == AttemptEnd::Error
            && self.tries < TRIES
            && (has_timed_out || is_transient && is_quick)
    }

    /// Returns true if the fetch must try again after this try: its connection was dead.
    fn must_try(&self, last: &Try<'_>, tolerance: Duration) -> bool {
        let is_unanswered = last
            .request
            .is_none_or(|request| matches!(request.outcome, Outcome::Unanswered | Outcome::Dead));
        self.may_try(last)
            && !last.attempt.is_undriven
            && is_unanswered
            && last.duration() >= TRY_TIMEOUT
            && last.ended() + LONGEST_WAIT + tolerance <= self.deadline()
    }

    /// Returns true if the fetch may have ended without a failure, because its runtime was not
    /// polled or was dropped.
    fn may_be_abandoned(&self, last: &Try<'_>) -> bool {
        let is_dropped = last.attempt.end == AttemptEnd::Dropped;
        let has_missed_its_limit = last.ended() >= self.deadline() + MISSED;
        if last.attempt.is_undriven {
            is_dropped || has_missed_its_limit || self.may_try(last)
        } else {
            // Also between two tries.
            has_missed_its_limit && (is_dropped || self.may_try(last))
        }
    }
}

impl Run {
    /// 3a. The fetches of one tenant run one at a time, with up to three tries each, and with
    /// pauses after those that failed. A dead connection costs one try.
    pub(super) fn fetches(&self, tries: &[Try<'_>], v: &mut Violations) {
        let mut fetch = Fetch {
            tries: 1,
            started: tries.first().map_or(Duration::ZERO, Try::started),
        };
        let mut failures = 0;
        // The first rejection of the token that an early refresh replaced.
        let mut last_early: Option<Duration> = None;
        for pair in tries.windows(2) {
            let [last, next] = pair else { continue };
            let is_undriven = last.attempt.is_undriven;
            let is_overdue = is_undriven && next.started() >= fetch.deadline();
            v.check(
                last.ended() <= next.started() || is_overdue,
                "3. two fetches at once",
                || format!("{last:?}, {next:?}"),
            );
            v.check(
                is_undriven || last.ended() <= fetch.deadline() + self.tolerance(),
                "3. fetch beyond its timeout",
                || format!("since {:?}: {last:?}", fetch.started),
            );
            let gap = next.started().saturating_sub(last.ended());
            if last.attempt.fetch == next.attempt.fetch {
                let in_time = is_undriven || gap <= LONGEST_WAIT + self.tolerance();
                v.check(fetch.may_try(last) && in_time, "3. wrong retry", || {
                    format!("{} tries, {gap:?}: {last:?}, {next:?}", fetch.tries)
                });
                fetch.tries += 1;
                continue;
            }

            v.check(
                !fetch.must_try(last, self.tolerance()),
                "3. fetch ended by a dead connection",
                || format!("{} tries, {gap:?}: {last:?}, {next:?}", fetch.tries),
            );
            let landed = tries.iter().any(|it| {
                it.got_token() && last.ended() < it.ended() && it.ended() <= next.started()
            });
            if last.got_token() {
                failures = 0;
                if gap < SECOND && !is_overdue {
                    // Only a rejection causes such an early refresh, and rejections are spaced.
                    let rejected = self
                        .first_rejection(last)
                        .filter(|at| *at <= next.started());
                    let is_spaced = match (last_early, rejected) {
                        (Some(early), Some(_)) => next.started() >= early + SPACING,
                        (None, Some(_)) => true,
                        (_, None) => false,
                    };
                    v.check(is_spaced, "3. refreshed too early", || {
                        format!("rejected at {rejected:?} and {last_early:?}: {last:?}, {next:?}")
                    });
                    last_early = rejected;
                }
            } else if landed {
                // An abandoned fetch returned a token all the same, which ends a pause.
                failures = 0;
            } else if !fetch.may_be_abandoned(last) {
                failures += 1;
                let backoff = if failures > 1 { LONGEST_PAUSE } else { SECOND };
                let pause = backoff.max(last.retry_after().unwrap_or_default());
                v.check(gap >= pause, "3. pause too short", || {
                    format!("{gap:?} for {pause:?}: {last:?}, {next:?}")
                });
            }
            fetch = Fetch {
                tries: 1,
                started: next.started(),
            };
        }
    }

    /// 3b. The number of tries for one tenant is limited by the plan: a fetch for each lifetime,
    /// two for each revocation (of the current token, and of one that is being fetched), one for a
    /// successor that is revoked in advance, a failed one for each second with faults, and one for
    /// each good token that was rejected behind a redirect. Undriven fetches may be lost.
    pub(super) fn budget(&self, tenant: usize, tries: &[Try<'_>], v: &mut Violations) {
        let plan = &self.plan;
        let lifetimes = (plan.total.as_secs_f64() / SOONEST_DUE) as usize + 1;
        let revocations = plan.revocations.iter();
        let revocations = revocations.filter(|it| it.tenant.is_none_or(|it| it == tenant));
        let revoked: usize = revocations
            .map(|it| 2 + usize::from(it.successor_too))
            .sum();
        let failed = plan.faults_end.as_secs() as usize + 1;
        let requests = self.log.api_requests.iter();
        let behind_redirects = requests
            .filter(|it| it.tenant == tenant && it.is_redirected && it.was_rejected())
            .count();
        let undriven = tries.iter().filter(|it| it.attempt.is_undriven).count();
        let budget = TRIES * (lifetimes + revoked + failed + behind_redirects);
        let driven = tries.len() - undriven;
        v.check(driven <= budget, "3. too many token requests", || {
            format!("tenant {tenant}: {driven} of {budget}")
        });
    }

    /// Returns the time of the first rejection of the token that this try got.
    fn first_rejection(&self, tried: &Try<'_>) -> Option<Duration> {
        let (token, _) = self.token_of(tried.number)?;
        let rejected = self.requests_of(token).filter(|it| it.was_rejected());
        rejected.filter_map(ApiRecord::responded_at).min()
    }
}
