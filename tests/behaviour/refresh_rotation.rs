//! The refresh token grant with rotation: no token that was replaced is presented again, wherever
//! the process ends and whatever fails.

use bearer_auth::{
    ClientAuthentication, InMemoryRefreshTokenStore, RefreshToken, RefreshTokenGrant,
    TokenErrorKind, TokenRequest, TokenSource,
};

mod age;
mod world;

use world::{Answer, ENDLESS, Process, Save, World};

#[test]
fn no_replaced_token_is_presented_wherever_two_processes_end() {
    let mut ends = 0;
    for first in 0.. {
        let world = World::new();
        if Process::new(&world, first).fetch(false).is_some() {
            break;
        }
        for second in 0.. {
            let world = World::new();
            assert!(Process::new(&world, first).fetch(false).is_none());
            let has_ended = Process::new(&world, second).fetch(false).is_none();
            ends += 1;
            let last = Process::new(&world, ENDLESS);
            match last.fetch(false).unwrap() {
                Ok(_) => {}
                // Only a token whose fate is unknown ends the login.
                Err(error) => {
                    assert_eq!(error.kind(), TokenErrorKind::LoginRequired);
                    let state = world.state();
                    assert!(state.stored.as_ref().unwrap().is_presented());
                }
            }
            assert!(
                !world.state().reuse,
                "ended after {first} and {second} steps"
            );
            if !has_ended {
                break;
            }
        }
    }
    // Loading, two saves of two steps each, and the server's two, and as many in the second.
    assert!(ends >= 7 * 2, "{ends}");
}

/// Whatever saving reports, a process that knows that it never sent the token keeps the login.
#[test]
fn no_failure_of_saving_ends_the_login_or_presents_a_replaced_token() {
    let results = [Save::Done, Save::Failed, Save::FailedButStored];
    let mut ends = 0;
    for faults in 0..3_usize.pow(4) {
        let saves = [27, 9, 3, 1].map(|place| results[faults / place % 3]);
        for steps in 0.. {
            let world = World::with(&[], &saves);
            let errors = Process::new(&world, steps).fetch_until_token();
            let has_ended = errors.is_none();
            for error in errors.unwrap_or_default() {
                assert_eq!(error, TokenErrorKind::Source, "{saves:?}");
            }
            ends += usize::from(has_ended);
            world.state().saves.clear();
            if let Err(error) = Process::new(&world, ENDLESS).fetch(false).unwrap() {
                assert!(has_ended, "{saves:?}: {error}");
                assert_eq!(error.kind(), TokenErrorKind::LoginRequired);
                let state = world.state();
                assert!(state.stored.as_ref().unwrap().is_presented());
            }
            assert!(!world.state().reuse, "{saves:?}, ended after {steps} steps");
            if !has_ended {
                break;
            }
        }
    }
    assert!(ends > 81 * 7, "{ends}");
}

#[test]
fn a_process_that_ends_before_it_presents_the_token_costs_no_login() {
    let world = World::new();
    // Loads, and ends before it has saved the mark.
    for steps in 0..=1 {
        assert!(Process::new(&world, steps).fetch(false).is_none());
    }
    Process::new(&world, ENDLESS).fetch(false).unwrap().unwrap();
    assert!(!world.state().reuse);
}

/// The answer of the server, the kind of the error, and whether the next fetch gets a token.
#[test]
fn only_an_answer_that_may_hide_a_new_token_ends_the_login() {
    use Answer::*;
    use TokenErrorKind as Kind;

    for (answer, expected, recovers) in [
        (Token, None, true),
        (SameToken, None, true),
        (Status(400), Some(Kind::Refused), true),
        (Status(429), Some(Kind::Throttled), true),
        (Status(503), Some(Kind::Unavailable), true),
        (Status(302), Some(Kind::Redirected), true),
        (InvalidGrant, Some(Kind::LoginRequired), false),
        (LostToken, Some(Kind::LoginRequired), false),
        (Broken, Some(Kind::LoginRequired), false),
        (Status(200), Some(Kind::LoginRequired), false),
        (Status(500), Some(Kind::LoginRequired), false),
        (Status(504), Some(Kind::LoginRequired), false),
    ] {
        let world = World::with(&[answer], &[]);
        let process = Process::new(&world, ENDLESS);
        let result = process.fetch(false).unwrap();
        assert_eq!(result.err().map(|it| it.kind()), expected, "{answer:?}");
        let next = process.fetch(false).unwrap();
        match recovers {
            true => drop(next.unwrap()),
            false => assert_eq!(next.unwrap_err().kind(), Kind::LoginRequired, "{answer:?}"),
        }
        assert!(!world.state().reuse, "{answer:?}");
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_only_if_that_is_set() {
    let world = World::with(&[Answer::Broken], &[]);
    let process = Process::new(&world, ENDLESS);
    let error = process.fetch(true).unwrap().unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Connection);
    process.fetch(true).unwrap().unwrap();

    let world = World::with(&[Answer::LostToken], &[]);
    let process = Process::new(&world, ENDLESS);
    process.fetch(true).unwrap().unwrap_err();
    let error = process.fetch(true).unwrap().unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LoginRequired);
    assert!(world.state().reuse, "the setting allows it");
}

#[tokio::test]
async fn a_successor_that_could_not_be_saved_is_saved_by_the_next_fetch() {
    // The mark is saved, the successor is not, twice.
    let world = World::with(&[], &[Save::Done, Save::Failed, Save::Failed]);
    let source = Process::new(&world, ENDLESS).source(false);
    let request = TokenRequest::default();
    for _ in 0..2 {
        let error = source.fetch(&request).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Source);
    }
    let token = source.fetch(&request).await.unwrap();
    assert_eq!(
        token.expose_secret(),
        "access-1",
        "the one that came with it"
    );
    let stored = world.state().stored.clone().unwrap();
    assert_eq!(
        (stored.expose_secret(), stored.is_presented()),
        ("refresh-1", false)
    );
    assert_eq!(world.state().exchanges, 1);
}

#[tokio::test]
async fn a_mark_that_was_stored_although_saving_it_failed_ends_no_login() {
    let world = World::with(&[], &[Save::FailedButStored]);
    let source = Process::new(&world, ENDLESS).source(false);
    let request = TokenRequest::default();
    let error = source.fetch(&request).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(world.state().stored.as_ref().unwrap().is_presented());
    assert_eq!(world.state().exchanges, 0, "the token was not sent");
    let token = source.fetch(&request).await.unwrap();
    assert_eq!(token.expose_secret(), "access-1");
    assert!(!world.state().reuse);
}

#[tokio::test]
async fn a_new_login_is_not_overwritten_by_an_unsaved_successor() {
    let world = World::with(&[], &[Save::Done, Save::Failed]);
    let source = Process::new(&world, ENDLESS).source(false);
    let request = TokenRequest::default();
    source.fetch(&request).await.unwrap_err();
    {
        let mut state = world.state();
        state.current = 7;
        state.stored = Some(RefreshToken::new("refresh-7"));
    }
    source.fetch(&request).await.unwrap();
    assert!(!world.state().reuse);
    assert_eq!(
        world.state().stored.as_ref().unwrap().expose_secret(),
        "refresh-8"
    );
}

#[tokio::test]
async fn an_exchange_outlives_the_fetch_and_the_next_one_gets_its_token() {
    let world = World::new();
    // Pauses at the server until the steps are given back.
    let process = Process::new(&world, 4);
    let source = process.source(false);
    let request = TokenRequest::default();
    tokio::select! {
        biased;
        () = process.ended.notified() => {}
        result = source.fetch(&request) => panic!("ended early: {result:?}"),
    }
    assert_eq!(world.state().exchanges, 1, "the server has answered");
    // The first fetch is dropped here; its exchange hangs, and the second waits for it.
    let mut second = Box::pin(source.fetch(&request));
    let waker = std::task::Waker::noop();
    let poll = second
        .as_mut()
        .poll(&mut std::task::Context::from_waker(waker));
    assert!(poll.is_pending());
    assert_eq!(world.state().exchanges, 1, "no second exchange");
}

#[tokio::test]
async fn a_store_without_a_refresh_token_requires_a_login() {
    let store = InMemoryRefreshTokenStore::default();
    let source = RefreshTokenGrant::builder("https://id.example.com/token")
        .client_id("app")
        .client_authentication(ClientAuthentication::None)
        .refresh_token(store)
        .build()
        .unwrap();
    let error = source.fetch(&TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LoginRequired);
    assert!(!error.is_transient());
}
