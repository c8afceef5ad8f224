//! The metadata of an MCP server (RFC 9728) and of its authorization server (RFC 8414).

use std::time::Duration;

use bearer_auth::BoxError;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The settings of a token request for an MCP server.
#[derive(Debug)]
pub(crate) struct Discovered {
    pub(crate) resource: String,
    pub(crate) scope: Option<String>,
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
    pub(crate) authentication_methods: Vec<String>,
}

/// RFC 9728 §2.
#[derive(Deserialize)]
struct ProtectedResource {
    resource: String,
    authorization_servers: Vec<String>,
    scopes_supported: Option<Vec<String>>,
}

/// RFC 8414 §2.
#[derive(Deserialize)]
struct AuthorizationServer {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// Follows the challenge of an MCP server to the token endpoint.
///
/// The MCP server chooses the authorization server here, as the test suite has it. With a client
/// secret, compare the issuer with the one that issued the secret, or any MCP server can ask for
/// it.
pub(crate) async fn discover(
    client: &reqwest::Client,
    server: &Url,
    unauthorized: &Response,
) -> Result<Discovered, BoxError> {
    let challenge = unauthorized.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.ok_or("the 401 has no challenge")?.to_str()?;
    let locations = match parameter(challenge, "resource_metadata") {
        Some(location) => vec![location.parse()?],
        None => well_known(server, &["oauth-protected-resource"])?,
    };
    let resource: ProtectedResource = first(client, &locations).await?;
    // RFC 9728 §3.3: else the token would be one for another server.
    if resource.resource != server.as_str() {
        return Err(format!("{server} has the metadata of {}", resource.resource).into());
    }
    let issuer = resource.authorization_servers.into_iter().next();
    let issuer = issuer.ok_or("the server names no authorization server")?;

    let names = ["oauth-authorization-server", "openid-configuration"];
    let locations = well_known(&issuer.parse()?, &names)?;
    let metadata: AuthorizationServer = first(client, &locations).await?;
    // RFC 8414 §3.3.
    if metadata.issuer != issuer {
        return Err(format!("{issuer} has the metadata of {}", metadata.issuer).into());
    }
    let supported = || Some(resource.scopes_supported?.join(" "));
    Ok(Discovered {
        resource: resource.resource,
        scope: parameter(challenge, "scope")
            .map(str::to_owned)
            .or_else(supported),
        issuer,
        token_endpoint: metadata.token_endpoint,
        authentication_methods: metadata.token_endpoint_auth_methods_supported,
    })
}

/// Returns the value of a quoted parameter of a challenge.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Returns the well-known URLs for a URL: before its path first, then without the path.
fn well_known(url: &Url, names: &[&str]) -> Result<Vec<Url>, BoxError> {
    let path = url.path().trim_end_matches('/');
    let mut locations = Vec::new();
    for path in [path, ""] {
        for name in names {
            locations.push(url.join(&format!("/.well-known/{name}{path}"))?);
        }
    }
    locations.dedup();
    Ok(locations)
}

/// Returns the first document that exists.
async fn first<T: DeserializeOwned>(
    client: &reqwest::Client,
    locations: &[Url],
) -> Result<T, BoxError> {
    for location in locations {
        let request = client.get(location.clone()).timeout(Duration::from_secs(5));
        let response = request.send().await?;
        if response.status() != StatusCode::NOT_FOUND {
            return Ok(response.error_for_status()?.json().await?);
        }
    }
    Err("there is no metadata".into())
}
