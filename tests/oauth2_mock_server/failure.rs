//! An answer that is no token, from the first call to the recovery.

use std::time::Duration;

use bearer_auth::{TokenError, TokenErrorKind};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Case, Counters, FIRST_PAUSE, Server};
use crate::servers::stack::{Call, Kind, Stack, token_error};

/// Jitter lengthens a pause by this at most.
const JITTER: f64 = 1.25;
/// A try that failed later than this is the last of its flight.
const QUICK_FAILURE: Duration = Duration::from_secs(1);
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// A row: what is forced, and what becomes of it.
pub(crate) struct Failure {
    name: &'static str,
    answer: Value,
    kind: TokenErrorKind,
    transient: bool,
    code: Option<&'static str>,
}

/// One that may pass: tried three times.
pub(crate) fn transient(name: &'static str, answer: Value, kind: TokenErrorKind) -> Failure {
    Failure {
        name,
        answer,
        kind,
        transient: true,
        code: None,
    }
}

/// One that will not pass by itself: tried once.
pub(crate) fn permanent(name: &'static str, answer: Value, kind: TokenErrorKind) -> Failure {
    Failure {
        transient: false,
        ..transient(name, answer, kind)
    }
}

/// All rows at once, by one stack after the other. Not by the third: what a source says of a token
/// endpoint is known before the stacks differ, and each of them costs a pause.
pub(crate) async fn check_all(server: &Server, rows: &[Failure]) {
    for kind in [Kind::Middleware, Kind::TowerHttp] {
        join_all(rows.iter().map(|row| row.check(kind, server))).await;
    }
}

/// An OAuth error body with a description.
pub(crate) fn refusal(code: &str) -> Value {
    json!({ "error": code, "error_description": "told by the server" })
}

impl Failure {
    /// With this OAuth error code.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Goes through all of it by a fresh client and a stack of this kind.
    async fn check(&self, kind: Kind, server: &Server) {
        let (name, case) = (self.name, server.case());
        let stack = Stack::new(kind, case.layer());
        case.force(&self.answer).await;

        // A flight, with all its tries.
        let began = Instant::now();
        let error = self.error(kind, &case, &stack).await;
        let pause = error.retry_after().unwrap();
        let pauses = match self.retry_after() {
            Some(named) => named..=named,
            None => FIRST_PAUSE..=FIRST_PAUSE.mul_f64(JITTER),
        };
        assert!(pauses.contains(&pause), "{name}, {kind:?}: {pause:?}");
        let was_quick = began.elapsed() < QUICK_FAILURE;
        let flown = case.counters().await;
        let tries = flown.token_requests;
        // On a machine so busy that a try takes a second, that try is the last.
        let as_expected =
            tries == self.tries() || (!was_quick && (1..self.tries()).contains(&tries));
        assert!(as_expected, "{name}, {kind:?}: {tries} tries");
        let expected = Counters {
            token_requests: tries,
            ..Counters::default()
        };
        assert_eq!(flown, expected, "{name}, {kind:?}: nothing else");

        // The pause: the same error, the time that remains, and no request.
        let called = Instant::now();
        let remains = self.error(kind, &case, &stack).await.retry_after().unwrap();
        assert!(
            remains < pause,
            "{name}, {kind:?}: {remains:?} of {pause:?}"
        );
        assert_eq!(
            case.counters().await,
            flown,
            "{name}, {kind:?}: in the pause"
        );

        // The server is well again, which is noticed after the pause and with one request.
        case.release().await;
        let healed = timeout(RECOVERY_LIMIT, recovered(&case, &stack));
        let healed = healed
            .await
            .unwrap_or_else(|_| panic!("{name}, {kind:?}: does not recover"));
        assert!(
            healed.duration_since(called) >= remains,
            "{name}, {kind:?}: asked again before the pause of {pause:?} was over"
        );
        let expected = Counters {
            token_requests: tries + 1,
            api_requests: 1,
            ..Counters::default()
        };
        assert_eq!(case.counters().await, expected, "{name}, {kind:?}: healed");
    }

    /// The error of one call, which is as the row says.
    async fn error(&self, kind: Kind, case: &Case<'_>, stack: &Stack) -> TokenError {
        let Self { name, answer, .. } = self;
        let error = match stack.send(Call::get(case.url())).await {
            Ok(answer) => panic!("{name}, {kind:?}: {}", answer.status),
            Err(error) => token_error(kind, &error).unwrap().clone(),
        };
        let seen = (error.kind(), error.is_transient(), error.oauth_error());
        let expected = (self.kind, self.transient, self.code);
        assert_eq!(seen, expected, "{name}, {kind:?}: {error}");
        let status = answer["status"].as_u64().unwrap_or(200);
        let seen = error.status().map(|it| u64::from(it.as_u16()));
        assert_eq!(seen, Some(status), "{name}, {kind:?}");
        let described = answer["body"]["error_description"].as_str();
        assert_eq!(error.error_description(), described, "{name}, {kind:?}");
        error
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.answer["headers"]["retry-after"].as_str()?;
        Some(Duration::from_secs(seconds.parse().unwrap()))
    }

    fn tries(&self) -> usize {
        if self.transient && self.retry_after().is_none() {
            3
        } else {
            1
        }
    }
}

/// When a call was answered with 200 at last.
async fn recovered(case: &Case<'_>, stack: &Stack) -> Instant {
    loop {
        if let Ok(answer) = stack.send(Call::get(case.url())).await {
            assert_eq!(answer.status, StatusCode::OK);
            return Instant::now();
        }
        sleep(Duration::from_millis(100)).await;
    }
}
