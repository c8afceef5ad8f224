//! The refresh token grant with rotation: no token that was replaced is presented again, wherever
//! the process ends and whatever fails.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, ClientAuthentication, InMemoryRefreshTokenStore, RefreshToken, RefreshTokenGrant,
    RefreshTokenStore, TokenError, TokenErrorKind, TokenRequest, TokenSource,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tower::service_fn;

/// The parts that outlive a process: the store and the server.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    stored: Option<RefreshToken>,
    /// The number of the refresh token that is valid.
    current: usize,
    exchanges: usize,
    /// A refresh token was presented that had been replaced.
    reuse: bool,
    /// The next answers of the server.
    answers: Vec<Answer>,
    /// The next results of saving, `false` for an error.
    saves: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// The refresh token is replaced.
    Token,
    /// It is replaced, and the answer is lost.
    LostToken,
    /// The refresh token stays.
    SameToken,
    Status(u16),
    InvalidGrant,
    /// The connection broke before the request arrived, which the client cannot know.
    Broken,
}

/// One process, which may end after a number of steps.
#[derive(Clone)]
struct Process {
    world: World,
    steps: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

impl Process {
    fn new(world: &World, steps: usize) -> Self {
        Self {
            world: world.clone(),
            steps: Arc::new(AtomicUsize::new(steps)),
            ended: Arc::default(),
        }
    }

    /// Runs a fetch. `None` if the process ended first. Its runtime ends with it.
    fn fetch(&self, present_again: bool) -> Option<Result<AccessToken, TokenError>> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let source = self.source(present_again);
        let request = TokenRequest::default();
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.ended.notified() => None,
                result = source.fetch(&request) => Some(result),
            }
        })
    }

    fn source(&self, present_again: bool) -> RefreshTokenGrant {
        let process = self.clone();
        let builder = RefreshTokenGrant::builder("https://id.example.com/token")
            .client_id("app")
            .client_authentication(ClientAuthentication::None)
            .refresh_token(self.clone())
            .transport(service_fn(move |request| process.clone().serve(request)));
        match present_again {
            true => builder.present_again().build().unwrap(),
            false => builder.build().unwrap(),
        }
    }

    /// Ends the process here if its steps are used up.
    async fn step(&self) {
        let left = self
            .steps
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |steps| {
                steps.checked_sub(1)
            });
        if left.is_err() {
            self.ended.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn serve(self, request: Request<Full<Bytes>>) -> io::Result<Response<Full<Bytes>>> {
        self.step().await;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut fields = form_urlencoded::parse(&body);
        let (_, presented) = fields.find(|(name, _)| name == "refresh_token").unwrap();
        let answer = self.world.answer(&presented);
        // The server has done its part, and the answer is on its way.
        self.step().await;
        answer
    }
}

impl World {
    fn new() -> Self {
        let world = Self::default();
        world.state().stored = Some(RefreshToken::new("refresh-0"));
        world
    }

    fn with(answers: &[Answer], saves: &[bool]) -> Self {
        let world = Self::new();
        world.state().answers = answers.iter().rev().copied().collect();
        world.state().saves = saves.iter().rev().copied().collect();
        world
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer(&self, presented: &str) -> io::Result<Response<Full<Bytes>>> {
        let mut state = self.state();
        let answer = state.answers.pop().unwrap_or(Answer::Token);
        let respond = |status: u16, body: String| {
            let response = Response::builder().status(status);
            Ok(response.body(Full::new(Bytes::from(body))).unwrap())
        };
        let invalid_grant = || respond(400, r#"{"error":"invalid_grant"}"#.to_owned());
        match answer {
            Answer::Broken => return Err(io::ErrorKind::ConnectionReset.into()),
            Answer::Status(status) => return respond(status, String::new()),
            _ => {}
        }
        if presented != format!("refresh-{}", state.current) {
            state.reuse = true;
            return invalid_grant();
        }
        if answer == Answer::InvalidGrant {
            return invalid_grant();
        }
        state.exchanges += 1;
        let mut body = serde_json::json!({
            "access_token": format!("access-{}", state.exchanges),
            "token_type": "Bearer",
            "expires_in": 300,
        });
        if answer != Answer::SameToken {
            state.current += 1;
            body["refresh_token"] = format!("refresh-{}", state.current).into();
        }
        match answer {
            Answer::LostToken => Err(io::ErrorKind::ConnectionReset.into()),
            _ => respond(200, body.to_string()),
        }
    }
}

#[async_trait]
impl RefreshTokenStore for Process {
    async fn load(&self, _: &TokenRequest) -> Result<Option<RefreshToken>, TokenError> {
        self.step().await;
        Ok(self.world.state().stored.clone())
    }

    async fn save(&self, _: &TokenRequest, token: RefreshToken) -> Result<(), TokenError> {
        self.step().await;
        {
            let mut state = self.world.state();
            if !state.saves.pop().unwrap_or(true) {
                return Err(TokenError::transient("the store is down"));
            }
            state.stored = Some(token);
        }
        self.step().await;
        Ok(())
    }
}

/// More than a process has.
const ENDLESS: usize = 1_000;

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
    let world = World::with(&[], &[true, false, false]);
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
async fn a_new_login_is_not_overwritten_by_an_unsaved_successor() {
    let world = World::with(&[], &[true, false]);
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
