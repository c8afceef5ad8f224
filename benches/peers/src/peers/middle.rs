//! middle's wrapped reqwest client, whose authorizer refreshes the token in a task.
//!
//! Configured as in its README, except that `refresh_tolerance` is 1 s instead of 30 s, since these
//! tokens live for 4 s. It wraps the whole client, so the client cannot be replaced by one without
//! sockets. Scenarios without sockets build the request, with its header, by middle's `get`, and
//! return a canned response.

use std::sync::Arc;

use ::middle::{BasicClientCredentialAuthorizer, HttpClient};
use async_trait::async_trait;
use http::HeaderValue;
use reqwest_012::header::AUTHORIZATION;
use reqwest_012::{RequestBuilder, Url};

use super::{Auth, BoxError, Call, Client, NO_CALLER_FETCHES, NO_REACTION, Peer, REFRESH_BEFORE};
use crate::scenarios::Scenario;
use crate::server::{Api, Target};
use crate::stack::reqwest::v12;
use crate::stack::{carries_token, static_header};

pub(super) struct Middle;

#[async_trait]
impl Peer for Middle {
    fn name(&self) -> &'static str {
        "middle"
    }

    fn stack(&self) -> &'static str {
        "a wrapped reqwest 0.12 client"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["middle"]
    }

    fn lacks(&self, scenario: Scenario) -> Option<&'static str> {
        match scenario {
            Scenario::Cancel => Some(NO_CALLER_FETCHES),
            Scenario::Revocation => Some(NO_REACTION),
            _ => None,
        }
    }

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        let http = v12::http_client()?;
        let url = target.api_url.parse()?;
        let requests = match auth {
            Auth::Peer => {
                let authorizer = BasicClientCredentialAuthorizer::basic_builder(
                    &target.client_id,
                    &target.client_secret,
                    target.token_url.parse()?,
                )
                .set_http_client(v12::http_client()?)
                .refresh_tolerance(REFRESH_BEFORE)
                .build()
                .await?;
                Requests::Middle(HttpClient::new(authorizer).set_client(http))
            }
            Auth::StaticHeader => Requests::StaticHeader(http, static_header()),
            Auth::Bare => Requests::Bare(http),
        };
        Ok(Arc::new(Stack {
            requests,
            url,
            api: target.api,
        }))
    }
}

struct Stack {
    requests: Requests,
    url: Url,
    api: Api,
}

/// The client that builds the requests.
enum Requests {
    Middle(HttpClient<BasicClientCredentialAuthorizer>),
    StaticHeader(reqwest_012::Client, HeaderValue),
    Bare(reqwest_012::Client),
}

impl Requests {
    fn get(&self, url: Url) -> Result<RequestBuilder, BoxError> {
        Ok(match self {
            Self::Middle(client) => client.get(url)?,
            Self::StaticHeader(client, value) => {
                client.get(url).header(AUTHORIZATION, value.clone())
            }
            Self::Bare(client) => client.get(url),
        })
    }
}

impl Call for Stack {
    async fn call(&self) -> Result<u16, BoxError> {
        let request = self.requests.get(self.url.clone())?;
        let response = if self.api == Api::Loopback {
            request.send().await?
        } else {
            let request = request.build()?;
            let open = self.api == Api::CannedOpen;
            v12::respond(open || carries_token(request.headers().get(AUTHORIZATION)))
        };
        let status = response.status().as_u16();
        response.bytes().await?;
        Ok(status)
    }
}
