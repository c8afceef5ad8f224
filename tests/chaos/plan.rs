//! What goes wrong and when: all of it drawn from the seed before the first request is sent.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

pub(crate) const TENANTS: usize = 20;

/// How long before the end the faults stop.
const CALM_END: Duration = Duration::from_secs(7);

/// What a server does with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Treatment {
    pub(crate) latency: Duration,
    pub(crate) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it should be.
    Serve,
    /// The connection is closed without an answer.
    Close,
    /// 429, with Retry-After in seconds or without.
    Throttle(Option<u64>),
    /// A 5xx.
    Fail(u16),
    /// 200, and no token response.
    Garble(usize),
}

/// Tokens that the API refuses from a moment on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revocation {
    pub(crate) at: Duration,
    /// Everybody's if `None`.
    pub(crate) tenant: Option<usize>,
    /// The next token is refused from its first use on as well.
    pub(crate) successor_too: bool,
}

/// A new client secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// From here on the server takes only the new one.
    pub(crate) enforced: Duration,
    /// From here on the client has it.
    pub(crate) known: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Weather {
    Fair,
    Slow,
    Flaky,
    Throttling,
    Garbled,
    Down,
    Hanging,
}

pub(crate) struct Plan {
    seed: u64,
    pub(crate) total: Duration,
    /// From here on nothing fails any more.
    pub(crate) calm: Duration,
    /// Each lasts until its moment.
    token_weather: Vec<(Duration, Weather)>,
    api_weather: Vec<(Duration, Weather)>,
    /// By time.
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) rotations: Vec<Rotation>,
}

/// What a number is drawn for, so that draws of one kind don't move those of another.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    TokenWeather,
    ApiWeather,
    Revocations,
    Rotations,
    TokenRequest,
    Life,
    Api,
    Caller,
}

impl Plan {
    pub(crate) fn new(seed: u64, total: Duration) -> Self {
        let calm = total - CALM_END;
        Self {
            seed,
            total,
            calm,
            token_weather: weather(&mut stream(seed, Stream::TokenWeather, 0), calm),
            api_weather: weather(&mut stream(seed, Stream::ApiWeather, 0), calm),
            revocations: revocations(&mut stream(seed, Stream::Revocations, 0), calm),
            rotations: rotations(&mut stream(seed, Stream::Rotations, 0), calm),
        }
    }

    /// Numbers for the `nth` thing of a kind.
    pub(crate) fn rng(&self, kind: Stream, nth: u64) -> Rng {
        stream(self.seed, kind, nth)
    }

    /// A tenant's `nth` token request, come in at `now`.
    pub(crate) fn token_request(&self, tenant: usize, nth: usize, now: Duration) -> Treatment {
        let rng = &mut self.rng(Stream::TokenRequest, (tenant << 32 | nth) as u64);
        let (latency, fate) = match at(&self.token_weather, now) {
            Weather::Fair => (ms(rng, 5..60), Fate::Serve),
            Weather::Slow => (ms(rng, 100..2_500), Fate::Serve),
            Weather::Flaky if chance(rng, 0.3) => (ms(rng, 5..60), Fate::Serve),
            Weather::Flaky if chance(rng, 0.6) => (ms(rng, 0..1_500), Fate::Close),
            Weather::Flaky => (ms(rng, 0..1_500), Fate::Fail(rng.u16(500..505))),
            Weather::Throttling => {
                let named = chance(rng, 0.5).then(|| rng.u64(1..4));
                (ms(rng, 0..100), Fate::Throttle(named))
            }
            Weather::Garbled => (ms(rng, 0..200), Fate::Garble(rng.usize(..))),
            Weather::Down => (ms(rng, 0..20), Fate::Fail(503)),
            // Until the client goes, or just short of that.
            Weather::Hanging if chance(rng, 0.5) => (Duration::from_secs(60), Fate::Close),
            Weather::Hanging => (ms(rng, 1_000..2_900), Fate::Fail(503)),
        };
        self.until_calm(latency, fate, now)
    }

    /// The `nth` request to the API, come in at `now`.
    pub(crate) fn api_request(&self, nth: usize, now: Duration) -> Treatment {
        let rng = &mut self.rng(Stream::Api, nth as u64);
        let harm = chance(rng, 0.4);
        let (latency, fate) = match at(&self.api_weather, now) {
            Weather::Slow => (ms(rng, 5..400), Fate::Serve),
            Weather::Flaky if harm => (ms(rng, 0..50), Fate::Close),
            Weather::Throttling if harm => (ms(rng, 0..20), Fate::Throttle(None)),
            Weather::Down if harm => (ms(rng, 0..20), Fate::Fail(rng.u16(500..505))),
            Weather::Hanging if harm => (ms(rng, 200..2_500), Fate::Close),
            _ => (ms(rng, 0..5), Fate::Serve),
        };
        self.until_calm(latency, fate, now)
    }

    /// Which secret the server takes.
    pub(crate) fn secret_enforced(&self, now: Duration) -> usize {
        let enforced = |rotation: &&Rotation| rotation.enforced <= now;
        self.rotations.iter().filter(enforced).count()
    }

    /// Which secret the client has.
    pub(crate) fn secret_known(&self, now: Duration) -> usize {
        let known = |rotation: &&Rotation| rotation.known <= now;
        self.rotations.iter().filter(known).count()
    }

    /// No fault outlasts the faults' end.
    fn until_calm(&self, latency: Duration, fate: Fate, now: Duration) -> Treatment {
        let left = self.calm.saturating_sub(now);
        if left.is_zero() {
            let latency = latency.min(Duration::from_millis(20));
            return Treatment {
                latency,
                fate: Fate::Serve,
            };
        }
        Treatment {
            latency: latency.min(left),
            fate,
        }
    }
}

fn stream(seed: u64, kind: Stream, nth: u64) -> Rng {
    // Odd multipliers, so that neighbours are far apart; the generator mixes the rest.
    let kind = (kind as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let nth = nth.wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut rng = Rng::with_seed(seed ^ kind ^ nth);
    rng.u64(..);
    rng
}

fn weather(rng: &mut Rng, calm: Duration) -> Vec<(Duration, Weather)> {
    use Weather::{Down, Fair, Flaky, Garbled, Hanging, Slow, Throttling};

    // Tokens must be had before they can be revoked.
    let mut until = ms(rng, 500..1_000);
    let mut phases = vec![(until, Fair)];
    while until < calm {
        until += ms(rng, 300..1_500);
        let kinds = [
            Fair, Fair, Fair, Slow, Flaky, Throttling, Garbled, Down, Hanging,
        ];
        phases.push((until.min(calm), kinds[rng.usize(..kinds.len())]));
    }
    phases
}

fn at(phases: &[(Duration, Weather)], now: Duration) -> Weather {
    let phase = phases.iter().find(|(until, _)| now < *until);
    phase.map_or(Weather::Fair, |(_, weather)| *weather)
}

fn revocations(rng: &mut Rng, calm: Duration) -> Vec<Revocation> {
    let mut all = Vec::new();
    let mut one = |at: Duration, tenant, successor_too| {
        if at < calm {
            all.push(Revocation {
                at,
                tenant,
                successor_too,
            });
        }
    };
    let mut at = Duration::from_secs(1);
    while at < calm {
        at += ms(rng, 200..900);
        let tenant = rng.usize(..TENANTS);
        one(at, Some(tenant), false);
        // Again within the spacing of rejections.
        if chance(rng, 0.4) {
            one(at + ms(rng, 20..900), Some(tenant), false);
        }
    }
    // A wider spacing heals later: not twice for one tenant, and some time before the end.
    let mut tenants: Vec<usize> = (0..TENANTS).collect();
    rng.shuffle(&mut tenants);
    for tenant in tenants.into_iter().take(4) {
        one(between(rng, calm, 0.1..0.8), Some(tenant), true);
    }
    for _ in 0..2 {
        one(between(rng, calm, 0.1..1.0), None, false);
    }
    all.sort_by_key(|revocation| revocation.at);
    all
}

fn rotations(rng: &mut Rng, calm: Duration) -> Vec<Rotation> {
    [0.1..0.4, 0.5..0.8]
        .into_iter()
        .map(|part| {
            let enforced = between(rng, calm, part);
            let known = (enforced + ms(rng, 200..1_200)).min(calm);
            Rotation { enforced, known }
        })
        .collect()
}

fn between(rng: &mut Rng, calm: Duration, part: Range<f64>) -> Duration {
    calm.mul_f64(part.start + (part.end - part.start) * rng.f64())
}

pub(crate) fn ms(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

pub(crate) fn chance(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}
