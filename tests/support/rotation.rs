//! 500 requests per second through the layer, while the credentials of its client are rotated.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, RequestAuth, TokenSource};
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::api::{Api, Scripted};
use super::stack::{Call, Kind, Stack};

/// The time between two requests.
const PERIOD: Duration = Duration::from_millis(2);
/// 5 s of them.
const REQUESTS: usize = 2500;
/// The requests are those of so many tenants, each with a token of its own. As a token lives for
/// 1 s, there are up to so many token requests per second.
pub(crate) const TENANTS: usize = 50;

/// Returns the response of a token endpoint with a token that lives for 1 s.
pub(crate) fn short_lived() -> Scripted {
    let body = r#"{"access_token":"t1","token_type":"Bearer","expires_in":1}"#;
    Response::new(Full::from(body))
}

/// Sends requests for 5 s and calls `rotate` with 1, 2 and so on, before each one of which the
/// number is a multiple of `per_rotation`. Checks that no request failed, and prints the figures.
///
/// No fetch lasts from before a rotation until after the next one, since it can present two
/// credentials at most.
pub(crate) async fn rotate_under_load(
    credential: &str,
    source: impl TokenSource,
    per_rotation: usize,
    mut rotate: impl FnMut(usize),
) {
    let api = Api::accepting(|token| token == "t1").await;
    let layer = BearerAuthLayer::new(source);
    let stack = Stack::new(
        Kind::WITH_EXTENSIONS[0],
        &layer.allow_origin(api.origin()).unwrap(),
    );
    let (mut requests, mut earlier) = (JoinSet::new(), JoinSet::new());
    let mut outcomes: Vec<Result<StatusCode, BoxError>> = Vec::new();
    let start = Instant::now();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1..=REQUESTS {
        tick.tick().await;
        if number % per_rotation == 0 {
            outcomes.extend(std::mem::take(&mut earlier).join_all().await);
            earlier = std::mem::take(&mut requests);
            rotate(number / per_rotation);
        }
        let tenant = RequestAuth::scope(format!("tenant/{}", number % TENANTS));
        let (stack, call) = (stack.clone(), Call::get(api.url("/")).auth(tenant));
        requests.spawn(async move { stack.send(call).await.map(|response| response.status) });
    }
    outcomes.extend(earlier.join_all().await);
    outcomes.extend(requests.join_all().await);
    let elapsed = start.elapsed();

    assert_eq!(outcomes.len(), REQUESTS);
    outcomes.retain(|outcome| !matches!(outcome, Ok(StatusCode::OK)));
    println!(
        "{credential}: {REQUESTS} requests in {elapsed:.1?}, {} rotations, {} failed",
        REQUESTS / per_rotation,
        outcomes.len()
    );
    assert!(
        outcomes.is_empty(),
        "{} of {REQUESTS} failed, such as {:?}",
        outcomes.len(),
        outcomes[0]
    );
}
