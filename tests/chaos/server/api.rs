//! The API, and what its redirects lead to.

use std::io;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;

use crate::plan::{Action, Detour};
use crate::server::log::{ApiRecord, ApiResponse, Hop, Log};
use crate::server::{HttpResponse, Origin, Shared, response};
use crate::{CALL, SENT, now};

/// The challenges of 401s that do not say `invalid_token`.
const CHALLENGES: [&str; 5] = [
    "Bearer",
    "Bearer error=\"expired_token\"",
    "OAuth2 realm=\"x\", error=\"invalid token\"",
    "Basic realm=\"x\"",
    "",
];

/// The responses 200 to a token, at least, before the API rejects it for the fun of it: the first
/// responses to a token decide the spacing of rejections.
const ACCEPTED_BEFORE: usize = 3;

impl Shared {
    pub(super) async fn api(
        &self,
        tenant: usize,
        request: &Request<Incoming>,
    ) -> io::Result<HttpResponse> {
        let received = now();
        let headers = request.headers();
        let text = |name| headers[name].to_str().unwrap();
        let (behaviour, index) = {
            let mut log = self.log();
            let record = ApiRecord {
                call: text(CALL).parse().unwrap(),
                tenant,
                token: token_of(&log, headers),
                is_safe: request.method().is_safe(),
                sent: Duration::from_nanos(text(SENT).parse().unwrap()),
                received,
                is_redirected: false,
                response: None,
            };
            log.api_requests.push(record);
            let index = log.api_requests.len() - 1;
            (self.plan.api_request(index, received), index)
        };
        let is_good = self.is_good(index, received);
        tokio::time::sleep(behaviour.latency).await;

        match behaviour.action {
            Action::Close | Action::Garble(_) => Err(io::ErrorKind::ConnectionReset.into()),
            Action::Throttle(_) => Ok(self.answer(index, response(429, ""))),
            Action::Fail(status) => Ok(self.answer(index, response(status, ""))),
            Action::Redirect(status, detour) => {
                let detour = self.permitted(detour, index);
                self.log().api_requests[index].is_redirected = true;
                let location = match detour {
                    Detour::SameOrigin => format!("/judged/{index}"),
                    Detour::OtherScheme => format!("/other-scheme/{index}"),
                    Detour::OtherOrigin => {
                        format!("http://{}/rejects/{index}", self.addresses.other)
                    }
                    Detour::AndBack => {
                        format!("http://{}/back/{index}", self.addresses.other)
                    }
                };
                let mut response = response(status, "");
                response
                    .headers_mut()
                    .insert(LOCATION, location.parse().unwrap());
                Ok(self.answer(index, response))
            }
            Action::Serve => Ok(self.judge(index, is_good)),
        }
    }

    /// Returns the detour, or one that rejects no good token.
    ///
    /// A replay and the first requests with a token decide the spacing of rejections. If the API
    /// rejected good ones of them, the spacing would delay the recovery.
    fn permitted(&self, detour: Detour, index: usize) -> Detour {
        if !matches!(detour, Detour::OtherScheme | Detour::AndBack) {
            return detour;
        }
        let log = self.log();
        let request = &log.api_requests[index];
        let is_replay = log.api_requests[..index]
            .iter()
            .any(|it| it.call == request.call);
        let token = request.token.map(|it| &log.tokens[it]);
        if !is_replay && token.is_some_and(|it| it.accepted >= ACCEPTED_BEFORE) {
            detour
        } else {
            Detour::SameOrigin
        }
    }

    /// Answers a request that followed a redirect.
    pub(super) fn hop(&self, path: &str, origin: Origin, headers: &HeaderMap) -> HttpResponse {
        let received = now();
        let (route, index) = path.trim_start_matches('/').split_once('/').unwrap();
        let index: usize = index.parse().unwrap();
        self.log().hops.push(Hop {
            request: index,
            is_foreign: matches!(origin, Origin::Other) || route == "returned",
            has_authorization: headers.contains_key(AUTHORIZATION),
        });
        match route {
            "back" => {
                let mut response = response(302, "");
                let location = format!("http://{}/returned/{index}", self.addresses.api);
                response
                    .headers_mut()
                    .insert(LOCATION, location.parse().unwrap());
                self.answer(index, response)
            }
            "rejects" => {
                let response = self.answer(index, rejection("Bearer error=\"invalid_token\""));
                if let Some(response) = &mut self.log().api_requests[index].response {
                    response.is_foreign = true;
                }
                response
            }
            "returned" => self.answer(index, rejection("Bearer")),
            "other-scheme" => self.answer(index, rejection("Basic realm=\"x\"")),
            _ => self.judge(index, self.is_good(index, received)),
        }
    }

    fn is_good(&self, index: usize, received: Duration) -> bool {
        let log = self.log();
        let request = &log.api_requests[index];
        request
            .token
            .map(|it| &log.tokens[it])
            .is_some_and(|token| {
                token.tenant == request.tenant
                    && token.revoked.is_none()
                    && received < token.issued + token.lifetime
            })
    }

    /// Answers a request by its token.
    fn judge(&self, index: usize, is_good: bool) -> HttpResponse {
        let token = self.log().api_requests[index].token;
        if is_good {
            if let Some(token) = token {
                self.log().tokens[token].accepted += 1;
            }
            return self.answer(index, response(200, "fine"));
        }
        let token = token.unwrap_or(usize::MAX);
        let challenge = if self.plan.says_invalid_token(token, index) {
            "Bearer error=\"invalid_token\""
        } else {
            CHALLENGES[index % CHALLENGES.len()]
        };
        self.answer(index, rejection(challenge))
    }

    /// Records the last response to a request so far.
    fn answer(&self, index: usize, response: HttpResponse) -> HttpResponse {
        let challenge = response.headers().get(WWW_AUTHENTICATE);
        let is_invalid_token = challenge.is_some_and(|it| {
            it.to_str()
                .is_ok_and(|text| text.contains("\"invalid_token\""))
        });
        self.log().api_requests[index].response = Some(ApiResponse {
            at: now(),
            status: response.status().as_u16(),
            is_foreign: false,
            is_invalid_token,
        });
        response
    }
}

/// Returns the index of the token in the headers.
fn token_of(log: &Log, headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let value = value.strip_prefix("Bearer ")?;
    log.tokens.iter().rposition(|token| token.value == value)
}

fn rejection(challenge: &'static str) -> HttpResponse {
    let mut response = response(401, "");
    if !challenge.is_empty() {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
