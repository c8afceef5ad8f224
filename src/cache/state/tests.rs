//! The contract of the state machine in literal times: the life of a token here, then fetches and
//! pauses, rejections and their spacing, edge cases, and random sequences against the invariants.

use std::time::SystemTime;

use super::*;
use crate::error::TokenErrorKind;
use crate::token::AccessToken;

mod edge_cases;
mod fetches;
mod invariants;
mod late;
mod new_tokens;
mod reasons;
mod rejections;
mod spacing;

const TIMING: Timing = Timing {
    default_lifetime: Duration::from_secs(300),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
};
const BEGIN: Moment = Moment::new(Duration::from_secs(50), Duration::from_secs(1_700_000_000));

/// Returns the time `secs` seconds after the test begins, by both clocks.
fn at(secs: f64) -> Moment {
    BEGIN.plus(span(secs))
}

fn span(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn token(value: &str, life: f64) -> AccessToken {
    AccessToken::new(value).unwrap().with_lifetime(span(life))
}

fn outage() -> TokenError {
    TokenError::new(TokenErrorKind::Unavailable, true)
}

/// The state machine, driven in seconds, with results in words.
#[derive(Default)]
struct Tested {
    state: State,
    /// The fetches that were decided on, with their delays.
    started: Vec<(FetchId, Duration)>,
    /// The number of tokens fetched, which is also the last one's generation.
    fetched: u64,
}

impl Tested {
    /// Returns a state with a token that was fetched in no time at 0 s.
    fn holding(value: &str, life: f64) -> Self {
        let mut tested = Self::default();
        assert_eq!(tested.decide(0.0), "fetch");
        assert_eq!(tested.land(value, life, 0.0), value);
        tested
    }

    /// Returns a state with a token that is due, whose refresh is in progress.
    fn refreshing(value: &str) -> Self {
        let mut tested = Self::holding(value, 900.0);
        assert_eq!(tested.decide(800.0), format!("use {value}, fetch"));
        tested
    }

    fn decide(&mut self, secs: f64) -> String {
        self.decide_at(at(secs))
    }

    fn decide_at(&mut self, now: Moment) -> String {
        let is_usable = is_usable(&self.state, now);
        let decision = self.state.decide(now, None);
        // Readers of a usable token make no decision, all others do.
        assert_eq!(is_usable, matches!(decision, Decision::Use));
        match decision {
            Decision::Use => format!("use {}", self.value()),
            Decision::Refresh { fetch, delay } => {
                let started = self.start(fetch, delay);
                format!("use {}, {started}", self.value())
            }
            Decision::Fetch { fetch, delay } => self.start(fetch, delay),
            Decision::Wait => "wait".to_owned(),
            Decision::FetchLate { fetch } => {
                let started = self.start(fetch, Duration::ZERO);
                format!("{started}, else use {}", self.value())
            }
            Decision::WaitLate { limit } => {
                format!("wait {} s, else use {}", limit.as_secs_f64(), self.value())
            }
            Decision::Fail(error) => format!("fail, {} s", pause(&error)),
        }
    }

    fn start(&mut self, fetch: FetchId, delay: Duration) -> String {
        self.started.push((fetch, delay));
        match delay.as_secs_f64() {
            0.0 => "fetch".to_owned(),
            delay => format!("fetch in {delay} s"),
        }
    }

    /// Returns the last fetch.
    fn fetch(&self) -> FetchId {
        self.started.last().unwrap().0
    }

    /// Completes the last fetch, which took no time.
    fn land(&mut self, value: &str, life: f64, secs: f64) -> String {
        self.land_from(self.fetch(), token(value, life), (secs, secs))
    }

    /// Completes a fetch that was sent and answered at these two times.
    fn land_from(
        &mut self,
        fetch: FetchId,
        token: AccessToken,
        (sent, answered): (f64, f64),
    ) -> String {
        self.complete(fetch, token, at(sent), at(answered), 0.0)
    }

    fn complete(
        &mut self,
        fetch: FetchId,
        token: AccessToken,
        started: Moment,
        now: Moment,
        jitter: f64,
    ) -> String {
        self.fetched += 1;
        let fetched = Fetched {
            token,
            generation: self.fetched,
            started,
            jitter,
        };
        match self.state.complete(fetch, fetched, now, TIMING) {
            Completed::Stored => self.value(),
            Completed::Discarded => "discarded".to_owned(),
            Completed::Failed(error) => format!("failed, {} s", pause(&error)),
        }
    }

    /// Fails the last fetch. Returns the length of the pause in seconds.
    fn fail(&mut self, error: TokenError, secs: f64, jitter: f64) -> f64 {
        let error = self
            .state
            .fail(self.fetch(), error, at(secs), TIMING, jitter);
        pause(&error)
    }

    fn value(&self) -> String {
        let current = self.state.current().unwrap();
        current.token.expose_secret().to_owned()
    }

    fn generation(&self) -> u64 {
        self.state.current().unwrap().generation
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.state.current().unwrap().lifespan.end()
    }
}

/// Returns true if readers may use the token without a decision, as published by the entry.
fn is_usable(state: &State, now: Moment) -> bool {
    state
        .current()
        .is_some_and(|current| current.lifespan.is_usable(now, || state.refresh_times()))
}

fn pause(error: &TokenError) -> f64 {
    error.retry_after().unwrap().as_secs_f64()
}

#[test]
fn a_token_is_fresh_then_due_then_expired() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(0.0), "use a");
    assert_eq!(tested.decide(799.999), "use a");
    assert_eq!(tested.decide(800.0), "use a, fetch");
    assert_eq!(tested.decide(889.999), "use a");
    assert_eq!(tested.decide(890.0), "wait 1 s, else use a");
    assert_eq!(tested.decide(899.999), "wait 1 s, else use a");
    assert_eq!(tested.decide(900.0), "wait");
}

#[test]
fn a_short_life_has_short_windows() {
    let mut tested = Tested::holding("a", 5.0);
    assert_eq!(tested.decide(3.499), "use a");
    assert_eq!(tested.decide(3.5), "use a, fetch");
    assert_eq!(tested.decide(3.999), "use a");
    assert_eq!(tested.decide(4.0), "wait 1 s, else use a");
    assert_eq!(tested.decide(5.0), "wait");
}

#[test]
fn jitter_moves_the_due_time_but_not_the_expiry() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    tested.complete(tested.fetch(), token("a", 900.0), at(0.0), at(0.0), 1.0);
    assert_eq!(tested.decide(844.999), "use a");
    assert_eq!(tested.decide(845.0), "use a, fetch");
    assert_eq!(tested.decide(890.0), "wait 1 s, else use a");
}

#[test]
fn an_expired_token_is_fetched_again() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(900.0), "fetch");
    assert_eq!(tested.land("b", 900.0, 900.0), "b");
    assert_eq!(tested.decide(1_699.999), "use b");
}

#[test]
fn a_life_counts_from_before_the_request() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    tested.land_from(tested.fetch(), token("a", 900.0), (0.0, 25.0));
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    assert_eq!(tested.decide(799.999), "use a");
    assert_eq!(tested.decide(800.0), "use a, fetch");
    assert_eq!(tested.decide(900.0), "wait");
}

#[test]
fn a_token_without_a_life_gets_the_default_lifetime() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let nameless = AccessToken::new("a").unwrap();
    tested.land_from(tested.fetch(), nameless, (0.0, 0.5));
    assert_eq!(tested.expires_at(), at(300.0).wall_time());
    assert_eq!(tested.decide(259.999), "use a");
    assert_eq!(tested.decide(260.0), "use a, fetch");
    assert_eq!(tested.decide(300.0), "wait");
}

#[test]
fn an_unlimited_token_is_never_due() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let unlimited = AccessToken::new("a").unwrap().without_expiry();
    tested.land_from(tested.fetch(), unlimited, (0.0, 0.5));
    assert_eq!(tested.expires_at(), None);
    assert_eq!(tested.decide(1e10), "use a");
}

#[test]
fn waiting_callers_get_a_token_that_is_expired_on_arrival() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    assert_eq!(
        tested.land_from(tested.fetch(), token("a", 5.0), (0.0, 9.0)),
        "a"
    );
    assert_eq!(tested.decide(9.0), "fetch in 1 s");
}

#[test]
fn lives_of_a_second_cost_one_fetch_a_second() {
    let mut tested = Tested::holding("a", 1.0);
    assert_eq!(tested.decide(0.999), "use a");
    assert_eq!(tested.decide(1.0), "fetch");
    assert_eq!(
        tested.land_from(tested.fetch(), token("b", 1.0), (1.0, 1.25)),
        "b"
    );
    assert_eq!(tested.decide(1.999), "use b");
    assert_eq!(tested.decide(2.0), "fetch in 0.25 s");
    assert_eq!(tested.decide(2.5), "wait");
}

#[test]
fn a_success_long_ago_does_not_delay_a_fetch() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(1e6), "fetch");
}

#[test]
fn a_token_expires_while_the_machine_is_suspended() {
    let mut tested = Tested::holding("a", 900.0);
    let slept = |secs| at(10.0).with_wall(at(secs).wall());
    assert_eq!(tested.decide_at(slept(799.0)), "use a");
    assert_eq!(tested.decide_at(slept(800.0)), "use a, fetch");
    assert_eq!(tested.decide_at(slept(889.0)), "use a");
    assert_eq!(tested.decide_at(slept(900.0)), "wait");
}

#[test]
fn setting_the_wall_clock_back_does_not_extend_a_life() {
    let mut tested = Tested::holding("a", 900.0);
    let set_back = |secs| at(secs).with_wall(at(secs).wall() - span(3_600.0));
    assert_eq!(tested.decide_at(set_back(799.0)), "use a");
    assert_eq!(tested.decide_at(set_back(800.0)), "use a, fetch");
    assert_eq!(tested.decide_at(set_back(900.0)), "wait");
}

#[test]
fn setting_the_wall_clock_forward_costs_one_fetch() {
    let mut tested = Tested::holding("a", 900.0);
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(3_600.0));
    assert_eq!(tested.decide_at(ahead(10.0)), "fetch");
    tested.complete(
        tested.fetch(),
        token("b", 900.0),
        ahead(10.0),
        ahead(10.5),
        0.0,
    );
    assert_eq!(tested.decide_at(ahead(10.5)), "use b");
    assert_eq!(tested.decide_at(ahead(809.999)), "use b");
    // Setting it right again has no effect.
    assert_eq!(tested.decide(810.0), "use b, fetch");
    assert_eq!(tested.decide(910.0), "wait");
}

#[test]
fn setting_the_wall_clock_forward_during_a_fetch_costs_another_fetch() {
    let mut tested = Tested::default();
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(3_600.0));
    assert_eq!(tested.decide(0.0), "fetch");
    let landed = tested.complete(tested.fetch(), token("a", 900.0), at(0.0), ahead(0.5), 0.0);
    assert_eq!(landed, "a");
    assert_eq!(tested.decide_at(ahead(0.75)), "fetch in 0.75 s");
    tested.complete(
        tested.fetch(),
        token("b", 900.0),
        ahead(1.5),
        ahead(2.0),
        0.0,
    );
    assert_eq!(tested.decide_at(ahead(2.0)), "use b");
}

#[test]
fn a_new_token_that_is_due_at_once_is_refreshed_a_second_later() {
    let mut tested = Tested::holding("a", 900.0);
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(850.0));
    assert_eq!(tested.decide_at(ahead(0.25)), "use a, fetch in 0.75 s");
}

#[test]
fn the_same_token_with_less_life_keeps_its_generation() {
    let mut tested = Tested::refreshing("a");
    let generation = tested.generation();
    assert_eq!(tested.land("a", 100.0, 800.0), "a");
    assert_eq!(tested.generation(), generation);
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    // While enough life is left, the server is not asked again.
    assert_eq!(tested.decide(884.999), "use a");
    assert_eq!(tested.decide(885.0), "use a, fetch");
    // Expired or not, the value is the same.
    assert_eq!(tested.land("a", 900.0, 899.0), "a");
    assert_eq!(tested.generation(), generation);
}

#[test]
fn another_value_has_another_generation() {
    let mut tested = Tested::refreshing("a");
    let generation = tested.generation();
    tested.land("b", 900.0, 800.0);
    assert_ne!(tested.generation(), generation);
}

/// A caller every 10 ms, and a server that repeats its token until it expires.
#[test]
fn a_server_that_repeats_its_token_is_asked_at_most_once_a_second() {
    let mut tested = Tested::holding("a", 900.0);
    let mut asked = vec![0.0];
    for step in 70_000..90_000_u32 {
        let now = f64::from(step) / 100.0;
        let decision = tested.decide(now);
        assert!(decision.starts_with("use a"), "{decision} at {now} s");
        if decision.contains("fetch") {
            let start = now + tested.started.last().unwrap().1.as_secs_f64();
            assert!(
                start - asked.last().unwrap() >= 1.0,
                "again at {start} s after {asked:?}"
            );
            asked.push(start);
            assert_eq!(tested.land("a", 900.0 - start, start), "a");
        }
    }
    assert_eq!(tested.decide(900.0), "fetch in 0.75 s");
    assert!(asked.len() <= 7, "asked at {asked:?}");
}
