//! The layer around a tonic channel, and the status codes of its errors.

use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, TokenError};
use tonic::Status;
use tonic::body::Body;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

/// A channel whose calls carry a token. A generated client is a `LedgerClient<AuthorizedChannel>`.
pub(crate) type AuthorizedChannel =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// Adds the layer to a channel.
pub(crate) fn with_tokens<S>(
    channel: S,
    auth: BearerAuthLayer,
    limit: Duration,
) -> AuthorizedChannel
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    let service = ServiceBuilder::new()
        .map_err(to_status)
        .timeout(limit)
        .map_result(with_reason)
        .layer(auth)
        .service(channel);
    BoxCloneSyncService::new(service)
}

/// Returns the `TokenError` in place of a rejection that has one: callers of tonic see no
/// extensions.
fn with_reason(
    result: Result<http::Response<Body>, BoxError>,
) -> Result<http::Response<Body>, BoxError> {
    let response = result?;
    match response.extensions().get::<TokenError>() {
        Some(error) => Err(error.clone().into()),
        None => Ok(response),
    }
}

/// Converts errors to a status, which tonic then returns. Otherwise a `TokenError` or a timeout
/// would be `UNKNOWN`.
fn to_status(error: BoxError) -> Status {
    if error.is::<Elapsed>() {
        return Status::deadline_exceeded("the call took too long");
    }
    let Some(token_error) = TokenError::find(&*error) else {
        return Status::from_error(error);
    };
    let mut status = match token_error.is_transient() {
        true => Status::unavailable(token_error.to_string()),
        false => Status::unauthenticated(token_error.to_string()),
    };
    status.set_source(Arc::new(token_error.clone()));
    status
}
