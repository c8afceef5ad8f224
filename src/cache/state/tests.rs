//! The contract in literal times: the life of a token here, flights and pauses, rejections; then
//! sequences of anything against the invariants.

use std::time::SystemTime;

use super::*;
use crate::error::TokenErrorKind;

mod corners;
mod flights;
mod invariants;
mod rejections;
mod spacing;

const TEMPO: Tempo = Tempo {
    default_lifetime: Duration::from_secs(300),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
};
const BEGIN: Moment = Moment::new(Duration::from_secs(50), Duration::from_secs(1_700_000_000));

/// So many seconds after the test begins, by both clocks.
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

/// The machine, driven in seconds and answering in words.
#[derive(Default)]
struct Tested {
    state: State,
    permits: Vec<Permit>,
    /// How many tokens were fetched; the last one's generation.
    fetched: u64,
}

impl Tested {
    /// With a token that was fetched in no time at 0 s.
    fn holding(value: &str, life: f64) -> Self {
        let mut tested = Self::default();
        assert_eq!(tested.decide(0.0), "fetch");
        assert_eq!(tested.land(value, life, 0.0), value);
        tested
    }

    /// With a token that is due, and the flight that renews it under way.
    fn renewing(value: &str) -> Self {
        let mut tested = Self::holding(value, 900.0);
        assert_eq!(tested.decide(800.0), format!("serve {value}, fetch"));
        tested
    }

    fn decide(&mut self, secs: f64) -> String {
        self.decide_at(at(secs))
    }

    fn decide_at(&mut self, now: Moment) -> String {
        let mut granted = |permit: Permit| {
            self.permits.push(permit);
            match permit.delay.as_secs_f64() {
                0.0 => "fetch".to_owned(),
                delay => format!("fetch in {delay} s"),
            }
        };
        let current = self.state.current();
        let is_in_order = current.is_some_and(|it| it.is_in_order(now));
        let decision = self.state.decide(now);
        // Users of a token that is in order don't come here, all others do.
        assert_eq!(is_in_order, matches!(decision, Decision::Serve(_)));
        match decision {
            Decision::Serve(current) => format!("serve {}", current.token().expose_secret()),
            Decision::ServeAndFetch(current, permit) => {
                format!(
                    "serve {}, {}",
                    current.token().expose_secret(),
                    granted(permit)
                )
            }
            Decision::Fetch(permit) => granted(permit),
            Decision::Wait => "wait".to_owned(),
            Decision::Fail(error) => format!("fail, {} s", waits(&error)),
        }
    }

    /// The last permit's flight.
    fn flight(&self) -> FlightId {
        self.permits.last().unwrap().flight
    }

    /// Lands the last flight, which took no time.
    fn land(&mut self, value: &str, life: f64, secs: f64) -> String {
        self.land_from(self.flight(), token(value, life), (secs, secs))
    }

    /// Lands a flight that asked and was answered at these two times.
    fn land_from(
        &mut self,
        flight: FlightId,
        token: AccessToken,
        (asked, had): (f64, f64),
    ) -> String {
        self.complete(flight, token, at(asked), at(had), 0.0)
    }

    fn complete(
        &mut self,
        flight: FlightId,
        token: AccessToken,
        started: Moment,
        now: Moment,
        jitter: f64,
    ) -> String {
        self.fetched += 1;
        let request = TokenRequest::default();
        let fetched = Fetched {
            token,
            request,
            generation: self.fetched,
            started,
            jitter,
        };
        match self.state.complete(flight, fetched, now, TEMPO) {
            Landing::Current(current) => current.token().expose_secret().to_owned(),
            Landing::Rejected => "rejected".to_owned(),
        }
    }

    /// Fails the last flight; how long the pause is, in seconds.
    fn fail(&mut self, error: TokenError, secs: f64, jitter: f64) -> f64 {
        let error = self
            .state
            .fail(self.flight(), error, at(secs), TEMPO, jitter);
        waits(&error)
    }

    /// What is current: its generation.
    fn generation(&self) -> u64 {
        self.state.current().unwrap().generation
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.state.current().unwrap().token().expires_at()
    }
}

fn waits(error: &TokenError) -> f64 {
    error.retry_after().unwrap().as_secs_f64()
}

#[test]
fn a_token_is_fresh_then_due_then_expired() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(0.0), "serve a");
    assert_eq!(tested.decide(799.999), "serve a");
    assert_eq!(tested.decide(800.0), "serve a, fetch");
    assert_eq!(tested.decide(889.999), "serve a");
    assert_eq!(tested.decide(890.0), "wait");
}

#[test]
fn a_short_life_has_short_windows() {
    let mut tested = Tested::holding("a", 5.0);
    assert_eq!(tested.decide(3.499), "serve a");
    assert_eq!(tested.decide(3.5), "serve a, fetch");
    assert_eq!(tested.decide(3.999), "serve a");
    assert_eq!(tested.decide(4.0), "wait");
}

#[test]
fn jitter_moves_the_due_moment_and_not_the_end() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    tested.complete(tested.flight(), token("a", 900.0), at(0.0), at(0.0), 1.0);
    assert_eq!(tested.decide(844.999), "serve a");
    assert_eq!(tested.decide(845.0), "serve a, fetch");
    assert_eq!(tested.decide(890.0), "wait");
}

#[test]
fn an_expired_token_without_a_flight_is_fetched() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(890.0), "fetch");
    assert_eq!(tested.land("b", 900.0, 890.0), "b");
    assert_eq!(tested.decide(1_689.999), "serve b");
}

#[test]
fn a_life_counts_from_before_the_token_was_asked_for() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    tested.land_from(tested.flight(), token("a", 900.0), (0.0, 25.0));
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    assert_eq!(tested.decide(799.999), "serve a");
    assert_eq!(tested.decide(800.0), "serve a, fetch");
    assert_eq!(tested.decide(890.0), "wait");
}

#[test]
fn a_token_that_names_no_life_gets_the_default_one() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let nameless = AccessToken::new("a").unwrap();
    tested.land_from(tested.flight(), nameless, (0.0, 0.5));
    assert_eq!(tested.expires_at(), at(300.0).wall_time());
    assert_eq!(tested.decide(259.999), "serve a");
    assert_eq!(tested.decide(260.0), "serve a, fetch");
    assert_eq!(tested.decide(290.0), "wait");
}

#[test]
fn an_unlimited_token_is_never_due() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let unlimited = AccessToken::new("a").unwrap().without_expiry();
    tested.land_from(tested.flight(), unlimited, (0.0, 0.5));
    assert_eq!(tested.expires_at(), None);
    assert_eq!(tested.decide(1e10), "serve a");
}

#[test]
fn those_who_waited_get_the_token_even_if_it_is_dead_on_arrival() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    assert_eq!(
        tested.land_from(tested.flight(), token("a", 5.0), (0.0, 9.0)),
        "a"
    );
    assert_eq!(tested.decide(9.0), "fetch in 1 s");
}

#[test]
fn lives_of_a_second_cost_one_fetch_a_second() {
    let mut tested = Tested::holding("a", 1.0);
    assert_eq!(tested.decide(0.999), "serve a");
    assert_eq!(tested.decide(1.0), "fetch");
    assert_eq!(
        tested.land_from(tested.flight(), token("b", 1.0), (1.0, 1.25)),
        "b"
    );
    assert_eq!(tested.decide(1.999), "serve b");
    assert_eq!(tested.decide(2.0), "fetch in 0.25 s");
    assert_eq!(tested.decide(2.5), "wait");
}

#[test]
fn a_success_long_ago_delays_no_fetch() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(1e6), "fetch");
}

#[test]
fn the_token_knows_where_it_came_from() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let fetched = Fetched {
        token: token("a", 900.0),
        request: TokenRequest::scope("tenant"),
        generation: 7,
        started: at(0.0),
        jitter: 0.0,
    };
    tested
        .state
        .complete(tested.flight(), fetched, at(0.0), TEMPO);
    let token = tested.state.current().unwrap().token();
    let issued = token.issued().unwrap();
    assert_eq!(
        (issued.request.scopes(), issued.generation),
        (Some("tenant"), 7)
    );
}

#[test]
fn a_suspended_machine_wakes_up_to_an_expired_token() {
    let mut tested = Tested::holding("a", 900.0);
    let slept = |secs| at(10.0).with_wall(at(secs).wall());
    assert_eq!(tested.decide_at(slept(799.0)), "serve a");
    assert_eq!(tested.decide_at(slept(800.0)), "serve a, fetch");
    assert_eq!(tested.decide_at(slept(889.0)), "serve a");
    assert_eq!(tested.decide_at(slept(890.0)), "wait");
}

#[test]
fn a_wall_clock_set_back_prolongs_no_life() {
    let mut tested = Tested::holding("a", 900.0);
    let set_back = |secs| at(secs).with_wall(at(secs).wall() - span(3_600.0));
    assert_eq!(tested.decide_at(set_back(799.0)), "serve a");
    assert_eq!(tested.decide_at(set_back(800.0)), "serve a, fetch");
    assert_eq!(tested.decide_at(set_back(890.0)), "wait");
}

#[test]
fn a_wall_clock_set_forward_costs_one_fetch() {
    let mut tested = Tested::holding("a", 900.0);
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(3_600.0));
    assert_eq!(tested.decide_at(ahead(10.0)), "fetch");
    tested.complete(
        tested.flight(),
        token("b", 900.0),
        ahead(10.0),
        ahead(10.5),
        0.0,
    );
    assert_eq!(tested.decide_at(ahead(10.5)), "serve b");
    assert_eq!(tested.decide_at(ahead(809.999)), "serve b");
    // Set right again, it is no news.
    assert_eq!(tested.decide(810.0), "serve b, fetch");
    assert_eq!(tested.decide(900.0), "wait");
}

#[test]
fn a_wall_clock_set_forward_in_mid_flight_costs_one_more_fetch() {
    let mut tested = Tested::default();
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(3_600.0));
    assert_eq!(tested.decide(0.0), "fetch");
    let landed = tested.complete(tested.flight(), token("a", 900.0), at(0.0), ahead(0.5), 0.0);
    assert_eq!(landed, "a");
    assert_eq!(tested.decide_at(ahead(0.75)), "fetch in 0.75 s");
    tested.complete(
        tested.flight(),
        token("b", 900.0),
        ahead(1.5),
        ahead(2.0),
        0.0,
    );
    assert_eq!(tested.decide_at(ahead(2.0)), "serve b");
}

#[test]
fn a_new_token_that_is_due_at_once_is_not_renewed_within_the_second() {
    let mut tested = Tested::holding("a", 900.0);
    let ahead = |secs| at(secs).with_wall(at(secs).wall() + span(850.0));
    assert_eq!(tested.decide_at(ahead(0.25)), "serve a, fetch in 0.75 s");
}

#[test]
fn the_same_token_with_less_life_keeps_its_generation() {
    let mut tested = Tested::renewing("a");
    let generation = tested.generation();
    assert_eq!(tested.land("a", 100.0, 800.0), "a");
    assert_eq!(tested.generation(), generation);
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    // As long as enough life is left, the server is not asked again.
    assert_eq!(tested.decide(884.999), "serve a");
    assert_eq!(tested.decide(885.0), "serve a, fetch");
    // Expired or not, it stands for the same value.
    assert_eq!(tested.land("a", 900.0, 899.0), "a");
    assert_eq!(tested.generation(), generation);
}

#[test]
fn another_value_has_another_generation() {
    let mut tested = Tested::renewing("a");
    let generation = tested.generation();
    tested.land("b", 900.0, 800.0);
    assert_ne!(tested.generation(), generation);
}

/// The server reuses its token up to its end, and has a new one only then. A caller every 10 ms.
#[test]
fn a_server_that_reuses_its_token_is_asked_once_a_second_at_most() {
    let mut tested = Tested::holding("a", 900.0);
    let mut asked = vec![0.0];
    for step in 70_000..90_000_u32 {
        let now = f64::from(step) / 100.0;
        let decision = tested.decide(now);
        assert!(decision.starts_with("serve a"), "{decision} at {now} s");
        if decision.contains("fetch") {
            let start = now + tested.permits.last().unwrap().delay.as_secs_f64();
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
