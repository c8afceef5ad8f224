//! The responses that reject the token of a request.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use crate::error::safe_code;
use crate::policy::challenge::{self, Challenge};

/// Decides which responses reject the token that the request carried.
///
/// [`BearerAuthLayer::reject_with`](crate::BearerAuthLayer::reject_with) takes one. The default is
/// [`BearerChallenge`]; for a closure see
/// [`BearerAuthLayer::reject_when`](crate::BearerAuthLayer::reject_when).
///
/// ```
/// use bearer_auth::{BearerAuthLayer, BearerChallenge, RejectionPolicy, StaticTokenSource};
/// use http::{HeaderMap, StatusCode};
///
/// /// An API behind a gateway that answers 419 to an expired token.
/// struct Gateway;
///
/// impl RejectionPolicy for Gateway {
///     fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
///         status.as_u16() == 419 || BearerChallenge.rejects(status, headers)
///     }
/// }
///
/// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?).reject_with(Gateway);
/// # Ok::<(), bearer_auth::InvalidToken>(())
/// ```
pub trait RejectionPolicy: Send + Sync + 'static {
    /// Returns true if a response with this status and these headers rejects the token.
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool;
}

/// The policy that a closure is.
pub(crate) struct RejectionFn<F>(pub(crate) F);

impl<F> RejectionPolicy for RejectionFn<F>
where
    F: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
{
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        (self.0)(status, headers)
    }
}

/// The default [`RejectionPolicy`], by RFC 6750 §3 and RFC 9110 §11.6.1.
///
/// A 401 rejects the token unless it says that another token would not help: it has at least one
/// Bearer challenge, and the errors of all of them are `insufficient_scope`, `invalid_request`,
/// `insufficient_claims` or `insufficient_user_authentication`. Challenges of other schemes do not
/// count, and any other error rejects: servers name an expired token in many ways. No other status
/// rejects.
#[derive(Clone, Copy, Debug, Default)]
pub struct BearerChallenge;

impl RejectionPolicy for BearerChallenge {
    #[inline]
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::UNAUTHORIZED && Self::has_rejecting_challenge(headers)
    }
}

/// A [`RejectionPolicy`] for gRPC: status 16 (`UNAUTHENTICATED`) rejects the token.
///
/// Only a trailers-only response carries its `grpc-status` in the headers. Servers answer so when
/// they reject a call before its response begins. A plain HTTP 401, as a proxy sends it, is judged
/// by [`BearerChallenge`].
///
/// ```
/// use bearer_auth::{BearerAuthLayer, GrpcUnauthenticated, StaticTokenSource};
///
/// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
///     .assume_origin("https://grpc.example.com")?
///     .allow_origin("https://grpc.example.com")?
///     .reject_with(GrpcUnauthenticated);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcUnauthenticated;

impl RejectionPolicy for GrpcUnauthenticated {
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        headers.get("grpc-status").is_some_and(|code| code == "16")
            || BearerChallenge.rejects(status, headers)
    }
}

/// The errors of a Bearer challenge that another token would not help with (RFC 6750 §3.1, RFC 9470
/// §3, and `insufficient_claims` as Microsoft's identity platform has it).
const OTHER_ERRORS: [&str; 4] = [
    "insufficient_scope",
    "invalid_request",
    "insufficient_claims",
    "insufficient_user_authentication",
];

impl BearerChallenge {
    fn has_rejecting_challenge(headers: &HeaderMap) -> bool {
        let challenges = challenges(headers);
        let mut bearer = challenges.iter().filter(|it| it.is_bearer()).peekable();
        bearer.peek().is_none() || bearer.any(Self::rejects_token)
    }

    fn rejects_token(challenge: &Challenge) -> bool {
        // A repeated `error` parameter rejects if any of its values does.
        let mut errors = challenge.values("error").peekable();
        let is_other = |error: &str| OTHER_ERRORS.iter().any(|it| error.eq_ignore_ascii_case(it));
        errors.peek().is_none() || errors.any(|error| !is_other(error))
    }
}

/// Returns true if a response says that the token itself is invalid (RFC 6750 §3.1), so that no
/// request should use it again.
pub(crate) fn says_invalid_token(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED
        && challenges(headers)
            .iter()
            .filter(|challenge| challenge.is_bearer())
            .flat_map(|challenge| challenge.values("error"))
            .any(|error| error.eq_ignore_ascii_case("invalid_token"))
}

/// Returns the first error code that is safe to log: of a Bearer challenge if there is one, else of
/// any other.
pub(crate) fn error_code(headers: &HeaderMap) -> Option<Box<str>> {
    let challenges = challenges(headers);
    let bearer = challenges.iter().filter(|it| it.is_bearer());
    let others = challenges.iter().filter(|it| !it.is_bearer());
    bearer
        .chain(others)
        .flat_map(|challenge| challenge.values("error"))
        .find_map(safe_code)
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all(WWW_AUTHENTICATE).iter();
    challenge::parse(lines.map(|line| line.as_bytes()))
}

#[cfg(test)]
mod products;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(line));
        }
        headers
    }

    fn rejects(status: u16, lines: &[&'static str]) -> bool {
        let headers = headers(lines);
        BearerChallenge.rejects(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn any_other_401_rejects() {
        for lines in [
            &[][..],
            &[""],
            &[",,"],
            &["???"],
            &["Bearer"],
            &["bEARER realm=\"api\""],
            &["Bearer error=\"invalid_token\""],
            &["Bearer error=invalid_token"],
            &["Bearer error=\"x\", error=\"invalid_token\""],
            &["Basic realm=\"x\", Bearer error=\"invalid_token\""],
            &["Basic realm=\"x\"", "Bearer"],
            &[
                "Bearer error=\"insufficient_scope\"",
                "Bearer error=\"invalid_token\"",
            ],
            // As products send them.
            &["OAuth2 realm=\"x\", error=\"invalid token\""],
            &["null Bearer realm=\"x\", error=\"invalid_token\""],
            &["Bearer error=\"expired_token\""],
            &["Bearer error=\"Session_Invalid\""],
            &["Bearer realm=\"x\", error=\"token_expired\", error_description=\"old\""],
            &["Bearer error=\"\""],
            &["BASIC realm=\"x\""],
            &["Basic realm=\"Bearer error=invalid_token\""],
            &["DPoP algs=\"ES256\"", "Negotiate abc=="],
            &["Token realm=\"api\""],
            &["JWT realm=\"api\""],
            &["MAC error=\"insufficient_scope\""],
            &["Bearer"; 3],
        ] {
            assert!(rejects(401, lines), "{lines:?}");
        }
    }

    #[test]
    fn a_401_that_another_token_would_not_help_with_does_not_reject() {
        for lines in [
            &["Bearer error=\"insufficient_scope\", scope=\"admin\""][..],
            &["Bearer error=\"invalid_request\""],
            &["Bearer error=\"insufficient_claims\", claims=\"eyJ9\""],
            &["Bearer error=\"insufficient_user_authentication\", max_age=\"5\""],
            &["Bearer error=\"INSUFFICIENT_SCOPE\""],
            &["Basic realm=\"x\", Bearer error=\"insufficient_scope\""],
            &["Basic realm=\"x\"", "Bearer error=\"invalid_request\""],
            &[
                "Bearer error=\"insufficient_scope\"",
                "Bearer error=\"invalid_request\"",
            ],
        ] {
            assert!(!rejects(401, lines), "{lines:?}");
        }
    }

    #[test]
    fn only_a_bearer_challenge_says_that_the_token_is_invalid() {
        let says = |status: u16, line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(line));
            says_invalid_token(StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert!(says(401, "Bearer error=\"invalid_token\""));
        assert!(says(401, "Basic realm=\"x\", bearer error=Invalid_Token"));
        for line in [
            "",
            "Bearer",
            "Bearer error=\"expired_token\"",
            "OAuth2 error=\"invalid_token\"",
        ] {
            assert!(!says(401, line), "{line}");
        }
        assert!(!says(403, "Bearer error=\"invalid_token\""));
    }

    #[test]
    fn the_error_code_is_one_that_is_safe_to_log() {
        for (lines, code) in [
            (
                &["Bearer realm=\"x\", error=\"invalid_token\""][..],
                Some("invalid_token"),
            ),
            (&["Basic error=a", "Bearer error=b"], Some("b")),
            (
                &["OAuth2 error=\"Session.Invalid-2\""],
                Some("Session.Invalid-2"),
            ),
            (&["Bearer error=\"a b\"", "Bearer error=c"], Some("c")),
            (&["Bearer error=\"\""], None),
            (&["Bearer error_description=\"expired\""], None),
            (&[], None),
        ] {
            let found = error_code(&headers(lines));
            assert_eq!(found.as_deref(), code, "{lines:?}");
        }
        let long = format!("Bearer error={}", "x".repeat(65));
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, long.parse().unwrap());
        assert_eq!(error_code(&headers), None);
    }

    #[test]
    fn grpc_status_16_rejects() {
        let rejects = |status: u16, code: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", http::HeaderValue::from_static(code));
            GrpcUnauthenticated.rejects(StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert!(rejects(200, "16"));
        assert!(rejects(401, "0"), "a proxy's 401");
        for code in ["0", "7", "14", "1", "160", ""] {
            assert!(!rejects(200, code), "{code:?}");
        }
        assert!(!GrpcUnauthenticated.rejects(StatusCode::OK, &HeaderMap::new()));
    }

    #[test]
    fn other_statuses_do_not_reject() {
        for status in [200, 204, 302, 400, 403, 407, 429, 500, 503] {
            assert!(
                !rejects(status, &["Bearer error=\"invalid_token\""]),
                "{status}"
            );
        }
    }
}
