//! The invariants of rejected tokens.

use std::collections::HashMap;
use std::time::Duration;

use super::{Run, SPACING, Try, Violations};
use crate::callers::CallResult;
use crate::server::ApiRecord;

/// Rule 21: the most time from one rejection to the next.
const LONGEST_SPACING: Duration = Duration::from_secs(10);

impl Run {
    /// 1b. A rejected token is not sent again: after a 401 with `invalid_token` at once, after any
    /// other from the arrival of its successor on.
    ///
    /// Within the spacing of rejections a 401 has no effect, so not every 401 counts. This one
    /// must: the first 401 to a token whose caller did not give up, and that is a spacing after the
    /// last 401 to any other token of the tenant, which is the latest time of the rejection before.
    /// No request with the token arrives after it.
    ///
    /// The spacing is at most 1 s, doubled for each earlier token that was rejected on a replay, or
    /// before it had been accepted three times. (An acceptance by anyone settles the spacing. Two
    /// may be lost to callers that gave up.)
    pub(super) fn rejections(&self, tenant: usize, tries: &[Try<'_>], v: &mut Violations) {
        let of_tenant: Vec<_> = self
            .log
            .api_requests
            .iter()
            .filter(|request| request.tenant == tenant)
            .collect();
        let mut by_token = HashMap::<usize, Vec<&ApiRecord>>::new();
        for request in of_tenant.iter().filter(|request| request.was_rejected()) {
            by_token
                .entry(request.token.unwrap_or(usize::MAX))
                .or_default()
                .push(request);
        }
        let unsuccessful: Vec<Duration> = by_token
            .iter()
            .filter_map(|(token, rejected)| {
                let first = rejected.iter().filter_map(|it| it.responded_at()).min()?;
                let accepted = of_tenant.iter().filter(|request| {
                    request.token == Some(*token)
                        && request
                            .response
                            .is_some_and(|it| it.status == 200 && it.at < first)
                });
                let to_replay = rejected.iter().any(|it| self.is_replay(it));
                (to_replay || accepted.count() < 3).then_some(first)
            })
            .collect();

        for (token, rejected) in &by_token {
            let mut rejected = rejected.clone();
            rejected.sort_by_key(|request| request.responded_at());
            let counts = |request: &&&ApiRecord| {
                let Some(at) = request.responded_at() else {
                    return false;
                };
                let others = by_token.iter().filter(|(other, _)| *other != token);
                let last_other = others
                    .flat_map(|(_, rejected)| rejected)
                    .filter_map(|it| it.responded_at())
                    .filter(|other| *other <= at)
                    .max();
                let doublings = unsuccessful.iter().filter(|first| **first <= at).count();
                let spacing = SPACING
                    .saturating_mul(1 << doublings.min(10))
                    .min(LONGEST_SPACING);
                let is_spaced =
                    last_other.is_none_or(|other| other + spacing + self.tolerance() <= at);
                is_spaced && self.calls[&request.call].result != CallResult::DeadlineExceeded
            };
            let any = rejected.iter().find(counts);
            let any = any.and_then(|request| request.responded_at());
            let invalid = rejected
                .iter()
                .filter(|it| it.was_invalid_token())
                .find(counts);
            let invalid = invalid.and_then(|request| request.responded_at());
            let replaced = any.and_then(|any| {
                let landed = tries
                    .iter()
                    .filter(|it| it.got_token() && it.started() >= any);
                landed.map(Try::ended).min()
            });
            let ends = [
                (invalid, "1b. invalid token sent"),
                (replaced, "1b. rejected token sent after its successor"),
            ];
            for (end, invariant) in ends {
                let Some(end) = end else { continue };
                for request in self.requests_of(*token) {
                    v.check(
                        self.arrival(request) <= end.saturating_add(self.tolerance()),
                        invariant,
                        || format!("rejected at {any:?}, ended at {end:?}: {request:?}"),
                    );
                }
            }
        }
    }
}
