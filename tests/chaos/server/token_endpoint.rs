//! The token endpoint.

use std::io;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use crate::now;
use crate::plan::{Action, RetryAfter, Stream};
use crate::server::log::{Outcome, Token, TokenRecord};
use crate::server::{HttpResponse, Shared, number, response};

/// The bodies of 200 responses without a token.
const GARBAGE: [&str; 6] = [
    "",
    "<html><body>Sign in</body></html>",
    "{\"access_token\":",
    "{\"token_type\":\"Bearer\",\"expires_in\":5}",
    "{\"access_token\":\"two words\",\"token_type\":\"Bearer\"}",
    "{\"access_token\":\"mac\",\"token_type\":\"mac\"}",
];

impl Shared {
    pub(super) async fn token(
        &self,
        request: Request<Incoming>,
        is_dead: bool,
    ) -> io::Result<HttpResponse> {
        let received = now();
        let body = request.collect().await.map_err(io::Error::other)?;
        let body = body.to_bytes();
        let field = |name: &str| {
            let found = form_urlencoded::parse(&body).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap()
        };
        let tenant: usize = number(&field("scope"), "tenant/").unwrap();
        let secret: usize = number(&field("client_secret"), "s3cret-").unwrap();
        let (behaviour, index, nth) = {
            let mut log = self.log();
            let nth = log.requests_of[tenant];
            log.requests_of[tenant] += 1;
            log.token_requests.push(TokenRecord {
                tenant,
                number: field("number").parse().unwrap(),
                outcome: if is_dead {
                    Outcome::Dead
                } else {
                    Outcome::Unanswered
                },
            });
            let behaviour = self.plan.token_request(tenant, nth, received);
            (behaviour, log.token_requests.len() - 1, nth)
        };
        if is_dead {
            self.hang().await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        tokio::time::sleep(behaviour.latency).await;

        let clock_error = self.plan.clock_error(now());
        let clock = wrong(SystemTime::now(), clock_error);
        let outcome = |outcome| self.log().token_requests[index].outcome = outcome;
        let mut response = match behaviour.action {
            action if action != Action::Close && secret != self.plan.secret_enforced(now()) => {
                outcome(Outcome::InvalidClient);
                response(401, json!({ "error": "invalid_client" }).to_string())
            }
            Action::Serve | Action::Redirect(..) => {
                outcome(Outcome::Issued);
                self.issue(tenant, nth, received, index)
            }
            Action::Close => {
                outcome(Outcome::Transient);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Action::Fail(status) => {
                outcome(Outcome::Transient);
                response(status, "")
            }
            Action::Garble(nth) => {
                outcome(Outcome::Transient);
                response(200, GARBAGE[nth % GARBAGE.len()])
            }
            Action::Throttle(None) => {
                outcome(Outcome::Transient);
                response(429, "")
            }
            Action::Throttle(Some(wait)) => {
                outcome(Outcome::RetryAfter(wait.seconds()));
                let mut response = response(429, "");
                let value = match wait {
                    RetryAfter::Seconds(seconds) => seconds.into(),
                    RetryAfter::Date(seconds) => {
                        self.log().wrong_dates += usize::from(clock_error != 0);
                        date(clock + Duration::from_secs(seconds))
                    }
                };
                response.headers_mut().insert(RETRY_AFTER, value);
                response
            }
        };
        response.headers_mut().insert(DATE, date(clock));
        Ok(response)
    }

    /// Waits until the faults end.
    async fn hang(&self) {
        tokio::time::sleep(self.plan.faults_end.saturating_sub(now())).await;
    }

    fn issue(&self, tenant: usize, nth: usize, issued: Duration, request: usize) -> HttpResponse {
        let nth = (tenant << 32 | nth) as u64;
        let rng = &mut self.plan.rng(Stream::Lifetime, nth);
        let lifetime = rng.u64(4..9);
        let mut log = self.log();
        let value = format!("{}.{:016x}", log.tokens.len(), rng.u64(..));
        let is_revoked = log.revoked_in_advance[tenant] > 0;
        log.revoked_in_advance[tenant] -= usize::from(is_revoked);
        let number = log.token_requests[request].number;
        log.tokens.push(Token {
            value: value.clone(),
            tenant,
            number,
            issued,
            lifetime: Duration::from_secs(lifetime),
            latency: now() - issued,
            revoked: is_revoked.then_some(issued),
            accepted: 0,
        });
        let body = json!({ "access_token": value, "token_type": "Bearer", "expires_in": lifetime });
        response(200, body.to_string())
    }
}

/// Returns the time by a clock with this error in seconds.
fn wrong(time: SystemTime, error: i64) -> SystemTime {
    let size = Duration::from_secs(error.unsigned_abs());
    if error < 0 { time - size } else { time + size }
}

fn date(time: SystemTime) -> HeaderValue {
    httpdate::fmt_http_date(time).parse().unwrap()
}
