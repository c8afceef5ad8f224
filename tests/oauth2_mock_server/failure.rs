//! Checks a response without a token: its error, its tries, its pause and the recovery.

use std::time::Duration;

use bearer_auth::{TokenError, TokenErrorKind};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Case, Counters, FIRST_PAUSE, Server};
use crate::support::stack::{Kind, Stack, token_error};

/// The largest factor by which jitter lengthens a pause.
const JITTER: f64 = 1.25;
/// A try that takes longer than this to fail is the last of its fetch.
const QUICK_FAILURE: Duration = Duration::from_secs(1);
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// A forced response and the expected error.
pub(crate) struct Failure {
    name: &'static str,
    response: Value,
    kind: TokenErrorKind,
    transient: bool,
    is_tried_once: bool,
    code: Option<&'static str>,
}

/// Returns a failure that is tried three times.
pub(crate) fn transient(name: &'static str, response: Value, kind: TokenErrorKind) -> Failure {
    Failure {
        name,
        response,
        kind,
        transient: true,
        is_tried_once: false,
        code: None,
    }
}

/// Returns a failure that is tried once.
pub(crate) fn permanent(name: &'static str, response: Value, kind: TokenErrorKind) -> Failure {
    Failure {
        transient: false,
        ..transient(name, response, kind)
    }
}

/// Checks all failures concurrently, through one stack after the other.
///
/// Two of the stacks are enough: the source's errors do not depend on the stack, and each
/// stack takes as long as a pause.
pub(crate) async fn check_all(server: &Server, failures: &[Failure]) {
    for kind in [Kind::Middleware, Kind::TowerHttp] {
        join_all(failures.iter().map(|failure| failure.check(kind, server))).await;
    }
}

/// Returns an OAuth error body with a description.
pub(crate) fn error_body(code: &str) -> Value {
    json!({ "error": code, "error_description": "the server's description" })
}

impl Failure {
    /// Expects a single try, although the error is transient.
    pub(crate) fn tried_once(mut self) -> Self {
        self.is_tried_once = true;
        self
    }

    /// Sets the expected OAuth error code.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Checks this failure with a client of its own and a stack of this kind.
    async fn check(&self, kind: Kind, server: &Server) {
        let (name, case) = (self.name, server.case());
        let stack = Stack::new(kind, &case.layer());
        case.force(&self.response).await;

        // A fetch with all its tries.
        let start = Instant::now();
        let error = self.error(kind, &case, &stack).await;
        let pause = error.retry_after().unwrap();
        let pauses = match self.retry_after() {
            Some(named) => named..=named,
            None => FIRST_PAUSE..=FIRST_PAUSE.mul_f64(JITTER),
        };
        assert!(pauses.contains(&pause), "{name}, {kind:?}: {pause:?}");
        let was_quick = start.elapsed() < QUICK_FAILURE;
        let counters = case.counters().await;
        let tries = counters.token_requests;
        // On a busy machine a try may take a second, which makes it the last one.
        let as_expected =
            tries == self.tries() || (!was_quick && (1..self.tries()).contains(&tries));
        assert!(as_expected, "{name}, {kind:?}: {tries} tries");
        let expected = Counters {
            token_requests: tries,
            ..Counters::default()
        };
        assert_eq!(counters, expected, "{name}, {kind:?}");

        // During the pause: the same error with the remaining time, and no request.
        let called = Instant::now();
        let remains = self.error(kind, &case, &stack).await.retry_after().unwrap();
        assert!(
            remains < pause,
            "{name}, {kind:?}: {remains:?} of {pause:?}"
        );
        assert_eq!(
            case.counters().await,
            counters,
            "{name}, {kind:?}: during the pause"
        );

        // The server recovers, which takes one request after the pause.
        case.release().await;
        let recovery = timeout(RECOVERY_LIMIT, recovery(&case, &stack));
        let recovered = recovery
            .await
            .unwrap_or_else(|_| panic!("{name}, {kind:?}: does not recover"));
        assert!(
            recovered.duration_since(called) >= remains,
            "{name}, {kind:?}: requested before the pause of {pause:?} was over"
        );
        let expected = Counters {
            token_requests: tries + 1,
            api_requests: 1,
            ..Counters::default()
        };
        assert_eq!(
            case.counters().await,
            expected,
            "{name}, {kind:?}: after the recovery"
        );
    }

    /// Makes a call, and returns its error after checking it.
    async fn error(&self, kind: Kind, case: &Case<'_>, stack: &Stack) -> TokenError {
        let Self { name, response, .. } = self;
        let error = match stack.get(case.url()).await {
            Ok(response) => panic!("{name}, {kind:?}: {}", response.status),
            Err(error) => token_error(&error).unwrap().clone(),
        };
        let actual = (error.kind(), error.is_transient(), error.oauth_error());
        let expected = (self.kind, self.transient, self.code);
        assert_eq!(actual, expected, "{name}, {kind:?}: {error}");
        let expected = response["status"].as_u64().unwrap_or(200);
        let status = error.status().map(|it| u64::from(it.as_u16()));
        assert_eq!(status, Some(expected), "{name}, {kind:?}");
        let description = response["body"]["error_description"].as_str();
        assert_eq!(error.error_description(), description, "{name}, {kind:?}");
        error
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.response["headers"]["retry-after"].as_str()?;
        Some(Duration::from_secs(seconds.parse().unwrap()))
    }

    fn tries(&self) -> usize {
        if self.transient && !self.is_tried_once && self.retry_after().is_none() {
            3
        } else {
            1
        }
    }
}

/// Calls until there is a response, and returns the time of the first one.
async fn recovery(case: &Case<'_>, stack: &Stack) -> Instant {
    loop {
        if let Ok(response) = stack.get(case.url()).await {
            assert_eq!(response.status, StatusCode::OK);
            return Instant::now();
        }
        sleep(Duration::from_millis(100)).await;
    }
}
