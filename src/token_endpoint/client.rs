//! The client of a token endpoint: sends the token request of a grant.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use crate::error::{TokenError, TokenErrorKind};
use crate::policy::origin::Target;
use crate::source::context::FetchContext;
use crate::token::request::TokenRequest;
use crate::token_endpoint::authentication::{Authentication, Credentials};
use crate::token_endpoint::discovery::Discovery;
use crate::token_endpoint::form::{Field, Form, check_param, check_scope};
use crate::token_endpoint::response::{self, TokenResponse};
use crate::token_endpoint::transport::Transport;
use crate::token_endpoint::try_limit::TryLimit;

/// The client of a token endpoint.
pub(crate) struct TokenEndpoint {
    pub(super) address: Address,
    pub(super) authentication: Authentication,
    /// The default scope, with its names separated by single spaces.
    pub(super) scope: TokenRequest,
    pub(super) params: Vec<(String, String)>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) try_timeout: Duration,
}

/// The URL of the token endpoint, or its source.
pub(crate) enum Address {
    Url(Uri),
    /// The issuer's metadata says where.
    Issuer(Box<Discovery>),
}

impl TokenEndpoint {
    /// Sends one token request: the fields of the grant, with the scope and the parameters of
    /// `request` in place of the endpoint's own.
    ///
    /// # Errors
    ///
    /// Names the host and the port of the token endpoint.
    pub(crate) async fn send(
        &self,
        grant_type: &str,
        grant: &[Field],
        request: &TokenRequest,
    ) -> Result<TokenResponse, TokenError> {
        let scope = request.scopes().or(self.scope.scopes()).unwrap_or_default();
        check_scope(scope)?;
        let request_params: Vec<_> = request.params().collect();
        request_params
            .iter()
            .try_for_each(|(name, _)| check_param(name))?;
        let form = |credentials: &Credentials| {
            let form = Form {
                grant_type,
                credentials: &credentials.fields,
                grant,
                scope,
                params: &self.params,
                request_params: &request_params,
            };
            form.encode()
        };
        self.authenticate(form)
            .await
            .map_err(|error| error.with_token_endpoint(&self.authority()))
    }

    /// Sends the token request, and once more if the server does not accept the client because its
    /// credentials were rotated in the meantime.
    async fn authenticate(
        &self,
        form: impl Fn(&Credentials) -> Bytes,
    ) -> Result<TokenResponse, TokenError> {
        // First, so that no credentials are made for an endpoint that cannot be trusted.
        let url = self.url().await?;
        let limit = TryLimit::start(self.try_timeout);
        let sent = self.credentials(limit).await?;
        let error = match self.exchange(&url, form(&sent), &sent, limit).await {
            Err(error) if rejects_client(&error) => error,
            outcome => return outcome,
        };
        let has_new_certificate =
            self.authentication.uses_certificate() && self.transport.is_built_anew();
        if !has_new_certificate && !self.authentication.has_secret_file() {
            return Err(error);
        }
        let limit = TryLimit::start(self.try_timeout);
        let current = self.credentials(limit).await?;
        // The same secret again could lock the client out. A certificate cannot be compared.
        if !has_new_certificate && !current.is_rotated_since(&sent) {
            return Err(error);
        }
        self.exchange(&url, form(&current), &current, limit).await
    }

    async fn url(&self) -> Result<Uri, TokenError> {
        match &self.address {
            Address::Url(url) => Ok(url.clone()),
            Address::Issuer(discovery) => {
                let transport = &*self.transport;
                discovery.token_endpoint(transport, self.try_timeout).await
            }
        }
    }

    async fn credentials(&self, limit: TryLimit) -> Result<Credentials, TokenError> {
        let credentials = limit.run(self.authentication.credentials()).await;
        credentials.map_err(TokenError::with_unsent)
    }

    async fn exchange(
        &self,
        url: &Uri,
        form: Bytes,
        credentials: &Credentials,
        limit: TryLimit,
    ) -> Result<TokenResponse, TokenError> {
        let request = request(url, form, credentials);
        let raw = self.transport.send(request, limit).await?;
        response::parse_all(raw.status, &raw.headers, raw.body.as_deref())
    }

    /// Reports what a fetch has noticed of the issuer's metadata, after each try.
    pub(crate) fn report(&self, context: &FetchContext) {
        if let Address::Issuer(discovery) = &self.address {
            discovery.report(context.observers());
        }
    }

    /// Returns host and port of the token endpoint, without a default port.
    fn authority(&self) -> String {
        match &self.address {
            Address::Url(url) => Target::of_uri(url).authority(),
            Address::Issuer(discovery) => discovery.authority(),
        }
    }

    /// Adds the settings that are no secrets.
    pub(crate) fn debug(&self, f: &mut fmt::DebugStruct<'_, '_>) {
        f.field("token_endpoint", &self.authority())
            .field("client_id", &self.authentication.client_id)
            .field("client_authentication", self.authentication.style())
            .field("scope", &self.scope.scopes().filter(|it| !it.is_empty()));
    }
}

/// Returns true if the server does not accept the client (RFC 6749 §5.2), which some servers say by
/// the status alone. With another code, the server may have used up what the grant sent.
fn rejects_client(error: &TokenError) -> bool {
    error.kind() == TokenErrorKind::InvalidClient
        || (error.status() == Some(StatusCode::UNAUTHORIZED) && error.oauth_error().is_none())
}

fn request(url: &Uri, body: Bytes, credentials: &Credentials) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // Few transports decode, and a token is too short to gain from compression.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = &credentials.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    request
}
