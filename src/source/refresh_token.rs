//! The refresh token grant (RFC 6749 §6), with rotation.
//!
//! The server may replace the refresh token with each exchange, and takes a replaced token that is
//! presented again for a stolen one (RFC 9700 §4.14.2). So the store knows before each exchange
//! that the token is being presented, and learns the successor before anything else happens:
//!
//! ```text
//! load ─▶ save (presented) ─▶ send ─┬─ answer ────────▶ save (successor) ─▶ return the token
//!                                   ├─ certain refusal ▶ save (not presented) ─▶ error
//!                                   └─ no certainty ──▶ error; the mark stays
//! ```
//!
//! Wherever the process ends, the next one finds a token that was never presented, or the mark.
//! If saving fails, which need not mean that nothing was stored, the next fetch first saves what is
//! known to be true: the token that was not sent, or the successor.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{InvalidSetting, TokenError, TokenErrorKind};
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token_endpoint::builder::{Client, Grant, GrantBuilder, sealed};
use crate::token_endpoint::client::TokenEndpoint;
use crate::token_endpoint::response::TokenResponse;

mod dated;
mod store;

use dated::{DatedToken, RequestTime};
pub use store::{InMemoryRefreshTokenStore, RefreshToken, RefreshTokenStore};

/// A [`TokenSource`] for the refresh token grant (RFC 6749 §6), for refresh tokens that the server
/// replaces with each use (rotation) and for those that it does not.
///
/// The refresh tokens are in a [`RefreshTokenStore`]. A successor is saved before its access token
/// is used, and a token that was replaced is never presented again: servers revoke the whole login
/// if one is. The exchange runs in a task that outlives a fetch which is dropped or times out; the
/// next fetch gets its result, with the age of the token, unless the token is about to expire.
///
/// If an answer is lost, it is unknown if the token was replaced. By default the fetch and all that
/// follow then fail with [`LoginRequired`](TokenErrorKind::LoginRequired), until a new refresh
/// token is in the store. See [`present_again`](GrantBuilder::present_again).
///
/// One process at a time may use a store.
///
/// ```
/// use bearer_auth::{ClientAuthentication, InMemoryRefreshTokenStore, RefreshTokenGrant};
///
/// let store = InMemoryRefreshTokenStore::new("refresh-token");
/// let source = RefreshTokenGrant::builder("https://identity.example.com/token")
///     .client_id("my-app")
///     .client_authentication(ClientAuthentication::None)
///     .refresh_token(store)
///     .build()?;
/// # let _ = source;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone)]
pub struct RefreshTokenGrant {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: TokenEndpoint,
    store: Arc<dyn RefreshTokenStore>,
    present_again: bool,
    exchanges: Mutex<HashMap<TokenRequest, Exchange>>,
}

/// Either a task, or its result that could not be saved.
enum Exchange {
    Running(watch::Receiver<Option<Outcome>>),
    Unsaved(Unsaved),
}

type Outcome = Result<DatedToken, TokenError>;

/// A refresh token that has to be saved before anything else.
#[derive(Clone)]
struct Unsaved {
    /// The token in the store, marked or not, unless a new login has replaced it.
    presented: RefreshToken,
    refresh_token: RefreshToken,
    /// The token that came with it.
    token: Option<DatedToken>,
}

/// Builds a [`RefreshTokenGrant`] source. [`build`](GrantBuilder::build) checks the settings.
pub type RefreshTokenGrantBuilder = GrantBuilder<RefreshTokenGrantSettings>;

/// The settings of the refresh token grant.
#[derive(Clone, Default)]
pub struct RefreshTokenGrantSettings {
    store: Option<Arc<dyn RefreshTokenStore>>,
    present_again: bool,
}

impl RefreshTokenGrant {
    /// Creates a builder for a source that requests tokens at `token_url`.
    pub fn builder(token_url: impl Into<String>) -> RefreshTokenGrantBuilder {
        GrantBuilder::new(RefreshTokenGrantSettings::default(), token_url.into())
    }

    /// Creates a builder for a source that asks the issuer's metadata for the token endpoint, as
    /// [`ClientCredentials::discover`](crate::ClientCredentials::discover) does.
    pub fn discover(issuer: impl Into<String>) -> RefreshTokenGrantBuilder {
        GrantBuilder::discover(RefreshTokenGrantSettings::default(), issuer.into())
    }
}

impl GrantBuilder<RefreshTokenGrantSettings> {
    /// Sets the store of the refresh tokens.
    ///
    /// Default: none. It is required.
    pub fn refresh_token(mut self, store: impl RefreshTokenStore) -> Self {
        self.grant.store = Some(Arc::new(store));
        self
    }

    /// Presents a refresh token again after an exchange whose answer was lost.
    ///
    /// A server without rotation does not mind, nor does one that tolerates a replaced token for a
    /// while. Others take it for a stolen token and revoke the login.
    ///
    /// Default: not presented again, see [`LoginRequired`](TokenErrorKind::LoginRequired).
    pub fn present_again(mut self) -> Self {
        self.grant.present_again = true;
        self
    }
}

impl sealed::Sealed for RefreshTokenGrantSettings {
    const BUILDER: &'static str = "RefreshTokenGrantBuilder";
    const CLIENT: Client = Client::Identified;
}

impl Grant for RefreshTokenGrantSettings {
    type Source = RefreshTokenGrant;

    fn build(self, endpoint: sealed::Endpoint) -> Result<RefreshTokenGrant, InvalidSetting> {
        let missing = || InvalidSetting::new("refresh_token", "must be set to a store");
        Ok(RefreshTokenGrant {
            shared: Arc::new(Shared {
                endpoint: endpoint.0,
                store: self.store.ok_or_else(missing)?,
                present_again: self.present_again,
                exchanges: Mutex::default(),
            }),
        })
    }
}

#[async_trait]
impl TokenSource for RefreshTokenGrant {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let runtime = Handle::try_current()
            .map_err(|error| TokenError::new(TokenErrorKind::NoRuntime, false).with_cause(error))?;
        let started = Instant::now();
        loop {
            let token = self.exchange(request, &runtime).await?;
            // The token of an earlier exchange may be too old. The next exchange starts now.
            if let Some(token) = token.for_fetch(started) {
                return Ok(token);
            }
        }
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let outcome = self.fetch(request).await;
        self.shared.endpoint.report(context);
        outcome
    }
}

impl RefreshTokenGrant {
    /// Waits for an exchange, which may have started earlier.
    async fn exchange(&self, request: &TokenRequest, runtime: &Handle) -> Outcome {
        let mut outcome = self.start_or_join(request, runtime);
        let outcome = outcome.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task was dropped with its runtime, or the store panicked.
            Ok(None) | Err(_) => Err(TokenError::transient(
                "the exchange of the refresh token ended without a result",
            )
            .without_retry()),
        }
    }

    /// Starts the exchange for a request, or joins the one that an earlier fetch has left behind.
    fn start_or_join(
        &self,
        request: &TokenRequest,
        runtime: &Handle,
    ) -> watch::Receiver<Option<Outcome>> {
        let mut exchanges = self.shared.exchanges();
        let unsaved = match exchanges.get(request) {
            // Without a result, the task is lost if its sender is gone.
            Some(Exchange::Running(outcome)) if outcome.has_changed().is_ok() => {
                return outcome.clone();
            }
            Some(Exchange::Unsaved(unsaved)) => Some(unsaved.clone()),
            Some(Exchange::Running(_)) | None => None,
        };
        let (sender, receiver) = watch::channel(None);
        let exchange = Exchange::Running(receiver.clone());
        exchanges.insert(request.clone(), exchange);
        drop(exchanges);
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        runtime.spawn(async move {
            let (outcome, unsaved) = shared.exchange(&request, unsaved).await;
            let mut exchanges = shared.exchanges();
            match unsaved {
                Some(unsaved) => exchanges.insert(request, Exchange::Unsaved(unsaved)),
                None => exchanges.remove(&request),
            };
            drop(exchanges);
            sender.send_replace(Some(outcome));
        });
        receiver
    }
}

impl Shared {
    /// Exchanges the refresh token. Returns what could not be saved.
    async fn exchange(
        &self,
        request: &TokenRequest,
        unsaved: Option<Unsaved>,
    ) -> (Outcome, Option<Unsaved>) {
        if let Some(unsaved) = unsaved {
            match self.is_in_store(request, &unsaved.presented).await {
                Ok(true) => {}
                Ok(false) => return Box::pin(self.exchange(request, None)).await,
                Err(error) => return (Err(error), Some(unsaved)),
            }
            match self.save(request, unsaved).await {
                Ok(Some(token)) => return (Ok(token), None),
                Ok(None) => {}
                Err((error, unsaved)) => return (Err(error), Some(unsaved)),
            }
        }
        let loaded = match self.load(request).await {
            Ok(loaded) => loaded,
            Err(error) => return (Err(error), None),
        };
        let presented = loaded.clone().with_presented(true);
        if let Err(error) = self.store.save(request, presented).await {
            // The mark may have been stored all the same, although the token was not sent.
            let unsaved = Unsaved {
                presented: loaded.clone(),
                refresh_token: loaded,
                token: None,
            };
            return (Err(error), Some(unsaved));
        }
        let fields = [("refresh_token", loaded.value().clone())];
        let requested = RequestTime::now();
        let sent = self.endpoint.send("refresh_token", &fields, request).await;
        match sent {
            Ok(response) => {
                let TokenResponse {
                    token,
                    refresh_token,
                } = response;
                let unsaved = Unsaved {
                    presented: loaded.clone(),
                    // A server without rotation names none, and the old one stays.
                    refresh_token: refresh_token.map_or(loaded, RefreshToken::of),
                    token: Some(DatedToken { token, requested }),
                };
                match self.save(request, unsaved).await {
                    Ok(token) => (token.ok_or_else(no_token), None),
                    Err((error, unsaved)) => (Err(error), Some(unsaved)),
                }
            }
            Err(error) => self.refused(request, loaded, error).await,
        }
    }

    /// Returns true if this refresh token is still the one in the store.
    async fn is_in_store(
        &self,
        request: &TokenRequest,
        token: &RefreshToken,
    ) -> Result<bool, TokenError> {
        let stored = self.store.load(request).await?;
        Ok(stored.is_some_and(|stored| stored.expose_secret() == token.expose_secret()))
    }

    /// Loads the refresh token, if it may be presented.
    async fn load(&self, request: &TokenRequest) -> Result<RefreshToken, TokenError> {
        let loaded = self.store.load(request).await?;
        let loaded = loaded.ok_or_else(|| login_required("the store has no refresh token"))?;
        if loaded.is_presented() && !self.present_again {
            return Err(login_required(
                "the refresh token was presented before, and the server may have replaced it: the \
                 answer was lost, or it was `invalid_grant`",
            ));
        }
        Ok(loaded)
    }

    /// Saves a refresh token. Returns the access token that came with it.
    async fn save(
        &self,
        request: &TokenRequest,
        unsaved: Unsaved,
    ) -> Result<Option<DatedToken>, (TokenError, Unsaved)> {
        let refresh_token = unsaved.refresh_token.clone();
        match self.store.save(request, refresh_token).await {
            Ok(()) => Ok(unsaved.token),
            Err(error) => Err((error, unsaved)),
        }
    }

    /// Handles an exchange without a token.
    async fn refused(
        &self,
        request: &TokenRequest,
        presented: RefreshToken,
        error: TokenError,
    ) -> (Outcome, Option<Unsaved>) {
        if error.oauth_error() == Some("invalid_grant") {
            // The mark stays: the server does not know the token, so it is not sent again.
            return (Err(error.with_kind(TokenErrorKind::LoginRequired)), None);
        }
        if is_certainly_unused(&error) {
            let unsaved = Unsaved {
                presented: presented.clone(),
                refresh_token: presented.with_presented(false),
                token: None,
            };
            let unsaved = self.save(request, unsaved).await.err();
            return (Err(error), unsaved.map(|(_, unsaved)| unsaved));
        }
        if self.present_again {
            return (Err(error.without_retry()), None);
        }
        let lost = login_required(
            "the answer to the refresh token was lost, and the server may have replaced it",
        );
        (Err(lost), None)
    }

    fn exchanges(&self) -> MutexGuard<'_, HashMap<TokenRequest, Exchange>> {
        // Nothing panics while the lock is held.
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if the server has certainly not used the refresh token: the request was not sent,
/// or the answer says that it was not served.
fn is_certainly_unused(error: &TokenError) -> bool {
    let before_sending = [TokenErrorKind::InvalidSetting, TokenErrorKind::NoRuntime];
    error.is_unsent()
        || before_sending.contains(&error.kind())
        || match error.status().map(|status| status.as_u16()) {
            Some(300..=499 | 503) => true,
            Some(200..=299) => error.oauth_error().is_some(),
            _ => false,
        }
}

fn login_required(cause: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::LoginRequired, false).with_cause(cause)
}

fn no_token() -> TokenError {
    TokenError::transient("the token response was lost")
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RefreshTokenGrant");
        self.shared.endpoint.debug(&mut debug);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Debug for RefreshTokenGrantSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrantSettings")
            .field("present_again", &self.present_again)
            .finish_non_exhaustive()
    }
}
