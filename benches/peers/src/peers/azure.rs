//! azure_core's `BearerTokenAuthorizationPolicy` with a hand-written `TokenCredential`.
//!
//! The policy runs in a default `Pipeline`, once per try, as in the Azure clients. It has an
//! `OnChallenge` that requests another token, since it does not react to a 401 otherwise.
//!
//! The policy always refreshes tokens 5 min before they expire. The credential therefore reports an
//! expiry that is later by 5 min minus 1 s, so that a refresh starts 1 s before the true expiry, as
//! in other peers. With the true expiry, each request would refresh a token of 4 s.
//!
//! The policy sends tokens over https only. The URL is therefore https, and the transport changes
//! it to http.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{AUTHORIZATION, Headers};
use azure_core::http::policies::auth::{Authorizer, BearerTokenAuthorizationPolicy, OnChallenge};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{
    AsyncRawResponse, ClientOptions, Context, HttpClient, Method, Pipeline, PipelineSendOptions,
    Request, StatusCode, Transport, Url,
};
use azure_core::time::OffsetDateTime;
use azure_core::{Error, Result};

use super::{Auth, BoxError, Call, Client, Peer, REFRESH_BEFORE};
use crate::server::{Api, Target};
use crate::stack::STATIC_TOKEN;
use crate::stack::reqwest::v13;
use crate::token_request::TokenEndpoint;

const SCOPES: [&str; 1] = ["api"];

/// The policy's own, fixed setting.
const POLICY_REFRESHES_BEFORE: std::time::Duration = std::time::Duration::from_secs(300);

pub(super) struct Azure;

#[async_trait]
impl Peer for Azure {
    fn name(&self) -> &'static str {
        "azure_core"
    }

    fn stack(&self) -> &'static str {
        "azure_core's pipeline"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["azure_core", "oauth2"]
    }

    async fn connect(
        &self,
        target: &Target,
        auth: Auth,
    ) -> std::result::Result<Arc<dyn Client>, BoxError> {
        let policies: Vec<Arc<dyn Policy>> = match auth {
            Auth::Peer => {
                let credential = Arc::new(Credential {
                    endpoint: TokenEndpoint::new(target)?,
                });
                let policy = BearerTokenAuthorizationPolicy::new(credential, SCOPES)
                    .with_on_challenge(Arc::new(RequestAnother));
                vec![Arc::new(policy)]
            }
            Auth::StaticHeader => vec![Arc::new(StaticHeader(format!("Bearer {STATIC_TOKEN}")))],
            Auth::Bare => vec![],
        };
        let transport: Arc<dyn HttpClient> = match target.api {
            Api::Loopback => Arc::new(PlainHttp(v13::http_client()?)),
            api => Arc::new(Canned {
                open: api == Api::CannedOpen,
            }),
        };
        let options = ClientOptions {
            transport: Some(Transport::new(transport)),
            ..Default::default()
        };
        let pipeline = Pipeline::new(Some("peers"), None, options, vec![], policies, None);
        let url = target.api_url.replacen("http:", "https:", 1).parse()?;
        Ok(Arc::new(Stack { pipeline, url }))
    }
}

struct Stack {
    pipeline: Pipeline,
    url: Url,
}

impl Call for Stack {
    async fn call(&self) -> std::result::Result<u16, BoxError> {
        let mut request = Request::new(self.url.clone(), Method::Get);
        // Returns unsuccessful responses as responses, as the other stacks do.
        let options = PipelineSendOptions {
            skip_checks: true,
            ..Default::default()
        };
        let response = self
            .pipeline
            .send(&Context::default(), &mut request, Some(options))
            .await?;
        Ok(u16::from(response.status()))
    }
}

#[derive(Debug)]
struct Credential {
    endpoint: TokenEndpoint,
}

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> Result<AccessToken> {
        let token = self.endpoint.fetch().await.map_err(|error| {
            Error::with_error(ErrorKind::Credential, error, "the token endpoint failed")
        })?;
        let lifetime = token.expires_at.saturating_duration_since(Instant::now());
        let reported = lifetime + POLICY_REFRESHES_BEFORE - REFRESH_BEFORE;
        Ok(AccessToken::new(
            token.secret,
            OffsetDateTime::now_utc() + reported,
        ))
    }
}

/// Requests another token. The policy has discarded the rejected one by then.
#[derive(Debug)]
struct RequestAnother;

#[async_trait]
impl OnChallenge for RequestAnother {
    async fn on_challenge(
        &self,
        _: &Context,
        request: &mut Request,
        authorizer: &dyn Authorizer,
        _: &Headers,
    ) -> Result<()> {
        authorizer
            .authorize(request, &SCOPES, TokenRequestOptions::default())
            .await
    }
}

#[derive(Debug)]
struct StaticHeader(String);

#[async_trait]
impl Policy for StaticHeader {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        request.insert_header(AUTHORIZATION, self.0.clone());
        next[0].send(context, request, &next[1..]).await
    }
}

/// azure_core's transport over reqwest, with https changed to http.
#[derive(Debug)]
struct PlainHttp(reqwest::Client);

#[async_trait]
impl HttpClient for PlainHttp {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        let mut request = request.clone();
        // Cannot fail: both schemes are special in the URL standard.
        let _ = request.url_mut().set_scheme("http");
        self.0.execute_request(&request).await
    }
}

#[derive(Debug)]
struct Canned {
    open: bool,
}

#[async_trait]
impl HttpClient for Canned {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        // Read only if it is present: reading a missing header takes microseconds.
        let ok = self.open || {
            let header = request.headers().get_optional_str(&AUTHORIZATION);
            header.is_some_and(|value| value.starts_with("Bearer mock-access-token-"))
        };
        let status = if ok {
            StatusCode::Ok
        } else {
            StatusCode::Unauthorized
        };
        Ok(AsyncRawResponse::from_bytes(status, Headers::new(), ""))
    }
}
