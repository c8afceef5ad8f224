//! A small MCP client. This crate obtains and attaches the tokens, everything else is here.

use bearer_auth::{
    BearerAuthLayer, BoxError, ClientAuthentication, ClientCredentials, JwtBearer, PrivateKeyJwt,
    SecurityToken, TokenError, TokenSource,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, StatusCode, Url};
use reqwest_middleware::ClientWithMiddleware;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metadata::{Discovered, discover};

const PROTOCOL_VERSION: &str = "2025-11-25";

/// The credentials that the suite gives to its client.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) private_key_pem: Option<String>,
    #[serde(flatten)]
    pub(crate) login: Option<Login>,
}

/// A user who has logged in with the identity provider of an enterprise.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Login {
    idp_client_id: String,
    idp_id_token: String,
    idp_token_endpoint: String,
}

/// Initializes a session with an MCP server and returns the names of its tools.
pub(crate) async fn list_tools(
    server: &str,
    credentials: &Credentials,
) -> Result<Vec<String>, BoxError> {
    let server: Url = server.parse()?;
    let plain = loopback().build()?;
    // The answer to a request without a token tells where tokens come from.
    let request = plain.post(server.clone()).header(ACCEPT, BOTH_TYPES);
    let unauthorized = request.json(&initialize()).send().await?;
    if unauthorized.status() != StatusCode::UNAUTHORIZED {
        return Err(format!("expected a 401, got {}", unauthorized.status()).into());
    }
    let discovered = discover(&plain, &server, &unauthorized).await?;

    let layer = match &credentials.login {
        Some(login) => BearerAuthLayer::new(user_tokens(&discovered, credentials, login.clone())?),
        None => BearerAuthLayer::new(client_tokens(&discovered, credentials)?),
    };
    let client = reqwest_middleware::ClientBuilder::new(plain)
        .with(layer.allow_origin_of(&server)?)
        .build();

    let initialized = result(post(&client, &server, &initialize()).await?).await?;
    if initialized["protocolVersion"] != PROTOCOL_VERSION {
        return Err(format!("unexpected protocol: {initialized}").into());
    }
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    post(&client, &server, &notification).await?;
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    let list = result(post(&client, &server, &list).await?).await?;
    let tools = list["tools"].as_array().into_iter().flatten();
    let names = tools.filter_map(|tool| tool["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Returns the source of tokens of the client itself.
fn client_tokens(
    discovered: &Discovered,
    credentials: &Credentials,
) -> Result<impl TokenSource, BoxError> {
    let mut builder = ClientCredentials::builder(&discovered.token_endpoint)
        .client_id(&credentials.client_id)
        .param("resource", &discovered.resource)
        .reqwest_builder(loopback());
    if let Some(scope) = &discovered.scope {
        builder = builder.scope(scope);
    }
    let supports = |method| {
        let supported = &discovered.authentication_methods;
        supported.iter().any(|supported| supported == method)
    };
    builder = match (&credentials.private_key_pem, &credentials.client_secret) {
        (Some(pem), _) if supports("private_key_jwt") => builder
            .private_key_jwt(PrivateKeyJwt::from_pem(pem)?)
            .audience(&discovered.issuer),
        (_, Some(secret)) if supports("client_secret_basic") => builder
            .client_secret(secret)
            .client_authentication(ClientAuthentication::SecretBasic),
        _ => return Err("there are no credentials for this authorization server".into()),
    };
    Ok(builder.build()?)
}

/// Returns the source of the user's tokens: the identity provider exchanges the login for an
/// assertion, which the authorization server takes as a grant.
fn user_tokens(
    discovered: &Discovered,
    credentials: &Credentials,
    login: Login,
) -> Result<impl TokenSource, BoxError> {
    let secret = credentials.client_secret.as_ref();
    let (issuer, resource) = (discovered.issuer.clone(), discovered.resource.clone());
    let source = JwtBearer::builder(&discovered.token_endpoint)
        .client_id(&credentials.client_id)
        .client_secret(secret.ok_or("there is no secret")?)
        .client_authentication(ClientAuthentication::SecretBasic)
        .reqwest_builder(loopback())
        .assertion(move |_| {
            let (login, issuer, resource) = (login.clone(), issuer.clone(), resource.clone());
            async move {
                let assertion = exchange(&login, &issuer, &resource).await;
                let assertion = assertion.map_err(TokenError::transient)?;
                Ok(SecurityToken::jwt(assertion))
            }
        })
        .build()?;
    Ok(source)
}

/// Exchanges the user's id token for an assertion. This is not `TokenExchange`, which returns
/// access tokens: the type of an assertion is `N_A` (RFC 8693 §2.2.1).
async fn exchange(login: &Login, issuer: &str, resource: &str) -> Result<String, BoxError> {
    let form = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:id-jag",
        ),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:id_token",
        ),
        ("subject_token", &login.idp_id_token),
        ("client_id", &login.idp_client_id),
        ("audience", issuer),
        ("resource", resource),
    ];
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let request = loopback().build()?.post(&login.idp_token_endpoint);
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response = request.body(form).send().await?.error_for_status()?;
    let response: Value = response.json().await?;
    let assertion = response["access_token"].as_str();
    Ok(assertion.ok_or("there is no assertion")?.to_owned())
}

const BOTH_TYPES: &str = "application/json, text/event-stream";

fn initialize() -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": PROTOCOL_VERSION,
            "capabilities": {},
            "clientInfo": { "name": "bearer-auth-test", "version": "0.1.0" },
        },
    })
}

async fn post(
    client: &ClientWithMiddleware,
    server: &Url,
    message: &Value,
) -> Result<Response, BoxError> {
    let request = client
        .post(server.clone())
        .header(ACCEPT, BOTH_TYPES)
        .header(CONTENT_TYPE, "application/json")
        .header("MCP-Protocol-Version", PROTOCOL_VERSION);
    let response = request.body(message.to_string()).send().await?;
    Ok(response.error_for_status()?)
}

/// Returns the result in a response, which is JSON or a stream with one event.
async fn result(response: Response) -> Result<Value, BoxError> {
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_stream = content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    let body = response.text().await?;
    let message = if is_stream {
        let data = body.lines().find_map(|line| line.strip_prefix("data:"));
        data.ok_or("the stream has no event")?
    } else {
        &body
    };
    let mut message: Value = serde_json::from_str(message)?;
    match message.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(format!("there is no result: {message}").into()),
    }
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
fn loopback() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
