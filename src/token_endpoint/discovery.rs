//! The token endpoint of an issuer, by the issuer's metadata (RFC 8414, OpenID Connect Discovery
//! 1.0).
//!
//! No credential is part of a request for metadata, and none is made before the metadata has passed
//! all checks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderValue, Request, StatusCode, Uri};
use tokio::time::Instant;

use crate::error::{InvalidSetting, TokenError, TokenErrorKind};
use crate::observe::trouble::Trouble;
use crate::observe::{Event, Observers};
use crate::policy::origin::{Origin, Target, is_loopback};
use crate::token_endpoint::response::{LONGEST_BODY, retry_after};
use crate::token_endpoint::transport::{RawResponse, Transport};
use crate::token_endpoint::try_limit::TryLimit;

mod metadata;

use metadata::Metadata;

/// The time after which the metadata is fetched again. Endpoints move once in years.
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The time after which a refresh of the metadata that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The time limit of a refresh. A token is waiting for it, and the endpoint is known.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the token endpoint of an issuer.
pub(crate) struct Discovery {
    /// Exactly as it was configured.
    issuer: String,
    issuer_url: Uri,
    /// The origins at which the token endpoint may be, in addition to the issuer's.
    allowed: Vec<Origin>,
    /// The client authenticates by its certificate, so it uses the endpoints for that.
    uses_certificate: bool,
    known: Mutex<Option<Known>>,
    /// The known endpoint may be an old one.
    not_refreshed: Trouble,
}

struct Known {
    token_endpoint: Uri,
    refresh_at: Instant,
    /// The reason why the last refresh failed.
    failure: Option<TokenError>,
}

impl Discovery {
    /// Checks the issuer (RFC 8414 §2).
    pub(crate) fn new(
        issuer: String,
        allowed: Vec<Origin>,
        uses_certificate: bool,
    ) -> Result<Self, InvalidSetting> {
        let origin = Origin::of_url("issuer", &issuer)?;
        if !is_protected(origin.as_target()) {
            return Err(InvalidSetting::new(
                "issuer",
                "must be an https URL, or plain http to loopback: whoever can change the metadata \
                 gets the credentials",
            ));
        }
        let issuer_url = issuer.parse().ok();
        let is_bare = !issuer.contains(['?', '#']);
        let issuer_url = issuer_url.filter(|_| is_bare).ok_or_else(|| {
            InvalidSetting::new(
                "issuer",
                "must be a URL in ASCII without query and fragment (RFC 8414 §2)",
            )
        })?;
        Ok(Self {
            issuer,
            issuer_url,
            allowed,
            uses_certificate,
            known: Mutex::default(),
            not_refreshed: Trouble::default(),
        })
    }

    /// Returns host and port of the token endpoint, or those of the issuer as long as it is not
    /// known. A default port is left out.
    pub(crate) fn authority(&self) -> String {
        let known = self.known();
        let url = known.as_ref().map(|known| &known.token_endpoint);
        Target::of_uri(url.unwrap_or(&self.issuer_url)).authority()
    }

    /// Returns the token endpoint, from the metadata unless it is known.
    ///
    /// A refresh that fails keeps the known endpoint.
    pub(crate) async fn token_endpoint(
        &self,
        transport: &dyn Transport,
        timeout: Duration,
    ) -> Result<Uri, TokenError> {
        let known = match self.look_up() {
            (Some(url), false) => return Ok(url),
            (known, _) => known,
        };
        let timeout = match &known {
            Some(_) => timeout.min(REFRESH_TIMEOUT),
            None => timeout,
        };
        let limit = TryLimit::start(timeout);
        let found = match self.fetch(transport, limit).await {
            Ok(metadata) => self.accept(&metadata),
            Err(error) => Err(error),
        };
        match (found, known) {
            (Ok(url), _) => Ok(url),
            (Err(error), Some(url)) => {
                if let Some(known) = &mut *self.known() {
                    known.failure = Some(error);
                }
                Ok(url)
            }
            (Err(error), None) => Err(error.with_unsent()),
        }
    }

    /// Reports a refresh that failed, and the next one that did not.
    pub(crate) fn report(&self, observers: &Observers) {
        let issuer = &*self.issuer;
        let failure = self.known().as_ref().map(|known| known.failure.clone());
        match failure {
            Some(Some(error)) => self.not_refreshed.begin(observers, || {
                let error = &error;
                Event::MetadataNotRefreshed { issuer, error }
            }),
            Some(None) => {
                let event = || Event::MetadataRefreshed { issuer };
                self.not_refreshed.end(event);
            }
            None => {}
        }
    }

    /// Returns the known endpoint, and true if it is due for a refresh. One caller is told so.
    fn look_up(&self) -> (Option<Uri>, bool) {
        let mut known = self.known();
        let Some(known) = &mut *known else {
            return (None, true);
        };
        let now = Instant::now();
        let is_due = known.refresh_at <= now;
        if is_due {
            known.refresh_at = now + RETRY_AFTER;
        }
        (Some(known.token_endpoint.clone()), is_due)
    }

    /// Checks the endpoint of the metadata and keeps it.
    fn accept(&self, metadata: &Metadata) -> Result<Uri, TokenError> {
        let url = metadata.token_endpoint(self.uses_certificate)?;
        let target = Target::of_uri(&url);
        let mut known = self.known();
        let is_allowed = match &*known {
            // Pinned: what is allowed beside it is for the first discovery.
            Some(known) => target.is_same_origin(Target::of_uri(&known.token_endpoint)),
            None => {
                target.is_same_origin(Target::of_uri(&self.issuer_url))
                    || self.allowed.iter().any(|origin| origin.matches(target))
            }
        };
        if !is_allowed {
            let origin = url
                .authority()
                .map(|host| host.as_str())
                .unwrap_or_default();
            return Err(unusable(format!(
                "the token endpoint is at another origin than the issuer, `{origin}`: allow it with \
                 `allow_token_origin` if you know that it is the issuer's"
            )));
        }
        *known = Some(Known {
            token_endpoint: url.clone(),
            refresh_at: Instant::now() + REFRESH_AFTER,
            failure: None,
        });
        Ok(url)
    }

    /// Fetches the metadata: that of RFC 8414, or else that of OpenID.
    async fn fetch(
        &self,
        transport: &dyn Transport,
        limit: TryLimit,
    ) -> Result<Metadata, TokenError> {
        let mut errors = Vec::new();
        for path in self.paths() {
            let raw = transport.send(self.request(&path)?, limit).await?;
            match read(&raw) {
                Ok(metadata) => return metadata.checked(&self.issuer),
                Err(error) => errors.push(error),
            }
        }
        // The error that says most: one that may end, or any other than "there is nothing here".
        let rank = |error: &TokenError| {
            let is_missing = error.status() == Some(StatusCode::NOT_FOUND);
            (error.is_transient(), !is_missing)
        };
        let error = errors.into_iter().max_by_key(rank);
        Err(error.unwrap_or_else(|| unusable("there is none")))
    }

    /// Returns the paths of the metadata (RFC 8414 §3.1, OpenID Connect Discovery 1.0 §4.1).
    fn paths(&self) -> [String; 2] {
        let path = self.issuer_url.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        [
            format!("/.well-known/oauth-authorization-server{path}"),
            format!("{path}/.well-known/openid-configuration"),
        ]
    }

    fn request(&self, path: &str) -> Result<Request<Bytes>, TokenError> {
        let mut parts = self.issuer_url.clone().into_parts();
        // Made of a valid path, so this never fails.
        parts.path_and_query = Some(path.parse().map_err(TokenError::permanent)?);
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from_parts(parts).map_err(TokenError::permanent)?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a response to a request for metadata.
fn read(raw: &RawResponse) -> Result<Metadata, TokenError> {
    let error = match raw.status.as_u16() {
        200 => match raw.body.as_deref().map(Metadata::parse) {
            Some(Ok(metadata)) => return Ok(metadata),
            Some(Err(error)) => unreadable(format!(
                "not a JSON object of metadata, as line {} shows",
                error.line()
            )),
            None => unreadable(format!("longer than {LONGEST_BODY} bytes")),
        },
        300..=399 => unusable("the metadata is redirected, and no redirect is followed"),
        408 | 429 | 500..=599 => TokenError::new(TokenErrorKind::Discovery, true)
            .with_cause("the issuer does not return its metadata at the moment"),
        _ => unusable("the issuer has no metadata at its well-known URLs"),
    };
    let error = error.with_status(raw.status);
    match retry_after(&raw.headers) {
        Some(wait) => Err(error.with_retry_after(wait)),
        None => Err(error),
    }
}

/// Returns the error of a document that a proxy or a server in trouble may have sent.
fn unreadable(problem: String) -> TokenError {
    TokenError::new(TokenErrorKind::Discovery, true)
        .with_cause(format!("the response is {problem}"))
}

/// Returns the error of metadata that does not become usable by itself.
fn unusable(problem: impl Into<String>) -> TokenError {
    TokenError::new(TokenErrorKind::Discovery, false).with_cause(problem.into())
}

/// Returns true for https and for loopback.
pub(crate) fn is_protected(target: Target<'_>) -> bool {
    match target.parsed() {
        Target::Origin { https, host, .. } => https || is_loopback(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(issuer: &str) -> Result<Discovery, InvalidSetting> {
        Discovery::new(issuer.to_owned(), Vec::new(), false)
    }

    #[test]
    fn the_well_known_paths_follow_from_the_issuer() {
        for (issuer, paths) in [
            (
                "https://id.example.com",
                [
                    "/.well-known/oauth-authorization-server",
                    "/.well-known/openid-configuration",
                ],
            ),
            (
                "https://id.example.com/",
                [
                    "/.well-known/oauth-authorization-server",
                    "/.well-known/openid-configuration",
                ],
            ),
            (
                "https://id.example.com/realms/a/",
                [
                    "/.well-known/oauth-authorization-server/realms/a",
                    "/realms/a/.well-known/openid-configuration",
                ],
            ),
        ] {
            let discovery = discovery(issuer).unwrap();
            assert_eq!(discovery.paths(), paths, "{issuer}");
            let request = discovery.request(paths[1]).unwrap();
            let url = format!("https://id.example.com{}", paths[1]);
            assert_eq!(request.uri().to_string(), url);
        }
    }

    #[test]
    fn an_issuer_is_https_or_loopback_without_query_and_fragment() {
        for issuer in [
            "http://127.0.0.1:8080/a",
            "http://localhost",
            "http://[::1]",
        ] {
            discovery(issuer).unwrap();
        }
        for issuer in [
            "",
            "id.example.com",
            "http://id.example.com",
            "ftp://id.example.com",
            "https://u:p@id.example.com",
            "https://id.example.com?a=b",
            "https://id.example.com/#a",
            "https://idé.example.com",
            "https://id.example.com/é\n",
            "https://id.example.com\\@a.example.com",
            "https://0x7f.1",
        ] {
            let error = discovery(issuer)
                .err()
                .map(|error| error.setting().to_owned());
            assert_eq!(error.as_deref(), Some("issuer"), "{issuer}");
        }
    }
}
