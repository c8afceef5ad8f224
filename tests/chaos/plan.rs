//! The plan of faults, derived from the seed before the first request is sent.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

mod faults;

pub(crate) use faults::{Action, Behaviour, ConnectionEnd, Detour, Fate, RetryAfter};

pub(crate) const TENANTS: usize = 20;

/// The time without faults at the end of a run.
const FAULT_FREE_END: Duration = Duration::from_secs(7);

/// Tokens that the API rejects from a moment on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revocation {
    pub(crate) at: Duration,
    /// All tenants if `None`.
    pub(crate) tenant: Option<usize>,
    /// The next token is rejected too, from its first use on.
    pub(crate) successor_too: bool,
}

/// A new client secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// From here on the server accepts only the new secret.
    pub(crate) enforced: Duration,
    /// From here on the client uses the new secret.
    pub(crate) known: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Healthy,
    Slow,
    Flaky,
    Throttling,
    Garbled,
    Down,
    Hanging,
    Redirecting,
    /// Connections die or are closed.
    Dying,
}

pub(crate) struct Plan {
    seed: u64,
    pub(crate) total: Duration,
    /// There are no faults from here on.
    pub(crate) faults_end: Duration,
    /// Each condition lasts until its time.
    token_conditions: Vec<(Duration, Condition)>,
    api_conditions: Vec<(Duration, Condition)>,
    connection_conditions: Vec<(Duration, Condition)>,
    /// The error of the token endpoint's clock, in seconds, until each time.
    clock_errors: Vec<(Duration, i64)>,
    /// Sorted by time.
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) rotations: Vec<Rotation>,
}

/// The purpose of a random number. Each has a sequence of its own, so that one more draw for one of
/// them does not change the others.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    TokenConditions,
    ApiConditions,
    Revocations,
    Rotations,
    TokenRequest,
    Lifetime,
    Api,
    Caller,
    Connections,
    Connection,
    Clock,
    Undriven,
    Challenge,
}

impl Plan {
    pub(crate) fn new(seed: u64, total: Duration) -> Self {
        use Condition::{
            Down, Dying, Flaky, Garbled, Hanging, Healthy, Redirecting, Slow, Throttling,
        };

        let faults_end = total - FAULT_FREE_END;
        Self {
            seed,
            total,
            faults_end,
            token_conditions: conditions(
                &mut stream(seed, Stream::TokenConditions, 0),
                faults_end,
                &[
                    Healthy, Healthy, Healthy, Slow, Flaky, Throttling, Throttling, Garbled, Down,
                    Hanging,
                ],
            ),
            api_conditions: conditions(
                &mut stream(seed, Stream::ApiConditions, 0),
                faults_end,
                &[
                    Healthy,
                    Healthy,
                    Slow,
                    Flaky,
                    Throttling,
                    Down,
                    Hanging,
                    Redirecting,
                ],
            ),
            connection_conditions: conditions(
                &mut stream(seed, Stream::Connections, 0),
                faults_end,
                &[Healthy, Dying],
            ),
            clock_errors: clock_errors(&mut stream(seed, Stream::Clock, 0), faults_end),
            revocations: revocations(&mut stream(seed, Stream::Revocations, 0), faults_end),
            rotations: rotations(&mut stream(seed, Stream::Rotations, 0), faults_end),
        }
    }

    /// Returns a generator for the `nth` item of a kind.
    pub(crate) fn rng(&self, kind: Stream, nth: u64) -> Rng {
        stream(self.seed, kind, nth)
    }

    /// Returns the behaviour towards a tenant's `nth` token request, received at `now`.
    pub(crate) fn token_request(&self, tenant: usize, nth: usize, now: Duration) -> Behaviour {
        let rng = &mut self.rng(Stream::TokenRequest, (tenant << 32 | nth) as u64);
        let (latency, action) = match at(&self.token_conditions, now).unwrap_or(Condition::Healthy)
        {
            Condition::Healthy => (ms(rng, 5..60), Action::Serve),
            Condition::Slow => (ms(rng, 100..2_500), Action::Serve),
            Condition::Flaky if chance(rng, 0.3) => (ms(rng, 5..60), Action::Serve),
            Condition::Flaky if chance(rng, 0.6) => (ms(rng, 0..1_500), Action::Close),
            Condition::Flaky => (ms(rng, 0..1_500), Action::Fail(rng.u16(500..505))),
            Condition::Throttling => {
                let seconds = rng.u64(1..4);
                let named = match rng.usize(..4) {
                    0 => None,
                    1 => Some(RetryAfter::Seconds(seconds)),
                    _ => Some(RetryAfter::Date(seconds)),
                };
                (ms(rng, 0..100), Action::Throttle(named))
            }
            Condition::Garbled => (ms(rng, 0..200), Action::Garble(rng.usize(..))),
            Condition::Down => (ms(rng, 0..20), Action::Fail(503)),
            // Until the try times out, or less.
            Condition::Hanging if chance(rng, 0.5) => (Duration::from_secs(60), Action::Close),
            Condition::Hanging => (ms(rng, 800..2_900), Action::Fail(503)),
            Condition::Redirecting | Condition::Dying => unreachable!("not in the list"),
        };
        self.until_faults_end(latency, action, now)
    }

    /// Returns the behaviour towards the `nth` request to the API, received at `now`.
    pub(crate) fn api_request(&self, nth: usize, now: Duration) -> Behaviour {
        let rng = &mut self.rng(Stream::Api, nth as u64);
        let harm = chance(rng, 0.4);
        let (latency, action) = match at(&self.api_conditions, now).unwrap_or(Condition::Healthy) {
            Condition::Slow => (ms(rng, 5..400), Action::Serve),
            Condition::Flaky if harm => (ms(rng, 0..50), Action::Close),
            Condition::Throttling if harm => (ms(rng, 0..20), Action::Throttle(None)),
            Condition::Down if harm => (ms(rng, 0..20), Action::Fail(rng.u16(500..505))),
            Condition::Hanging if harm => (ms(rng, 200..2_500), Action::Close),
            Condition::Redirecting if harm => {
                let status = [302, 303, 307][rng.usize(..3)];
                let detours = [
                    Detour::SameOrigin,
                    Detour::OtherScheme,
                    Detour::OtherOrigin,
                    Detour::AndBack,
                ];
                let detour = detours[rng.usize(..detours.len())];
                (ms(rng, 0..5), Action::Redirect(status, detour))
            }
            _ => (ms(rng, 0..5), Action::Serve),
        };
        self.until_faults_end(latency, action, now)
    }

    /// Returns the fate of the `nth` connection, accepted at `now`.
    pub(crate) fn connection(&self, nth: usize, now: Duration) -> Fate {
        let rng = &mut self.rng(Stream::Connection, nth as u64);
        let dies = matches!(at(&self.connection_conditions, now), Some(Condition::Dying));
        let (dead, closed) = (dies && chance(rng, 0.4), dies && chance(rng, 0.5));
        let answers = if rng.bool() { 0 } else { rng.usize(1..4) };
        let end = match (dead, closed) {
            (true, _) => ConnectionEnd::Dead,
            (_, true) => ConnectionEnd::Closed(ms(rng, 20..70)),
            _ => ConnectionEnd::Never,
        };
        Fate { answers, end }
    }

    /// Returns the error of the token endpoint's clock, in seconds.
    pub(crate) fn clock_error(&self, now: Duration) -> i64 {
        at(&self.clock_errors, now).unwrap_or_default()
    }

    /// Returns true if the 401 to the `nth` request, which has this token, says `invalid_token`, or
    /// false if it rejects the token in other words. For some tokens all 401s do, for others none.
    pub(crate) fn says_invalid_token(&self, token: usize, nth: usize) -> bool {
        let rng = &mut self.rng(Stream::Challenge, token as u64);
        let probability = [0.0, 0.5, 1.0][rng.usize(..3)];
        let mut rng = self.rng(Stream::Challenge, (token << 32 | nth) as u64);
        chance(&mut rng, probability)
    }

    /// Returns the index of the secret that the server accepts.
    pub(crate) fn secret_enforced(&self, now: Duration) -> usize {
        let enforced = |rotation: &&Rotation| rotation.enforced <= now;
        self.rotations.iter().filter(enforced).count()
    }

    /// Returns the index of the secret that the client uses.
    pub(crate) fn secret_known(&self, now: Duration) -> usize {
        let known = |rotation: &&Rotation| rotation.known <= now;
        self.rotations.iter().filter(known).count()
    }

    /// Limits a behaviour so that no fault lasts beyond the end of the faults.
    fn until_faults_end(&self, latency: Duration, action: Action, now: Duration) -> Behaviour {
        let left = self.faults_end.saturating_sub(now);
        if left.is_zero() {
            let latency = latency.min(Duration::from_millis(20));
            return Behaviour {
                latency,
                action: Action::Serve,
            };
        }
        Behaviour {
            latency: latency.min(left),
            action,
        }
    }
}

fn stream(seed: u64, kind: Stream, nth: u64) -> Rng {
    // Odd multipliers make the seeds of neighbours differ in many bits.
    let kind = (kind as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let nth = nth.wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut rng = Rng::with_seed(seed ^ kind ^ nth);
    rng.u64(..);
    rng
}

/// Returns phases that run through `kinds` in a random order, again and again.
fn conditions(
    rng: &mut Rng,
    faults_end: Duration,
    kinds: &[Condition],
) -> Vec<(Duration, Condition)> {
    // Tokens must be issued before they can be revoked.
    let mut until = ms(rng, 500..1_000);
    let mut phases = vec![(until, Condition::Healthy)];
    let mut left = Vec::new();
    while until < faults_end {
        until += ms(rng, 300..1_500);
        if left.is_empty() {
            left = kinds.to_vec();
            rng.shuffle(&mut left);
        }
        let kind = left.pop().unwrap_or(Condition::Healthy);
        phases.push((until.min(faults_end), kind));
    }
    phases
}

/// Returns the errors of a clock that is right, a day ahead or a day behind.
fn clock_errors(rng: &mut Rng, faults_end: Duration) -> Vec<(Duration, i64)> {
    const DAY: i64 = 24 * 60 * 60;

    let mut until = Duration::ZERO;
    let mut phases = Vec::new();
    while until < faults_end {
        until += ms(rng, 100..600);
        phases.push((until, [0, DAY, -DAY][rng.usize(..3)]));
    }
    phases
}

fn at<T: Copy>(phases: &[(Duration, T)], now: Duration) -> Option<T> {
    let phase = phases.iter().find(|(until, _)| now < *until);
    phase.map(|(_, value)| *value)
}

fn revocations(rng: &mut Rng, faults_end: Duration) -> Vec<Revocation> {
    let mut all = Vec::new();
    let mut one = |at: Duration, tenant, successor_too| {
        if at < faults_end {
            all.push(Revocation {
                at,
                tenant,
                successor_too,
            });
        }
    };
    let mut at = Duration::from_secs(1);
    while at < faults_end {
        at += ms(rng, 200..900);
        let tenant = rng.usize(..TENANTS);
        one(at, Some(tenant), false);
        // A second one within the spacing of rejections.
        if chance(rng, 0.4) {
            one(at + ms(rng, 20..900), Some(tenant), false);
        }
    }
    // A wider spacing delays the recovery, so there is at most one per tenant, well before the end.
    let mut tenants: Vec<usize> = (0..TENANTS).collect();
    rng.shuffle(&mut tenants);
    for tenant in tenants.into_iter().take(4) {
        one(between(rng, faults_end, 0.1..0.8), Some(tenant), true);
    }
    for _ in 0..2 {
        one(between(rng, faults_end, 0.1..1.0), None, false);
    }
    all.sort_by_key(|revocation| revocation.at);
    all
}

fn rotations(rng: &mut Rng, faults_end: Duration) -> Vec<Rotation> {
    [0.1..0.4, 0.5..0.8]
        .into_iter()
        .map(|part| {
            let enforced = between(rng, faults_end, part);
            let known = (enforced + ms(rng, 200..1_200)).min(faults_end);
            Rotation { enforced, known }
        })
        .collect()
}

fn between(rng: &mut Rng, faults_end: Duration, part: Range<f64>) -> Duration {
    faults_end.mul_f64(part.start + (part.end - part.start) * rng.f64())
}

pub(crate) fn ms(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

pub(crate) fn chance(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}
