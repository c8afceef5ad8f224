//! The responses that reject the token of a request.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use crate::policy::challenge;

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
/// A 401 rejects the token if one of its challenges is a Bearer challenge with `invalid_token` or
/// without `error`, or if it has no readable challenge. A 401 whose Bearer challenges name other
/// errors (`insufficient_scope`, `invalid_request`), or that has challenges of other schemes only,
/// does not reject it, and neither does any other status.
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
/// Only a trailers-only response carries its `grpc-status` in the headers, which is how servers
/// answer a call that they refuse before it begins. A plain HTTP 401, as a proxy sends it, is
/// judged by [`BearerChallenge`].
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

impl BearerChallenge {
    fn has_rejecting_challenge(headers: &HeaderMap) -> bool {
        let lines = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .map(|line| line.as_bytes());
        let challenges = challenge::parse(lines);
        challenges.is_empty()
            || challenges
                .iter()
                .filter(|challenge| challenge.is_bearer())
                .any(|challenge| {
                    // A repeated `error` parameter rejects if any of its values does.
                    let mut errors = challenge.values("error").peekable();
                    errors.peek().is_none()
                        || errors.any(|it| it.eq_ignore_ascii_case("invalid_token"))
                })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejects(status: u16, lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(line));
        }
        BearerChallenge.rejects(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn a_401_with_a_fitting_challenge_or_none_rejects() {
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
        ] {
            assert!(rejects(401, lines), "{lines:?}");
        }
    }

    #[test]
    fn other_errors_and_other_schemes_do_not() {
        for lines in [
            &["Bearer error=\"insufficient_scope\", scope=\"admin\""][..],
            &["Bearer error=\"invalid_request\""],
            &["Basic realm=\"x\""],
            &["Basic realm=\"Bearer error=invalid_token\""],
            &["DPoP algs=\"ES256\"", "Negotiate abc=="],
        ] {
            assert!(!rejects(401, lines), "{lines:?}");
        }
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
