//! The invariants, checked against the server's records after the run.
//!
//! The records of both sides are by one clock. A bound without a tolerance holds exactly: the server
//! writes an end down before the client can see it, and a beginning after the client has made it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::callers::{Call, End, Tries};
use crate::plan::{Plan, TENANTS};
use crate::server::{Asked, Called, Log, Token, Verdict};
use crate::{FETCH_TIMEOUT, HEALING, LONGEST_PAUSE};

/// How long a machine may take from one step to the next, over the network or by a timer, and from
/// the cache's look at its clock to the stamp on the request; to both comes what was measured.
const BUSY: Duration = Duration::from_millis(300);
const STALL: Duration = Duration::from_millis(50);

const SECOND: Duration = Duration::from_secs(1);
/// Rule 21: the least and the most time from one rejection to the next.
const SPACING: Duration = SECOND;
const LONGEST_SPACING: Duration = Duration::from_secs(10);
/// Rule 1: how long before its end a token of the plan's lives is dead.
const MARGIN: Duration = SECOND;
/// Rule 1: the shortest of those lives is due no sooner than this after it was asked for.
const SOONEST_DUE: f64 = 2.6;
/// Rule 13: the tries of a flight, and the longest wait between them.
const TRIES: usize = 3;
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// How many of one kind are shown.
const SHOWN: usize = 4;

pub(crate) struct Run {
    pub(crate) plan: std::sync::Arc<Plan>,
    pub(crate) log: Log,
    pub(crate) calls: Vec<Call>,
    pub(crate) tries: Tries,
    /// How late a timer or a request came at worst. The crate has no part in either.
    pub(crate) worst: Duration,
}

/// What is wrong, by invariant.
#[derive(Default)]
pub(crate) struct Violations(Vec<(&'static str, Vec<String>)>);

impl Violations {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if holds {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| *name == invariant) {
            Some((_, all)) => all.push(what()),
            None => self.0.push((invariant, vec![what()])),
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (invariant, all) in &self.0 {
            writeln!(f, "{invariant}: {} times", all.len())?;
            for what in all.iter().take(SHOWN) {
                writeln!(f, "    {what}")?;
            }
        }
        Ok(())
    }
}

impl Run {
    pub(crate) fn verify(&self) -> Violations {
        let mut violations = Violations::default();
        let v = &mut violations;
        self.lives(v);
        self.tenants(v);
        self.replays(v);
        for tenant in 0..TENANTS {
            self.rejections(tenant, v);
            let asked = self.log.asked.iter().filter(|it| it.tenant == tenant);
            let asked: Vec<_> = asked.collect();
            self.flights(&asked, v);
            self.budget(tenant, asked.len(), v);
        }
        self.deadlines(v);
        self.healing(v);
        violations
    }

    /// 1a. No request carries a token past its life, which the server counts from the arrival of the
    /// token request, as the client does from just before it.
    ///
    /// A token that was had within a second is dead a margin before its end, so that it arrives alive
    /// on the busiest machine; one that took longer may be served whole, and arrive a little late.
    fn lives(&self, v: &mut Violations) {
        for (called, token) in self.carried() {
            let end = if token.latency < SECOND {
                token.issued + token.life - MARGIN
            } else {
                token.issued + token.life
            };
            let holds =
                called.sent <= end + STALL + self.worst && called.received <= end + self.busy();
            v.check(holds, "1a. dead token carried", || {
                format!("dead at {end:?}: {called:?} {token:?}")
            });
        }
    }

    /// 2. The token is one that the server made for the tenant in the path, who is the caller's.
    fn tenants(&self, v: &mut Violations) {
        for called in &self.log.called {
            let owner = called.token.map(|it| self.log.tokens[it].tenant);
            let holds =
                owner == Some(called.tenant) && called.tenant == self.calls[called.call].tenant;
            v.check(holds, "2. tenants mixed", || {
                format!("token of {owner:?}: {called:?}")
            });
        }
    }

    /// 1c. A call comes twice at most, the second time after a 401 and with another token.
    fn replays(&self, v: &mut Violations) {
        let mut first = HashMap::<usize, &Called>::new();
        let mut replayed = HashMap::<usize, &Called>::new();
        for called in &self.log.called {
            let Some(before) = first.insert(called.call, called) else {
                continue;
            };
            let holds = before.was_refused() && before.token != called.token;
            let is_second = replayed.insert(called.call, called).is_none();
            v.check(holds && is_second, "1c. call sent again", || {
                format!("{before:?}, then {called:?}")
            });
        }
    }

    /// 1b. A rejected token is not carried again.
    ///
    /// Within the spacing of rejections a 401 rejects nothing, so not every 401 counts, but this one
    /// must: the first to a token whose caller stayed for it and that came a spacing after the last
    /// 401 to any other token of the tenant, the latest that the rejection before can have been. No
    /// request with the token arrives after it. The spacing is at most 1 s doubled by each token so
    /// far that was refused to a replay, or before it was accepted three times (the first of these
    /// answers that reaches anybody judges it; two may be lost to callers who gave up).
    fn rejections(&self, tenant: usize, v: &mut Violations) {
        let of_tenant: Vec<_> = self
            .log
            .called
            .iter()
            .filter(|called| called.tenant == tenant)
            .collect();
        let mut by_token = HashMap::<usize, Vec<&Called>>::new();
        for called in of_tenant.iter().filter(|called| called.was_refused()) {
            by_token
                .entry(called.token.unwrap_or(usize::MAX))
                .or_default()
                .push(called);
        }
        let useless: Vec<Duration> = by_token
            .iter()
            .filter_map(|(token, refused)| {
                let first = refused.iter().filter_map(|it| it.answered_at()).min()?;
                let accepted = of_tenant.iter().filter(|called| {
                    let answer = called.answered;
                    called.token == Some(*token)
                        && answer.is_some_and(|(at, status)| status == 200 && at < first)
                });
                let to_replay = refused.iter().any(|it| self.is_replay(it));
                (to_replay || accepted.count() < 3).then_some(first)
            })
            .collect();

        for (token, refused) in &by_token {
            let mut refused = refused.clone();
            refused.sort_by_key(|called| called.answered);
            let counts = refused.iter().find_map(|called| {
                let at = called.answered_at()?;
                let others = by_token.iter().filter(|(other, _)| *other != token);
                let last_other = others
                    .flat_map(|(_, refused)| refused)
                    .filter_map(|it| it.answered_at())
                    .filter(|other| *other <= at)
                    .max();
                let widened = useless.iter().filter(|first| **first <= at).count();
                let spacing = SPACING
                    .saturating_mul(1 << widened.min(10))
                    .min(LONGEST_SPACING);
                let is_spaced = last_other.is_none_or(|other| other + spacing + self.busy() <= at);
                let stayed = self.calls[called.call].end != End::GivenUp;
                (is_spaced && stayed).then_some(at)
            });
            let Some(counts) = counts else { continue };
            for called in of_tenant.iter().filter(|it| it.token == Some(*token)) {
                v.check(
                    called.received <= counts + self.busy(),
                    "1b. rejected token carried",
                    || format!("rejected at {counts:?}: {called:?}"),
                );
            }
        }
    }

    /// 3a. The token requests of one tenant: one at a time, up to three to a flight, and the pauses
    /// between flights.
    fn flights(&self, asked: &[&Asked], v: &mut Violations) {
        let (mut tries, mut failed_flights) = (1, 0);
        let mut flight_began = asked.first().map_or(Duration::ZERO, |it| it.received);
        // The first refusal of the token that an early renewal replaced.
        let mut last_early: Option<Duration> = None;
        for pair in asked.windows(2) {
            let [last, next] = pair else { continue };
            let end = self.end(last);
            v.check(
                end <= next.received,
                "3. two token requests at once",
                || format!("{last:?} until {end:?}, {next:?}"),
            );
            v.check(
                end <= flight_began + FETCH_TIMEOUT + self.busy(),
                "3. flight without end",
                || format!("since {flight_began:?}: {last:?}"),
            );
            let gap = next.received.saturating_sub(end);
            let is_new_flight = last.verdict == Verdict::Issued || gap >= SECOND;
            let is_quick = end.saturating_sub(last.received) < SECOND;
            let may_try = last.verdict == Verdict::Transient && is_quick && tries < TRIES;
            if last.verdict == Verdict::Issued {
                failed_flights = 0;
                if gap < SECOND {
                    // Only a rejection renews so early, and rejections are spaced.
                    let refused = self.first_refusal(last).filter(|at| *at <= next.received);
                    let is_spaced = match (last_early, refused) {
                        (Some(early), Some(_)) => next.received >= early + SPACING,
                        (None, Some(_)) => true,
                        (_, None) => false,
                    };
                    v.check(is_spaced, "3. renewed too soon", || {
                        format!("refused at {refused:?} and {last_early:?}: {last:?}, {next:?}")
                    });
                    last_early = refused;
                }
            } else if is_new_flight {
                // On a slow machine it may have been the wait for another try.
                if !may_try || gap > LONGEST_WAIT + self.busy() {
                    failed_flights += 1;
                }
                let backoff = if failed_flights > 1 {
                    LONGEST_PAUSE
                } else {
                    SECOND
                };
                let pause = match last.verdict {
                    Verdict::RetryAfter(seconds) => backoff.max(Duration::from_secs(seconds)),
                    _ => backoff,
                };
                v.check(gap >= pause, "3. pause cut short", || {
                    format!("{gap:?} for {pause:?}: {last:?}, {next:?}")
                });
            } else {
                v.check(may_try, "3. tried again without a pause", || {
                    format!("{tries} tries, {gap:?}: {last:?}, {next:?}")
                });
            }
            if is_new_flight {
                (tries, flight_began) = (1, next.received);
            } else {
                tries += 1;
            }
        }
    }

    /// 3b. The token requests of one tenant altogether, by what the plan makes necessary: a flight for
    /// each life, two for each revocation (the token that is current, and one on its way) and one for
    /// its stillborn successor, and a failed one for each second in which there are faults.
    fn budget(&self, tenant: usize, asked: usize, v: &mut Violations) {
        let plan = &self.plan;
        let lives = (plan.total.as_secs_f64() / SOONEST_DUE) as usize + 1;
        let hits = plan.revocations.iter();
        let hits = hits.filter(|it| it.tenant.is_none_or(|hit| hit == tenant));
        let revoked: usize = hits.map(|it| 2 + usize::from(it.successor_too)).sum();
        let failed = plan.calm.as_secs() as usize + 1;
        let budget = TRIES * (lives + revoked + failed);
        v.check(asked <= budget, "3. over budget", || {
            format!("tenant {tenant}: {asked} of {budget}")
        });
    }

    /// 4. Every call ended by its deadline, or if it had none by the limits of what it waited for.
    fn deadlines(&self, v: &mut Violations) {
        for call in &self.calls {
            v.check(call.ended <= call.deadline + self.busy(), "4. hung", || {
                format!("{call:?}")
            });
        }
    }

    /// 5. From some time after the last fault on, every call is answered.
    fn healing(&self, v: &mut Violations) {
        let healed = self.plan.calm + HEALING + self.worst;
        let calls = self.calls.iter().filter(|call| call.begun >= healed);
        v.check(calls.clone().count() > 0, "5. nothing to see", String::new);
        for call in calls {
            v.check(call.end == End::Answer(200), "5. not healed", || {
                format!("{call:?}")
            });
        }
    }

    /// The tolerance: what was measured is there twice, on the way to the server and back.
    fn busy(&self) -> Duration {
        BUSY + 2 * self.worst
    }

    fn carried(&self) -> impl Iterator<Item = (&Called, &Token)> {
        let called = self.log.called.iter();
        called.filter_map(|called| Some((called, &self.log.tokens[called.token?])))
    }

    /// When a token request was over: when its answer went out, or the client let go of it, of which
    /// the server hears a little later.
    fn end(&self, asked: &Asked) -> Duration {
        let (ours, theirs) = (asked.ended, self.tries[asked.number]);
        let end = ours.unwrap_or(Duration::MAX);
        end.min(theirs.unwrap_or(Duration::MAX))
    }

    /// When the token that this brought was first refused.
    fn first_refusal(&self, asked: &Asked) -> Option<Duration> {
        let brought =
            |token: &Token| token.tenant == asked.tenant && token.issued == asked.received;
        let token = self.log.tokens.iter().position(brought)?;
        let refused = self.log.called.iter().filter(|it| it.token == Some(token));
        let refused = refused.filter(|called| called.was_refused());
        refused.filter_map(Called::answered_at).min()
    }

    fn is_replay(&self, called: &Called) -> bool {
        let mut same = self.log.called.iter().filter(|it| it.call == called.call);
        same.next().is_some_and(|first| first.sent != called.sent)
    }
}

impl Called {
    pub(crate) fn was_refused(&self) -> bool {
        self.answered.is_some_and(|(_, status)| status == 401)
    }

    /// The network's latency.
    pub(crate) fn late(&self) -> Duration {
        self.received.saturating_sub(self.sent)
    }

    fn answered_at(&self) -> Option<Duration> {
        self.answered.map(|(at, _)| at)
    }
}
