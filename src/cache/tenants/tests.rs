use std::time::Duration;

use super::*;
use crate::cache::entry::Boarding;
use crate::cache::state::{Fetched, FlightId, Tempo};
use crate::token::AccessToken;

/// So many seconds after any moment.
fn at(secs: u64) -> Moment {
    Moment::new(Duration::from_secs(secs), Duration::from_secs(secs))
}

fn tenants(max_entries: usize) -> Arc<Tenants> {
    Arc::new(Tenants::new(max_entries))
}

fn request(name: &str) -> TokenRequest {
    TokenRequest::scope(name)
}

fn holds(tenants: &Tenants, name: &str) -> bool {
    // Not by `get`, which counts as a use.
    tenants
        .shard(&request(name))
        .read()
        .unwrap()
        .contains_key(&request(name))
}

#[test]
fn the_least_recently_used_goes_first() {
    let tenants = tenants(3);
    for name in ["a", "b", "c", "b", "a"] {
        tenants.entry(&request(name), at(0));
    }
    tenants.entry(&request("d"), at(0));
    assert!(!holds(&tenants, "c"));
    tenants.entry(&request("a"), at(0));
    tenants.entry(&request("e"), at(0));
    assert!(!holds(&tenants, "b"));
    tenants.entry(&request("f"), at(0));
    assert!(!holds(&tenants, "d"), "not used since it came");
    assert!(["a", "e", "f"].iter().all(|name| holds(&tenants, name)));
    assert_eq!(tenants.len(), 3);
}

/// To the second, if there is no newcomer in between.
#[test]
fn the_least_recently_used_goes_first_without_newcomers_too() {
    let tenants = tenants(3);
    for name in ["a", "b", "c"] {
        tenants.entry(&request(name), at(0));
    }
    for (second, name) in [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (2, "a"), (3, "c")] {
        tenants.get(&request(name), at(second));
    }
    tenants.entry(&request("d"), at(3));
    assert!(!holds(&tenants, "b"));
    tenants.entry(&request("e"), at(3));
    assert!(!holds(&tenants, "a"));
    assert!(["c", "d", "e"].iter().all(|name| holds(&tenants, name)));
}

#[test]
fn a_sixteenth_makes_room_at_once() {
    let tenants = tenants(64);
    for number in 0..64 {
        tenants.entry(&request(&number.to_string()), at(0));
    }
    assert_eq!(tenants.len(), 64);
    tenants.entry(&request("one more"), at(0));
    assert_eq!(tenants.len(), 60);
    assert!(!holds(&tenants, "4") && holds(&tenants, "5"));
}

/// As a flight does that brings a token.
fn land(entry: &Entry) {
    let Boarding::Launch(launch, _) = entry.board(at(0)) else {
        panic!("a token or a flight is there");
    };
    let token = AccessToken::new("token").unwrap().without_expiry();
    land_with(entry, launch.flight(), token, at(0));
}

fn land_with(entry: &Entry, flight: FlightId, token: AccessToken, now: Moment) {
    let fetched = Fetched {
        token,
        request: entry.request.clone(),
        generation: now.monotonic().as_secs() + 1,
        started: now,
        jitter: 0.0,
    };
    let second = Duration::from_secs(1);
    let tempo = Tempo {
        default_lifetime: second,
        first_pause: second,
        longest_pause: second,
    };
    entry.land(flight, Ok(fetched), now, tempo);
}

/// They are kept with the token that was used, and another takes its place.
#[test]
fn uses_in_a_renewal_count_when_it_has_landed() {
    let tenants = tenants(2);
    let use_at = |name, second| tenants.if_in_order(&request(name), at(second), |_| {});
    let life = Duration::from_secs(900);
    let renewed = tenants.entry(&request("renewed"), at(0));
    let Boarding::Launch(first, _) = renewed.board(at(0)) else {
        panic!("there is a token or a flight already");
    };
    let token = AccessToken::new("first").unwrap().with_lifetime(life);
    land_with(&renewed, first.flight(), token, at(0));
    land(&tenants.entry(&request("other"), at(0)));

    tenants.get(&request("renewed"), at(850));
    let Boarding::ServeAndLaunch(_, renewal) = renewed.board(at(850)) else {
        panic!("the token is not due");
    };
    assert!(use_at("other", 860).is_some());
    assert!(use_at("renewed", 870).is_some(), "the last use of all");
    let token = AccessToken::new("second").unwrap().with_lifetime(life);
    land_with(&renewed, renewal.flight(), token, at(880));
    tenants.entry(&request("newcomer"), at(880));
    assert!(holds(&tenants, "renewed") && !holds(&tenants, "other"));
}

#[test]
fn an_entry_that_was_dropped_shows_nothing_at_its_successors() {
    let tenants = tenants(1);
    let is_fresh = |name| tenants.if_in_order(&request(name), at(0), |_| {}).is_some();
    let dropped = tenants.entry(&request("a"), at(0));
    land(&dropped);
    assert!(is_fresh("a"));
    tenants.entry(&request("b"), at(0));
    let successor = tenants.entry(&request("a"), at(0));
    dropped.report(|_| {});
    assert!(!is_fresh("a"));
    land(&successor);
    assert!(is_fresh("a"));
    assert!(!is_fresh("b"));
}

#[test]
fn one_entry_per_request() {
    let tenants = tenants(10);
    let first = tenants.entry(&request("b a"), at(0));
    assert!(Arc::ptr_eq(&first, &tenants.entry(&request("a  b"), at(0))));
    assert_eq!(tenants.len(), 1);
}

#[test]
fn a_bound_of_one_holds_the_newest() {
    let tenants = tenants(1);
    for name in ["a", "b", "c"] {
        tenants.entry(&request(name), at(0));
        assert!(holds(&tenants, name));
        assert_eq!(tenants.len(), 1);
    }
}
