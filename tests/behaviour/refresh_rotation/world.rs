//! The server, the store and the processes of the tests of refresh token rotation.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, ClientAuthentication, RefreshToken, RefreshTokenGrant, RefreshTokenStore,
    TokenError, TokenErrorKind, TokenRequest, TokenSource,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tower::service_fn;

/// The parts that outlive a process: the store and the server.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) stored: Option<RefreshToken>,
    /// The number of the refresh token that is valid.
    pub(super) current: usize,
    pub(super) exchanges: usize,
    /// A refresh token was presented that had been replaced.
    pub(super) reuse: bool,
    /// The next answers of the server.
    answers: Vec<Answer>,
    /// The lifetime that the server names is this one, in seconds, or none.
    pub(super) lifetime: Option<u64>,
    /// The next results of saving.
    pub(super) saves: Vec<Save>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Save {
    Done,
    Failed,
    /// The token was stored, which the store does not know.
    FailedButStored,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
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
pub(super) struct Process {
    world: World,
    steps: Arc<AtomicUsize>,
    pub(super) ended: Arc<Notify>,
    resumed: Arc<Notify>,
}

impl Process {
    pub(super) fn new(world: &World, steps: usize) -> Self {
        Self {
            world: world.clone(),
            steps: Arc::new(AtomicUsize::new(steps)),
            ended: Arc::default(),
            resumed: Arc::default(),
        }
    }

    /// Runs a fetch. `None` if the process ended first. Its runtime ends with it.
    pub(super) fn fetch(&self, present_again: bool) -> Option<Result<AccessToken, TokenError>> {
        let source = self.source(present_again);
        self.run(async { source.fetch(&TokenRequest::default()).await })
    }

    /// Fetches from one source until it returns a token. Returns the errors before it.
    pub(super) fn fetch_until_token(&self) -> Option<Vec<TokenErrorKind>> {
        let source = self.source(false);
        self.run(async {
            let mut errors = Vec::new();
            while let Err(error) = source.fetch(&TokenRequest::default()).await {
                errors.push(error.kind());
                assert!(errors.len() < 10, "no token: {errors:?}");
            }
            errors
        })
    }

    fn run<T>(&self, fetches: impl Future<Output = T>) -> Option<T> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.ended.notified() => None,
                result = fetches => Some(result),
            }
        })
    }

    pub(super) fn source(&self, present_again: bool) -> RefreshTokenGrant {
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
            self.resumed.notified().await;
        }
    }

    /// Lets a process that has only paused go on.
    pub(super) fn resume(&self) {
        self.steps.store(ENDLESS, Ordering::Relaxed);
        self.resumed.notify_one();
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
    pub(super) fn new() -> Self {
        let world = Self::default();
        world.state().stored = Some(RefreshToken::new("refresh-0"));
        world.state().lifetime = Some(300);
        world
    }

    pub(super) fn with(answers: &[Answer], saves: &[Save]) -> Self {
        let world = Self::new();
        world.state().answers = answers.iter().rev().copied().collect();
        world.state().saves = saves.iter().rev().copied().collect();
        world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn save(&self, token: RefreshToken) -> Save {
        let mut state = self.state();
        let result = state.saves.pop().unwrap_or(Save::Done);
        if result != Save::Failed {
            state.stored = Some(token);
        }
        result
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
            "expires_in": state.lifetime,
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
        let result = self.world.save(token);
        self.step().await;
        match result {
            Save::Done => Ok(()),
            Save::Failed | Save::FailedButStored => Err(TokenError::transient("the store is down")),
        }
    }
}

/// More than a process has.
pub(super) const ENDLESS: usize = 1_000;
