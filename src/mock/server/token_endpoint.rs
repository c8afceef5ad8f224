//! The token endpoint (RFC 6749 §4.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::message::{self, Body};
use super::record::{ClientAuthenticationSeen, TokenRecord};
use super::state::{Client, State};

/// The longest form in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The fields that must not be repeated (RFC 6749 §3.2). Others, such as `resource`, may be.
const SINGLE_FIELDS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

/// Answers a request to the token endpoint.
pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Response<Bytes> {
    let received = Instant::now();
    let (latency, planned) = {
        let mut shared = state.lock();
        shared.token_requests += 1;
        let planned = if shared.settings.outage {
            Some(failure(StatusCode::SERVICE_UNAVAILABLE))
        } else {
            shared.next_planned()
        };
        (shared.settings.token_latency, planned)
    };
    let (head, body) = request.into_parts();
    let Some(body) = Body::read(body, MAX_BODY, MAX_BODY).await else {
        return message::empty(StatusCode::BAD_REQUEST);
    };
    let form = Form::read(&head.headers, &body);
    let seen = client_authentication(&head.headers, &form);
    message::wait(latency).await;

    let error = planned.or_else(|| request_error(state.client(), &head, &body, &form, seen));
    let scope: Option<Arc<str>> = form.field("scope").map(Arc::from);
    let accept = head
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .map(Arc::from);
    let mut shared = state.lock();
    let (response, token_number) = match error {
        Some(response) => (response, None),
        None => {
            let lifetime = shared.settings.lifetime;
            let (number, token) = shared.tokens.issue(received, lifetime, scope.clone());
            (success(token, lifetime, scope.as_deref()), Some(number))
        }
    };
    shared.token_log.push(TokenRecord {
        at: state.since_start(received),
        status: response.status(),
        client_authentication: seen,
        scope,
        params: form.into_record(),
        accept,
        token_number,
    });
    response
}

/// Creates the response of a failing token endpoint with this status.
pub(super) fn failure(status: StatusCode) -> Response<Bytes> {
    let code = match status {
        StatusCode::BAD_REQUEST => "invalid_request",
        StatusCode::UNAUTHORIZED => "invalid_client",
        StatusCode::FORBIDDEN => "unauthorized_client",
        StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
        status if status.is_server_error() => "server_error",
        _ => {
            return no_store(message::json(
                status,
                &json!({ "message": "failure requested by the test" }),
            ));
        }
    };
    oauth_error(status, code, "failure requested by the test")
}

/// Creates the response of a failing token endpoint with `Retry-After`, rounded up to seconds.
pub(super) fn failure_with_retry_after(
    status: StatusCode,
    retry_after: Duration,
) -> Response<Bytes> {
    let whole = retry_after.as_secs();
    let seconds = whole.saturating_add(u64::from(retry_after.subsec_nanos() > 0));
    let mut response = failure(status);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Creates a successful response (RFC 6749 §5.1).
fn success(token: String, lifetime: Duration, scope: Option<&str>) -> Response<Bytes> {
    let expires_in = match lifetime.subsec_nanos() {
        0 => Value::from(lifetime.as_secs()),
        _ => Value::from(lifetime.as_secs_f64()),
    };
    let mut body =
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in });
    if let Some(scope) = scope {
        body["scope"] = Value::from(scope);
    }
    no_store(message::json(StatusCode::OK, &body))
}

/// Creates an error response (RFC 6749 §5.2).
fn oauth_error(status: StatusCode, code: &str, description: &str) -> Response<Bytes> {
    let body = json!({ "error": code, "error_description": description });
    let mut response = no_store(message::json(status, &body));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"token\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

fn no_store(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Checks a request. Returns the error response, or `None` if the client gets a token.
fn request_error(
    client: &Client,
    head: &Parts,
    body: &Body,
    form: &Form,
    seen: ClientAuthenticationSeen,
) -> Option<Response<Bytes>> {
    let bad_request = |code, description| oauth_error(StatusCode::BAD_REQUEST, code, description);
    if head.method != Method::POST {
        let mut response = message::empty(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    if body.len > MAX_BODY {
        return Some(oauth_error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request",
            "the request body is longer than 64 KiB",
        ));
    }
    if !is_form(&head.headers) {
        return Some(bad_request(
            "invalid_request",
            "the Content-Type must be application/x-www-form-urlencoded",
        ));
    }
    if SINGLE_FIELDS.iter().any(|name| form.count(name) > 1) {
        return Some(bad_request("invalid_request", "a parameter is repeated"));
    }
    match form.field("grant_type") {
        Some("client_credentials") => {}
        Some(_) => {
            return Some(bad_request(
                "unsupported_grant_type",
                "grant_type must be client_credentials",
            ));
        }
        None => return Some(bad_request("invalid_request", "grant_type is missing")),
    }
    if head.headers.get_all(AUTHORIZATION).iter().count() > 1 {
        return Some(bad_request(
            "invalid_request",
            "the Authorization header is repeated",
        ));
    }
    let form_id = form.field("client_id");
    let known = match seen {
        ClientAuthenticationSeen::Both => {
            return Some(bad_request(
                "invalid_request",
                "the client uses more than one authentication method",
            ));
        }
        ClientAuthenticationSeen::Basic => {
            // The form may repeat the client id (RFC 6749 §3.2.1), but must not name another one.
            form_id.is_none_or(|id| id == client.id)
                && basic_credentials(&head.headers, client.raw_basic)
                    .is_some_and(|(id, secret)| id == client.id && secret == client.secret)
        }
        // An empty secret may be omitted (RFC 6749 §2.3.1).
        ClientAuthenticationSeen::Post => {
            form_id.unwrap_or_default() == client.id
                && form.field("client_secret").unwrap_or_default() == client.secret
        }
        ClientAuthenticationSeen::None | ClientAuthenticationSeen::Other => false,
    };
    if known {
        return None;
    }
    Some(oauth_error(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "unknown client or secret",
    ))
}

/// Returns the method by which the client authenticated or tried to.
fn client_authentication(headers: &HeaderMap, form: &Form) -> ClientAuthenticationSeen {
    let in_form = form.field("client_id").is_some();
    let secret_in_form = form.field("client_secret").is_some();
    if !headers.contains_key(AUTHORIZATION) {
        if in_form || secret_in_form {
            ClientAuthenticationSeen::Post
        } else {
            ClientAuthenticationSeen::None
        }
    } else if secret_in_form {
        ClientAuthenticationSeen::Both
    } else if basic(headers).is_some() {
        ClientAuthenticationSeen::Basic
    } else {
        ClientAuthenticationSeen::Other
    }
}

/// Returns the encoded credentials of HTTP Basic.
fn basic(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("basic").then(|| rest.trim())
}

/// Returns the client id and secret of HTTP Basic.
///
/// The client form-encodes each of them (RFC 6749 §2.3.1); with `raw`, they are not decoded.
fn basic_credentials(headers: &HeaderMap, raw: bool) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(basic(headers)?).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    if raw {
        Some((id.to_owned(), secret.to_owned()))
    } else {
        Some((form_decode(id), form_decode(secret)))
    }
}

/// Form-decodes a single value.
fn form_decode(value: &str) -> String {
    // The parser expects a whole form, so escape the characters that separate fields.
    let name = value.replace('&', "%26").replace('=', "%3D");
    let mut fields = form_urlencoded::parse(name.as_bytes());
    fields
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let media_type = value.split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

/// The fields of the request's form, empty if the body is not a form.
struct Form(Vec<(String, String)>);

impl Form {
    fn read(headers: &HeaderMap, body: &Body) -> Self {
        match &body.bytes {
            Some(bytes) if is_form(headers) => {
                Self(form_urlencoded::parse(bytes).into_owned().collect())
            }
            _ => Self(Vec::new()),
        }
    }

    /// Returns the value of the first field with this name.
    ///
    /// A field without a value is treated as omitted (RFC 6749 §3.2).
    fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(field, _)| field == name)?;
        (!value.is_empty()).then_some(value)
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(field, _)| field == name).count()
    }

    fn into_record(self) -> Arc<[(String, String)]> {
        self.0
            .into_iter()
            .filter(|(name, _)| name != "client_secret")
            .collect()
    }
}
