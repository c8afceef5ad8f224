//! The invariants, checked against the records after the run.
//!
//! Client and server use the same clock. A bound without a tolerance is exact: the server records
//! the start of a request after the client has sent it, and its end before the client can see it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::callers::{Call, CallResult, Tries};
use crate::plan::{Plan, TENANTS};
use crate::server::{ApiRecord, Log, Outcome, Token, TokenRecord};
use crate::{FETCH_TIMEOUT, LONGEST_PAUSE, RECOVERY};

/// The time that a step over the network or a timer may take, besides the measured delay.
const MAX_STEP: Duration = Duration::from_millis(300);
/// The time from the cache's reading of the clock to the timestamp of the request, besides the
/// measured delay.
const MAX_STALL: Duration = Duration::from_millis(50);

const SECOND: Duration = Duration::from_secs(1);
/// Rule 21: the least and the most time from one rejection to the next.
const SPACING: Duration = SECOND;
const LONGEST_SPACING: Duration = Duration::from_secs(10);
/// Rule 1: the margin before its expiry in which a token of the plan's lifetimes is not used.
const MARGIN: Duration = SECOND;
/// Rule 1: the earliest time, in seconds after its request, at which a token of the shortest of
/// those lifetimes is due.
const SOONEST_DUE: f64 = 2.6;
/// Rule 13: the tries of a fetch, and the longest wait between them.
const TRIES: usize = 3;
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// The number of violations of one kind that are shown.
const SHOWN: usize = 4;

pub(crate) struct Run {
    pub(crate) plan: std::sync::Arc<Plan>,
    pub(crate) log: Log,
    pub(crate) calls: Vec<Call>,
    pub(crate) tries: Tries,
    /// The longest delay of a timer or of a request on the network, neither of which is the
    /// crate's.
    pub(crate) longest_delay: Duration,
}

/// The violations by invariant.
#[derive(Default)]
pub(crate) struct Violations(Vec<(&'static str, Vec<String>)>);

impl Violations {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(&mut self, holds: bool, invariant: &'static str, details: impl FnOnce() -> String) {
        if holds {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| *name == invariant) {
            Some((_, all)) => all.push(details()),
            None => self.0.push((invariant, vec![details()])),
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (invariant, all) in &self.0 {
            writeln!(f, "{invariant}: {} times", all.len())?;
            for details in all.iter().take(SHOWN) {
                writeln!(f, "    {details}")?;
            }
        }
        Ok(())
    }
}

impl Run {
    pub(crate) fn verify(&self) -> Violations {
        let mut violations = Violations::default();
        let v = &mut violations;
        self.lifetimes(v);
        self.tenants(v);
        self.replays(v);
        for tenant in 0..TENANTS {
            self.rejections(tenant, v);
            let requests = self.log.token_requests.iter();
            let requests: Vec<_> = requests.filter(|it| it.tenant == tenant).collect();
            self.fetches(&requests, v);
            self.budget(tenant, requests.len(), v);
        }
        self.deadlines(v);
        self.recovery(v);
        violations
    }

    /// 1a. No request carries an expired token. The server counts the lifetime from the arrival of
    /// the token request, the client from just before it.
    ///
    /// A token that was fetched within a second is not used in the margin before its expiry, so it
    /// arrives in time even on a busy machine. One whose fetch took longer may be used until its
    /// expiry, and arrive a little late.
    fn lifetimes(&self, v: &mut Violations) {
        for (request, token) in self.requests_with_token() {
            let end = if token.latency < SECOND {
                token.issued + token.lifetime - MARGIN
            } else {
                token.issued + token.lifetime
            };
            let holds = request.sent <= end + MAX_STALL + self.longest_delay
                && request.received <= end + self.tolerance();
            v.check(holds, "1a. expired token sent", || {
                format!("expired at {end:?}: {request:?} {token:?}")
            });
        }
    }

    /// 2. The token was issued to the tenant in the path, who is the caller's.
    fn tenants(&self, v: &mut Violations) {
        for request in &self.log.api_requests {
            let owner = request.token.map(|it| self.log.tokens[it].tenant);
            let holds =
                owner == Some(request.tenant) && request.tenant == self.calls[request.call].tenant;
            v.check(holds, "2. tenants mixed", || {
                format!("token of {owner:?}: {request:?}")
            });
        }
    }

    /// 1c. A call is sent at most twice, the second time after a 401 and with another token.
    fn replays(&self, v: &mut Violations) {
        let mut first = HashMap::<usize, &ApiRecord>::new();
        let mut replayed = HashMap::<usize, &ApiRecord>::new();
        for request in &self.log.api_requests {
            let Some(before) = first.insert(request.call, request) else {
                continue;
            };
            let holds = before.was_rejected() && before.token != request.token;
            let is_second = replayed.insert(request.call, request).is_none();
            v.check(holds && is_second, "1c. wrong replay", || {
                format!("{before:?}, then {request:?}")
            });
        }
    }

    /// 1b. A rejected token is not sent again.
    ///
    /// Within the spacing of rejections a 401 has no effect, so not every 401 counts. This one
    /// must: the first 401 to a token whose caller did not give up, and that is a spacing after the
    /// last 401 to any other token of the tenant, which is the latest time of the rejection before.
    /// No request with the token arrives after it.
    ///
    /// The spacing is at most 1 s, doubled for each earlier token that was rejected on a replay, or
    /// before it had been accepted three times. (The first of these responses that reaches a caller
    /// sets the spacing. Two may be lost to callers that gave up.)
    fn rejections(&self, tenant: usize, v: &mut Violations) {
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
                    let response = request.responded;
                    request.token == Some(*token)
                        && response.is_some_and(|(at, status)| status == 200 && at < first)
                });
                let to_replay = rejected.iter().any(|it| self.is_replay(it));
                (to_replay || accepted.count() < 3).then_some(first)
            })
            .collect();

        for (token, rejected) in &by_token {
            let mut rejected = rejected.clone();
            rejected.sort_by_key(|request| request.responded);
            let counts = rejected.iter().find_map(|request| {
                let at = request.responded_at()?;
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
                let was_received = self.calls[request.call].result != CallResult::DeadlineExceeded;
                (is_spaced && was_received).then_some(at)
            });
            let Some(counts) = counts else { continue };
            for request in of_tenant.iter().filter(|it| it.token == Some(*token)) {
                v.check(
                    request.received <= counts + self.tolerance(),
                    "1b. rejected token sent",
                    || format!("rejected at {counts:?}: {request:?}"),
                );
            }
        }
    }

    /// 3a. The token requests of one tenant run one at a time, up to three in a fetch, with pauses
    /// after failed fetches.
    fn fetches(&self, requests: &[&TokenRecord], v: &mut Violations) {
        let (mut tries, mut failed_fetches) = (1, 0);
        let mut fetch_started = requests.first().map_or(Duration::ZERO, |it| it.received);
        // The first rejection of the token that an early refresh replaced.
        let mut last_early: Option<Duration> = None;
        for pair in requests.windows(2) {
            let [last, next] = pair else { continue };
            let end = self.end(last);
            v.check(
                end <= next.received,
                "3. two token requests at once",
                || format!("{last:?} until {end:?}, {next:?}"),
            );
            v.check(
                end <= fetch_started + FETCH_TIMEOUT + self.tolerance(),
                "3. fetch beyond its timeout",
                || format!("since {fetch_started:?}: {last:?}"),
            );
            let gap = next.received.saturating_sub(end);
            let is_new_fetch = last.outcome == Outcome::Issued || gap >= SECOND;
            let is_quick = end.saturating_sub(last.received) < SECOND;
            let may_try = last.outcome == Outcome::Transient && is_quick && tries < TRIES;
            if last.outcome == Outcome::Issued {
                failed_fetches = 0;
                if gap < SECOND {
                    // Only a rejection causes such an early refresh, and rejections are spaced.
                    let rejected = self.first_rejection(last).filter(|at| *at <= next.received);
                    let is_spaced = match (last_early, rejected) {
                        (Some(early), Some(_)) => next.received >= early + SPACING,
                        (None, Some(_)) => true,
                        (_, None) => false,
                    };
                    v.check(is_spaced, "3. refreshed too early", || {
                        format!("rejected at {rejected:?} and {last_early:?}: {last:?}, {next:?}")
                    });
                    last_early = rejected;
                }
            } else if is_new_fetch {
                // On a slow machine this gap may be the wait before another try of the same fetch.
                if !may_try || gap > LONGEST_WAIT + self.tolerance() {
                    failed_fetches += 1;
                }
                let backoff = if failed_fetches > 1 {
                    LONGEST_PAUSE
                } else {
                    SECOND
                };
                let pause = match last.outcome {
                    Outcome::RetryAfter(seconds) => backoff.max(Duration::from_secs(seconds)),
                    _ => backoff,
                };
                v.check(gap >= pause, "3. pause too short", || {
                    format!("{gap:?} for {pause:?}: {last:?}, {next:?}")
                });
            } else {
                v.check(may_try, "3. retried without a pause", || {
                    format!("{tries} tries, {gap:?}: {last:?}, {next:?}")
                });
            }
            if is_new_fetch {
                (tries, fetch_started) = (1, next.received);
            } else {
                tries += 1;
            }
        }
    }

    /// 3b. The number of token requests of one tenant is limited by the plan: a fetch for each
    /// lifetime, two for each revocation (of the current token, and of one that is being fetched),
    /// one for a successor that is revoked in advance, and a failed one for each second with
    /// faults.
    fn budget(&self, tenant: usize, requests: usize, v: &mut Violations) {
        let plan = &self.plan;
        let lifetimes = (plan.total.as_secs_f64() / SOONEST_DUE) as usize + 1;
        let revocations = plan.revocations.iter();
        let revocations = revocations.filter(|it| it.tenant.is_none_or(|it| it == tenant));
        let revoked: usize = revocations
            .map(|it| 2 + usize::from(it.successor_too))
            .sum();
        let failed = plan.faults_end.as_secs() as usize + 1;
        let budget = TRIES * (lifetimes + revoked + failed);
        v.check(requests <= budget, "3. too many token requests", || {
            format!("tenant {tenant}: {requests} of {budget}")
        });
    }

    /// 4. Every call ends by its deadline, or without one by the timeouts of its steps.
    fn deadlines(&self, v: &mut Violations) {
        for call in &self.calls {
            v.check(
                call.ended <= call.deadline + self.tolerance(),
                "4. hung",
                || format!("{call:?}"),
            );
        }
    }

    /// 5. From some time after the last fault on, every call succeeds.
    fn recovery(&self, v: &mut Violations) {
        let recovered = self.plan.faults_end + RECOVERY + self.longest_delay;
        let calls = self.calls.iter().filter(|call| call.started >= recovered);
        v.check(
            calls.clone().count() > 0,
            "5. no call after the recovery",
            String::new,
        );
        for call in calls {
            v.check(
                call.result == CallResult::Response(200),
                "5. not recovered",
                || format!("{call:?}"),
            );
        }
    }

    /// Returns the tolerance, in which the delay counts twice: to the server and back.
    fn tolerance(&self) -> Duration {
        MAX_STEP + 2 * self.longest_delay
    }

    fn requests_with_token(&self) -> impl Iterator<Item = (&ApiRecord, &Token)> {
        let requests = self.log.api_requests.iter();
        requests.filter_map(|request| Some((request, &self.log.tokens[request.token?])))
    }

    /// Returns the end of a token request: its response, or the time at which the client dropped
    /// it, which the server notices a little later.
    fn end(&self, request: &TokenRecord) -> Duration {
        let (at_server, at_client) = (request.ended, self.tries[request.number]);
        let end = at_server.unwrap_or(Duration::MAX);
        end.min(at_client.unwrap_or(Duration::MAX))
    }

    /// Returns the time of the first rejection of the token that this request got.
    fn first_rejection(&self, request: &TokenRecord) -> Option<Duration> {
        let is_issued =
            |token: &Token| token.tenant == request.tenant && token.issued == request.received;
        let token = self.log.tokens.iter().position(is_issued)?;
        let rejected = self
            .log
            .api_requests
            .iter()
            .filter(|it| it.token == Some(token));
        let rejected = rejected.filter(|request| request.was_rejected());
        rejected.filter_map(ApiRecord::responded_at).min()
    }

    fn is_replay(&self, request: &ApiRecord) -> bool {
        let mut same = self
            .log
            .api_requests
            .iter()
            .filter(|it| it.call == request.call);
        same.next().is_some_and(|first| first.sent != request.sent)
    }
}

impl ApiRecord {
    pub(crate) fn was_rejected(&self) -> bool {
        self.responded.is_some_and(|(_, status)| status == 401)
    }

    /// Returns the latency of the network.
    pub(crate) fn delay(&self) -> Duration {
        self.received.saturating_sub(self.sent)
    }

    fn responded_at(&self) -> Option<Duration> {
        self.responded.map(|(at, _)| at)
    }
}
