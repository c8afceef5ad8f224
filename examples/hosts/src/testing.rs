//! The server that the recipes are tested against, and the rule for their size.

use bearer_auth::{BearerAuthLayer, ClientCredentials, MockAuthServer, TokenCache};

/// Starts a token endpoint and a protected API.
pub(crate) async fn server() -> MockAuthServer {
    MockAuthServer::start().await.unwrap()
}

pub(crate) fn credentials(server: &MockAuthServer) -> ClientCredentials {
    ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_builder(reqwest::Client::builder().no_proxy())
        .build()
        .unwrap()
}

pub(crate) fn cache(server: &MockAuthServer) -> TokenCache {
    TokenCache::new(credentials(server))
}

pub(crate) fn layer(server: &MockAuthServer) -> BearerAuthLayer {
    BearerAuthLayer::new(credentials(server))
        .allow_origin(server.origin())
        .unwrap()
}

/// Returns the status that the API answers to a request with this token.
pub(crate) async fn status_with(server: &MockAuthServer, token: &str) -> http::StatusCode {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(server.api_url()).bearer_auth(token);
    request.send().await.unwrap().status()
}

/// Asserts that the API saw one call with the first token, one that rejected it after it was
/// revoked, and one with the second token.
#[track_caller]
pub(crate) fn assert_healed(server: &MockAuthServer) {
    let log = server.api_log();
    let calls: Vec<_> = log
        .iter()
        .map(|call| (call.status().as_u16(), call.token_number()))
        .collect();
    assert_eq!(calls, [(200, Some(1)), (401, Some(1)), (200, Some(2))]);
    assert_eq!(server.tokens_issued(), 2);
}

/// Counts the lines in the bodies of functions, without comments and tests.
fn glue_lines(source: &str) -> usize {
    let mut lines = 0;
    let mut in_signature = false;
    let mut end_of_body = None;
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]") {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        match end_of_body {
            Some(end) if indent == end && code == "}" => end_of_body = None,
            Some(_) => lines += usize::from(!code.is_empty() && !code.starts_with("//")),
            None => {
                in_signature |= ["fn ", "pub fn ", "async fn ", "pub async fn "]
                    .iter()
                    .any(|start| code.starts_with(start));
                if in_signature && code.ends_with('{') {
                    end_of_body = Some(indent);
                }
                in_signature &= !code.ends_with(['{', ';']);
            }
        }
    }
    lines
}

#[test]
fn recipes_have_at_most_ten_lines() {
    for (recipe, source) in [
        ("iceberg", include_str!("iceberg.rs")),
        ("kafka", include_str!("kafka.rs")),
        ("kubernetes", include_str!("kubernetes.rs")),
        ("object_storage", include_str!("object_storage.rs")),
        ("telemetry", include_str!("telemetry.rs")),
    ] {
        let lines = glue_lines(source);
        assert!((1..=10).contains(&lines), "{recipe}.rs has {lines} lines");
    }
}
