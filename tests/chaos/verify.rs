//! The invariants, checked against the records after the run.
//!
//! Client and server use the same clock. A bound without a tolerance is exact: the server records
//! the start of a request after the client has sent it, and its end before the client can see it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::RECOVERY;
use crate::callers::{Attempt, AttemptEnd, Call, CallResult, FIRST_UNDRIVEN};
use crate::plan::{Plan, TENANTS};
use crate::server::{ApiRecord, Log, Outcome, Token, TokenRecord};

mod failures;
mod fetches;
mod rejections;

/// The time that a step over the network or a timer may take, besides the measured delay.
const MAX_STEP: Duration = Duration::from_millis(300);
/// The time from the cache's reading of the clock to the timestamp of the request, besides the
/// measured delay.
const MAX_STALL: Duration = Duration::from_millis(50);

const SECOND: Duration = Duration::from_secs(1);
/// Rule 21: the least time from one rejection to the next.
const SPACING: Duration = SECOND;

/// The number of violations of one kind that are shown.
const SHOWN: usize = 4;

pub(crate) struct Run {
    pub(crate) plan: std::sync::Arc<Plan>,
    pub(crate) log: Log,
    /// By number.
    pub(crate) calls: BTreeMap<usize, Call>,
    /// By number.
    pub(crate) attempts: Vec<Attempt>,
    /// The longest delay of a timer or of a request on the network, neither of which is the
    /// crate's.
    pub(crate) longest_delay: Duration,
}

/// A try of a fetch, with the request that arrived at the server, if one did.
#[derive(Clone, Copy, Debug)]
struct Try<'a> {
    attempt: &'a Attempt,
    number: usize,
    request: Option<&'a TokenRecord>,
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
        self.redirects(v);
        self.replays(v);
        for tenant in 0..TENANTS {
            let tries = self.tries(tenant);
            self.rejections(tenant, &tries, v);
            self.fetches(&tries, v);
            self.budget(tenant, &tries, v);
            self.late_tokens(tenant, &tries, v);
            self.failures(tenant, &tries, v);
        }
        self.deadlines(v);
        self.recovery(v);
        violations
    }

    /// 1a. No request carries an expired token. Its life counts from before its token request.
    fn lifetimes(&self, v: &mut Violations) {
        for (request, token) in self.requests_with_token() {
            let end = self.attempts[token.number].started + token.lifetime;
            let holds = request.sent <= end + MAX_STALL + self.longest_delay
                && self.arrival(request) <= end + self.tolerance();
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
                owner == Some(request.tenant) && request.tenant == self.calls[&request.call].tenant;
            v.check(holds, "2. tenants mixed", || {
                format!("token of {owner:?}: {request:?}")
            });
        }
        for request in &self.log.token_requests {
            let attempt = &self.attempts[request.number];
            v.check(request.tenant == attempt.tenant, "2. tenants mixed", || {
                format!("{request:?} for {attempt:?}")
            });
        }
    }

    /// 2b. No other origin sees a token.
    fn redirects(&self, v: &mut Violations) {
        for hop in self.log.hops.iter().filter(|it| it.is_foreign) {
            v.check(!hop.has_authorization, "2b. token sent elsewhere", || {
                format!("{hop:?} {:?}", self.log.api_requests[hop.request])
            });
        }
    }

    /// 1c. A call is sent at most twice, the second time after a 401 of the API and with another
    /// token.
    ///
    /// 1d. It is sent once if the client followed a redirect, unless its method is safe.
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
            let may_be_replayed = before.is_safe || !before.is_redirected;
            v.check(may_be_replayed, "1d. replayed after a redirect", || {
                format!("{before:?}, then {request:?}")
            });
        }
    }

    /// 4. Every call ends by its deadline, or without one by the timeouts of its steps.
    fn deadlines(&self, v: &mut Violations) {
        for call in self.calls.values() {
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
        let calls = self.calls.values().filter(|call| call.started >= recovered);
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

    /// Returns the arrival of a request. That of an undriven caller may be sent when the next of
    /// them calls, so for those it is the time at which the request left the layer.
    fn arrival(&self, request: &ApiRecord) -> Duration {
        match request.call < FIRST_UNDRIVEN {
            true => request.received,
            false => request.sent,
        }
    }

    /// Returns the tries for a tenant in their order.
    fn tries(&self, tenant: usize) -> Vec<Try<'_>> {
        let requests = self.log.token_requests.iter();
        let requests: HashMap<_, _> = requests.map(|it| (it.number, it)).collect();
        let attempts = self.attempts.iter().enumerate();
        attempts
            .filter(|(_, attempt)| attempt.tenant == tenant)
            .map(|(number, attempt)| Try {
                attempt,
                number,
                request: requests.get(&number).copied(),
            })
            .collect()
    }

    fn token_of(&self, number: usize) -> Option<(usize, &Token)> {
        let mut tokens = self.log.tokens.iter().enumerate();
        tokens.find(|(_, token)| token.number == number)
    }

    fn requests_of(&self, token: usize) -> impl Iterator<Item = &ApiRecord> {
        let requests = self.log.api_requests.iter();
        requests.filter(move |request| request.token == Some(token))
    }

    fn is_replay(&self, request: &ApiRecord) -> bool {
        let mut requests = self.log.api_requests.iter();
        let first = requests.find(|it| it.call == request.call);
        first.is_some_and(|first| first.sent != request.sent)
    }
}

impl Try<'_> {
    fn started(&self) -> Duration {
        self.attempt.started
    }

    fn ended(&self) -> Duration {
        self.attempt.ended.unwrap_or(Duration::MAX)
    }

    fn duration(&self) -> Duration {
        self.ended().saturating_sub(self.started())
    }

    fn got_token(&self) -> bool {
        self.attempt.end == AttemptEnd::Token
    }

    /// Returns the `Retry-After` that the client got.
    fn retry_after(&self) -> Option<Duration> {
        match self.request?.outcome {
            Outcome::RetryAfter(seconds) if self.attempt.end == AttemptEnd::Error => {
                Some(Duration::from_secs(seconds))
            }
            _ => None,
        }
    }
}
