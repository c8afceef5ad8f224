//! The client of a token endpoint: sends the token request of a grant.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};

use crate::error::{TokenError, TokenErrorKind};
use crate::token::request::TokenRequest;
use crate::token_endpoint::authentication::{Authentication, Credentials};
use crate::token_endpoint::form::{Field, Form, check_param, check_scope};
use crate::token_endpoint::response::{self, TokenResponse};
use crate::token_endpoint::transport::Transport;
use crate::token_endpoint::try_limit::TryLimit;

/// The client of a token endpoint.
pub(crate) struct TokenEndpoint {
    pub(super) url: Uri,
    pub(super) authentication: Authentication,
    /// The default scope, with its names separated by single spaces.
    pub(super) scope: TokenRequest,
    pub(super) params: Vec<(String, String)>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) try_timeout: Duration,
}

impl TokenEndpoint {
    /// Sends one token request: the fields of the grant, with the scope and the parameters of
    /// `request` in place of the endpoint's own.
    ///
    /// # Errors
    ///
    /// Names the host of the token endpoint.
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
            .map_err(|error| error.with_token_endpoint(self.host()))
    }

    /// Sends the token request, and once more if the server does not accept the client because its
    /// credentials were rotated in the meantime.
    async fn authenticate(
        &self,
        form: impl Fn(&Credentials) -> Bytes,
    ) -> Result<TokenResponse, TokenError> {
        let limit = TryLimit::start(self.try_timeout);
        let sent = self.credentials(limit).await?;
        let error = match self.exchange(form(&sent), &sent, limit).await {
            Err(error) if error.kind() == TokenErrorKind::InvalidClient => error,
            outcome => return outcome,
        };
        if !self.authentication.may_rotate() {
            return Err(error);
        }
        let limit = TryLimit::start(self.try_timeout);
        let current = self.credentials(limit).await?;
        // The same credentials again could lock the client out.
        if !current.is_rotated_since(&sent) {
            return Err(error);
        }
        self.exchange(form(&current), &current, limit).await
    }

    async fn credentials(&self, limit: TryLimit) -> Result<Credentials, TokenError> {
        let credentials = limit.run(self.authentication.credentials()).await;
        credentials.map_err(TokenError::with_unsent)
    }

    async fn exchange(
        &self,
        form: Bytes,
        credentials: &Credentials,
        limit: TryLimit,
    ) -> Result<TokenResponse, TokenError> {
        let request = self.request(form, credentials);
        let raw = self.transport.send(request, limit).await?;
        response::parse_all(raw.status, &raw.headers, raw.body.as_deref())
    }

    fn request(&self, body: Bytes, credentials: &Credentials) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
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

    fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }

    /// Adds the settings that are no secrets.
    pub(crate) fn debug(&self, f: &mut fmt::DebugStruct<'_, '_>) {
        f.field("token_endpoint", &self.url.host())
            .field("client_id", &self.authentication.client_id)
            .field("client_authentication", self.authentication.style())
            .field("scope", &self.scope.scopes());
    }
}
