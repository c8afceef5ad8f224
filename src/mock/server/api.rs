//! The protected API.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::message::{self, Body};
use super::record::ApiRecord;
use super::state::State;

/// The root of the protected paths.
const ROOT: &str = "/api";

/// The root of the paths that need no token.
const OPEN_ROOT: &str = "/upload";

/// The path that redirects, with any token or none.
const REDIRECT: &str = "/api/redirect";

/// The longest request body in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The longest body that a record keeps, in bytes.
const MAX_KEPT_BODY: usize = 1024 * 1024;

const BODY_LENGTH: HeaderName = HeaderName::from_static("x-mock-body-length");

/// Returns true if the API serves this path.
pub(super) fn serves(path: &str) -> bool {
    is_within(path, ROOT) || is_within(path, OPEN_ROOT)
}

/// Returns true if `path` is `root` or a path below it.
fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request to the API.
pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Response<Bytes> {
    let received = Instant::now();
    let latency = {
        let mut shared = state.lock();
        shared.api_requests += 1;
        shared.settings.api_latency
    };
    let (head, body) = request.into_parts();
    let Some(body) = Body::read(body, MAX_KEPT_BODY, MAX_BODY).await else {
        return message::empty(StatusCode::BAD_REQUEST);
    };
    let path = head.uri.path();
    let credentials = Credentials::of(&head.headers);

    let response = {
        let mut shared = state.lock();
        let known = match credentials {
            Credentials::Bearer(token) => shared.tokens.look_up(token, Instant::now()),
            Credentials::None | Credentials::Several => None,
        };
        let mut response = if body.len > MAX_BODY {
            message::empty(StatusCode::PAYLOAD_TOO_LARGE)
        } else if is_within(path, OPEN_ROOT) {
            ok(None)
        } else if path == REDIRECT {
            redirect(head.uri.query())
        } else if shared.settings.refuse_all {
            invalid_token()
        } else {
            match (credentials, &known) {
                (Credentials::Bearer(_), Some(token)) if token.valid => ok(token.scope.as_deref()),
                (Credentials::Bearer(_), _) => invalid_token(),
                (Credentials::None, _) => {
                    challenge(StatusCode::UNAUTHORIZED, "Bearer realm=\"mock\"")
                }
                (Credentials::Several, _) => challenge(
                    StatusCode::BAD_REQUEST,
                    "Bearer realm=\"mock\", error=\"invalid_request\"",
                ),
            }
        };
        response
            .headers_mut()
            .insert(BODY_LENGTH, HeaderValue::from(body.len));
        if response.status() == StatusCode::UNAUTHORIZED {
            shared.api_unauthorized += 1;
        }
        shared.api_log.push(ApiRecord {
            at: state.since_start(received),
            method: head.method.clone(),
            path: Arc::from(path),
            query: head.uri.query().map(Arc::from),
            status: response.status(),
            has_authorization: head.headers.contains_key(AUTHORIZATION),
            token_number: known.as_ref().map(|token| token.number),
            scope: known.and_then(|token| token.scope),
            body_len: body.len,
            body: body.bytes,
        });
        response
    };
    message::wait(latency).await;
    response
}

/// The content of the `Authorization` headers.
#[derive(Clone, Copy)]
enum Credentials<'a> {
    /// There is no header, or one of another scheme.
    None,
    Bearer(&'a str),
    /// There is more than one header.
    Several,
}

impl<'a> Credentials<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::None;
        };
        if values.next().is_some() {
            return Self::Several;
        }
        // A value that is not visible ASCII is treated as a token that was never issued.
        let value = value.to_str().unwrap_or("Bearer");
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            Self::Bearer(token.trim_start())
        } else {
            Self::None
        }
    }
}

fn ok(scope: Option<&str>) -> Response<Bytes> {
    message::json(StatusCode::OK, &json!({ "ok": true, "scope": scope }))
}

fn invalid_token() -> Response<Bytes> {
    challenge(
        StatusCode::UNAUTHORIZED,
        "Bearer realm=\"mock\", error=\"invalid_token\"",
    )
}

/// Creates a response with a challenge (RFC 6750 §3).
fn challenge(status: StatusCode, challenge: &'static str) -> Response<Bytes> {
    let mut response = message::json(status, &json!({ "ok": false }));
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// Creates a 307 to the URL in `to`, or a 400 if it is missing or not a valid header value.
fn redirect(query: Option<&str>) -> Response<Bytes> {
    let to = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "to")
        .and_then(|(_, url)| HeaderValue::from_str(&url).ok());
    let Some(to) = to else {
        return message::empty(StatusCode::BAD_REQUEST);
    };
    let mut response = message::empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, to);
    response
}
