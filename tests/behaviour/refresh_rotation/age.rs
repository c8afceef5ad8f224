//! The age of a token that a later fetch returns than the one that requested it.

use std::time::{Duration, SystemTime};

use bearer_auth::{AccessToken, RefreshTokenGrant, TokenCache, TokenRequest, TokenSource};
use tokio::time::advance;

use super::world::{ENDLESS, Process, Save, World};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns a source that could not save the successor of its refresh token.
async fn unsaved(world: &World) -> RefreshTokenGrant {
    let source = Process::new(world, ENDLESS).source(false);
    source.fetch(&TokenRequest::default()).await.unwrap_err();
    assert_eq!(world.state().exchanges, 1, "the server has answered");
    source
}

fn with_unsaved_successor() -> World {
    World::with(&[], &[Save::Done, Save::Failed])
}

/// Steps of an exchange: the token is loaded, the mark saved in two steps, and the server has
/// received the request.
const UNTIL_ANSWER: usize = 4;
/// The answer has arrived, too, and the successor is about to be saved.
const UNTIL_SAVED: usize = 5;

/// Returns a source whose exchange pauses after this number of steps, until it is resumed.
async fn paused(world: &World, steps: usize) -> (Process, RefreshTokenGrant) {
    let process = Process::new(world, steps);
    let (source, request) = (process.source(false), TokenRequest::default());
    tokio::select! {
        biased;
        () = process.ended.notified() => {}
        result = source.fetch(&request) => panic!("ended early: {result:?}"),
    }
    assert_eq!(world.state().exchanges, 1, "the server has answered");
    (process, source)
}

/// Returns the seconds until the token expires.
fn left(token: &AccessToken) -> u64 {
    let left = token
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    left.unwrap().as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_successor_was_saved_later_gets_no_new_life() {
    let world = with_unsaved_successor();
    let cache = TokenCache::new(unsaved(&world).await);
    advance(secs(200)).await;
    let token = cache.token().await.unwrap();
    assert_eq!((token.expose_secret(), left(&token)), ("access-1", 100));
    // It is due before 285 s of its 300 s, and late at 290 s.
    advance(secs(92)).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "access-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_successor_was_saved_too_late_is_replaced() {
    for age in [295, 3_600] {
        let world = with_unsaved_successor();
        let source = unsaved(&world).await;
        advance(secs(age)).await;
        let token = source.fetch(&TokenRequest::default()).await.unwrap();
        assert_eq!((token.expose_secret(), left(&token)), ("access-2", 300));
        let state = world.state();
        let stored = state.stored.as_ref().unwrap();
        assert_eq!(stored.expose_secret(), "refresh-2");
        assert!(!stored.is_presented() && !state.reuse);
    }
}

/// A cache counts its default lifetime from the later fetch.
#[tokio::test(start_paused = true)]
async fn a_token_of_unknown_lifetime_is_returned_within_a_minute_only() {
    // A lifetime of 0 says that none is left.
    for lifetime in [None, Some(0)] {
        for (age, expected) in [(59, "access-1"), (60, "access-2")] {
            let world = with_unsaved_successor();
            world.state().lifetime = lifetime;
            let source = unsaved(&world).await;
            advance(secs(age)).await;
            let token = source.fetch(&TokenRequest::default()).await.unwrap();
            assert_eq!(token.expose_secret(), expected, "{lifetime:?}, {age} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_joins_an_exchange_gets_the_token_with_its_age() {
    for (steps, age, expected) in [
        // The age counts from before the token request was sent.
        (UNTIL_ANSWER, 5, ("access-1", 295)),
        (UNTIL_SAVED, 100, ("access-1", 200)),
        (UNTIL_SAVED, 295, ("access-2", 300)),
    ] {
        let world = World::new();
        let (process, source) = paused(&world, steps).await;
        advance(secs(age)).await;
        process.resume();
        let token = source.fetch(&TokenRequest::default()).await.unwrap();
        assert_eq!((token.expose_secret(), left(&token)), expected);
        assert!(!world.state().reuse);
    }
}
