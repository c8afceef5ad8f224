//! aliri_reqwest's middleware around aliri_tokens' watcher, whose task refreshes the token.
//!
//! Configured as both crates document it, except for settings that assume tokens with a lifetime of
//! an hour. These tokens live for 4 s, so the shortest time until a refresh is 1 s instead of 30 s,
//! and there is no jitter of up to a minute. There is no file cache, since the scenarios need the
//! token endpoint. A token is refreshed after three quarters of its lifetime, the default. The
//! token request is form data, as RFC 6749 specifies. By default the middleware sends tokens over
//! https only; here it may send them to the one host.

use std::sync::Arc;

use ::aliri::jwt::Audience;
use aliri_clock::DurationSecs;
use aliri_reqwest::{AccessTokenMiddleware, ExactHostMatch};
use aliri_tokens::backoff::ErrorBackoffConfig;
use aliri_tokens::jitter::NullJitter;
use aliri_tokens::sources::oauth2::ClientCredentialsTokenSource;
use aliri_tokens::sources::oauth2::dto::{ClientCredentials, ClientCredentialsWithAudience};
use aliri_tokens::{ClientId, ClientSecret, TokenLifetimeConfig, TokenWatcher};
use async_trait::async_trait;

use super::{Auth, BoxError, Client, NO_CALLER_FETCHES, NO_REACTION, Peer};
use crate::scenarios::Scenario;
use crate::server::Target;
use crate::stack::reqwest::v12;

pub(super) struct Aliri;

#[async_trait]
impl Peer for Aliri {
    fn name(&self) -> &'static str {
        "aliri_reqwest"
    }

    fn stack(&self) -> &'static str {
        "reqwest-middleware 0.4"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["aliri_reqwest", "aliri_tokens"]
    }

    fn lacks(&self, scenario: Scenario) -> Option<&'static str> {
        match scenario {
            Scenario::Cancel => Some(NO_CALLER_FETCHES),
            Scenario::Revocation => Some(NO_REACTION),
            _ => None,
        }
    }

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        match auth {
            Auth::Peer => {
                let host = target.origin.parse::<reqwest_012::Url>()?;
                let host = host.host_str().unwrap_or_default();
                let middleware = AccessTokenMiddleware::new(watcher(target).await?)
                    .with_predicate(ExactHostMatch::new(host));
                v12::client(target, Some(Arc::new(middleware)))
            }
            Auth::StaticHeader => v12::client(target, Some(v12::static_middleware())),
            Auth::Bare => v12::client(target, None),
        }
    }
}

async fn watcher(target: &Target) -> Result<TokenWatcher, BoxError> {
    let credentials = ClientCredentialsWithAudience {
        credentials: Arc::new(ClientCredentials {
            client_id: ClientId::from(target.client_id.as_str()),
            client_secret: ClientSecret::from(target.client_secret.as_str()),
        }),
        audience: Audience::from("api"),
    };
    let source = ClientCredentialsTokenSource::new(
        v12::http_client()?,
        target.token_url.parse()?,
        credentials,
        TokenLifetimeConfig::new(0.75, DurationSecs(1)),
    )
    .using_form_data();
    let backoff = ErrorBackoffConfig::default();
    Ok(TokenWatcher::spawn_from_token_source(source, NullJitter, backoff).await?)
}
