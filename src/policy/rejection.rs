//! Which answers reject the token that a request carried.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use crate::challenge;

/// Decides which answers reject the token that the request carried.
///
/// The default is [`BearerChallenge`]. A closure over status and headers is one too. It replaces the
/// default, so call `BearerChallenge` from it for answers that should still reject:
///
/// ```
/// use bearer_auth::{BearerAuthLayer, BearerChallenge, RejectionPolicy, StaticTokenSource};
/// use http::{HeaderMap, StatusCode};
///
/// let source = StaticTokenSource::new("opaque")?;
/// // An API that answers 403 to a token that has expired.
/// let layer = BearerAuthLayer::new(source).reject_when(
///     |status: StatusCode, headers: &HeaderMap| {
///         status == StatusCode::FORBIDDEN || BearerChallenge.rejects(status, headers)
///     },
/// );
///
/// let source = StaticTokenSource::new("opaque")?;
/// // gRPC: UNAUTHENTICATED, in an answer without body.
/// let layer = BearerAuthLayer::new(source).reject_when(
///     |_: StatusCode, headers: &HeaderMap| headers.get("grpc-status").is_some_and(|it| it == "16"),
/// );
/// # Ok::<(), bearer_auth::InvalidToken>(())
/// ```
pub trait RejectionPolicy: Send + Sync + 'static {
    /// Whether an answer with this status and these headers rejects the token.
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool;
}

impl<F> RejectionPolicy for F
where
    F: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
{
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self(status, headers)
    }
}

/// The default [`RejectionPolicy`], by RFC 6750 §3 and RFC 9110 §11.6.1.
///
/// A 401 rejects the token if one of its challenges is a Bearer challenge with `invalid_token` or
/// without `error`, or if it has no challenge that can be read. A 401 with Bearer challenges that
/// name other errors (`insufficient_scope`, `invalid_request`), or with challenges of other schemes
/// only, does not; nor does any other status.
#[derive(Clone, Copy, Debug, Default)]
pub struct BearerChallenge;

impl RejectionPolicy for BearerChallenge {
    #[inline]
    fn rejects(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::UNAUTHORIZED && Self::refuses(headers)
    }
}

impl BearerChallenge {
    fn refuses(headers: &HeaderMap) -> bool {
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
                    // Twice said, once meant: any of them counts.
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
    fn other_statuses_do_not() {
        for status in [200, 204, 302, 400, 403, 407, 429, 500, 503] {
            assert!(
                !rejects(status, &["Bearer error=\"invalid_token\""]),
                "{status}"
            );
        }
    }
}
