//! azure_core's `BearerTokenAuthorizationPolicy` with a `TokenCredential` written by hand.
//!
//! In a `Pipeline` with its defaults, before each try, where the Azure clients put it; and with an
//! `OnChallenge` that asks for another token, without which the policy answers no 401.
//! The policy renews tokens 5 min before they expire and can't be told otherwise. The credential
//! therefore names an expiry that is later by 5 min less 1 s, which makes that 1 s, as for the
//! other peers; with the true one, every request with a token of 4 s would renew it.
//! The policy sends tokens by https alone: the URL says https, and the transport makes it http.

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

use super::{BoxError, Call, Client, Peer, RENEW_BEFORE, What};
use crate::server::{Api, Target};
use crate::stack::STATIC_TOKEN;
use crate::stack::reqwest::v13;
use crate::token_request::TokenEndpoint;

const SCOPES: [&str; 1] = ["api"];

/// The policy's own.
const POLICY_RENEWS_BEFORE: std::time::Duration = std::time::Duration::from_secs(300);

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
        what: What,
    ) -> std::result::Result<Arc<dyn Client>, BoxError> {
        let policies: Vec<Arc<dyn Policy>> = match what {
            What::Peer => {
                let credential = Arc::new(Credential {
                    endpoint: TokenEndpoint::new(target)?,
                });
                let policy = BearerTokenAuthorizationPolicy::new(credential, SCOPES)
                    .with_on_challenge(Arc::new(AskAgain));
                vec![Arc::new(policy)]
            }
            What::StaticHeader => vec![Arc::new(StaticHeader(format!("Bearer {STATIC_TOKEN}")))],
            What::Bare => vec![],
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
        // An answer that is no success is an answer, as in the other stacks.
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
        let named = lifetime + POLICY_RENEWS_BEFORE - RENEW_BEFORE;
        Ok(AccessToken::new(
            token.secret,
            OffsetDateTime::now_utc() + named,
        ))
    }
}

/// The policy has dropped the refused token by then.
#[derive(Debug)]
struct AskAgain;

#[async_trait]
impl OnChallenge for AskAgain {
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

/// What azure_core does with a reqwest client, and plain http.
#[derive(Debug)]
struct PlainHttp(reqwest::Client);

#[async_trait]
impl HttpClient for PlainHttp {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        let mut request = request.clone();
        // Can't fail: both are schemes of the web.
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
        // Looked for only where it is there: a header that is missing costs microseconds.
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
