//! The invariants of callers without a token, and of those that get a late one: each has a reason.

use std::time::Duration;

use super::{MAX_STALL, Run, SECOND, Try, Violations};
use crate::callers::{AttemptEnd, CallResult};
use crate::{FETCH_TIMEOUT, LONGEST_PAUSE};

/// Rule 1: the end of a token's life, in which it is late, for the lifetimes of the plan.
const LATE: Duration = SECOND;
/// Rule 9: a time limit that is noticed 25 ms too late counts as no failure.
const NOTICED: Duration = Duration::from_millis(30);
/// Rule 1: the wait for the refresh of a late token.
const LATE_WAIT: Duration = SECOND;

impl Run {
    /// 1e. A late token is sent only if its refresh has failed, or takes longer than a second.
    ///
    /// Not checked if the token's fetch took longer than a second: the token is then used until it
    /// expires.
    pub(super) fn late_tokens(&self, tenant: usize, tries: &[Try<'_>], v: &mut Violations) {
        for (request, token) in self.requests_with_token() {
            let late = token.issued + token.lifetime - LATE;
            let slack = MAX_STALL + self.longest_delay;
            let is_late = request.sent > late + slack && token.latency < SECOND;
            if request.tenant != tenant || !is_late {
                continue;
            }
            let sent = request.sent + self.tolerance();
            let has_reason = tries.iter().any(|it| {
                let fetch = tries.iter().find(|of| of.attempt.fetch == it.attempt.fetch);
                let since = fetch.map_or(it.started(), Try::started);
                let takes_long = since + LATE_WAIT <= sent && request.sent <= it.ended();
                let has_failed = !it.got_token()
                    && it.ended() <= sent
                    && request.sent <= it.ended() + longest_pause(it) + self.tolerance();
                it.number != token.number && (takes_long || has_failed)
            });
            let has_waited = self.calls[&request.call].started + LATE_WAIT <= sent;
            v.check(
                has_reason || has_waited,
                "1e. late token without a reason",
                || format!("late at {late:?}: {request:?} {token:?}"),
            );
        }
    }

    /// 6. A caller gets no token only because a fetch failed, at most a pause ago, or because the
    /// fetch that it waited for was on a runtime that was not polled.
    ///
    /// 12. It gets one as long as there is one that has neither expired nor been rejected as
    /// invalid.
    pub(super) fn failures(&self, tenant: usize, tries: &[Try<'_>], v: &mut Violations) {
        let calls = self.calls.values().filter(|it| it.tenant == tenant);
        for call in calls.filter(|it| it.result == CallResult::NoToken) {
            let has_reason = tries.iter().any(|it| {
                let end = if has_failed(it, tries) {
                    it.ended().saturating_add(longest_pause(it))
                } else if was_lost(it) {
                    it.ended()
                } else {
                    return false;
                };
                it.started() <= call.ended && call.started <= end.saturating_add(self.tolerance())
            });
            v.check(has_reason, "6. no token without a failed fetch", || {
                format!("{call:?}, after {:?}", last_before(tries, call.ended))
            });

            let Some(last) = tries
                .iter()
                .filter(|it| it.got_token() && it.ended() <= call.ended)
                .max_by_key(|it| it.ended())
            else {
                continue;
            };
            let Some((index, token)) = self.token_of(last.number) else {
                continue;
            };
            let was_ended = self.requests_of(index).any(|request| {
                let late = token.issued + token.lifetime - LATE;
                let ends =
                    |at: Duration| request.was_invalid_token() || at + self.tolerance() >= late;
                request.was_rejected()
                    && request
                        .responded_at()
                        .is_some_and(|at| at <= call.ended && ends(at))
            });
            let is_usable = last.ended() + self.tolerance() <= call.started
                && call.ended + self.tolerance() <= last.started() + token.lifetime
                && !(last.attempt.is_undriven && last.duration() >= FETCH_TIMEOUT);
            v.check(
                was_ended || !is_usable,
                "12. failed with a valid token",
                || format!("{call:?}: {token:?}"),
            );
        }
    }
}

/// Returns true if a pause may follow the try: it failed, or its fetch reached the time limit and
/// noticed in time.
fn has_failed(tried: &Try<'_>, tries: &[Try<'_>]) -> bool {
    let same_fetch = |it: &&Try<'_>| it.attempt.fetch == tried.attempt.fetch;
    let since = tries
        .iter()
        .find(same_fetch)
        .map_or(tried.started(), Try::started);
    match tried.attempt.end {
        AttemptEnd::Token => false,
        AttemptEnd::Error => true,
        AttemptEnd::Dropped => {
            !tried.attempt.is_undriven || tried.ended() <= since + FETCH_TIMEOUT + NOTICED
        }
    }
}

/// Returns true if the callers that wait may get an error, but no later ones: the runtime of the
/// fetch was not polled.
fn was_lost(tried: &Try<'_>) -> bool {
    let took_long = tried.duration() >= FETCH_TIMEOUT;
    tried.attempt.is_undriven && (took_long || tried.attempt.end == AttemptEnd::Dropped)
}

/// Returns the longest pause that may follow a failed try, with its jitter.
fn longest_pause(tried: &Try<'_>) -> Duration {
    let pause = LONGEST_PAUSE + LONGEST_PAUSE / 4;
    pause.max(tried.retry_after().unwrap_or_default())
}

fn last_before<'a>(tries: &'a [Try<'_>], time: Duration) -> Option<&'a Try<'a>> {
    tries.iter().rfind(|it| it.started() <= time)
}
