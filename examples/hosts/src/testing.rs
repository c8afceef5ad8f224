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

/// Counts the statements in the bodies of functions, however rustfmt wraps them: lines outside of
/// round brackets, and lines in them that end with a semicolon. Tests are not counted.
fn statements(source: &str) -> usize {
    let mut statements = 0;
    let mut brackets = 0;
    let mut in_signature = false;
    let mut end_of_body = None;
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]") {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        match end_of_body {
            Some(end) if indent == end && code == "}" => end_of_body = None,
            Some(_) if code.starts_with("//") => {}
            Some(_) => {
                let begins = brackets == 0 && code.starts_with(char::is_alphanumeric);
                statements += usize::from(begins || brackets > 0 && code.ends_with(';'));
                brackets += code.matches('(').count();
                brackets -= code.matches(')').count();
            }
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
    statements
}

#[test]
fn recipes_have_at_most_ten_statements() {
    for (recipe, source) in [
        ("amqp", include_str!("amqp.rs")),
        ("iceberg", include_str!("iceberg.rs")),
        ("kafka", include_str!("kafka.rs")),
        ("kubernetes", include_str!("kubernetes.rs")),
        ("mcp", include_str!("mcp.rs")),
        ("object_storage", include_str!("object_storage.rs")),
        ("telemetry", include_str!("telemetry.rs")),
        ("token_grants", include_str!("token_grants.rs")),
    ] {
        let statements = statements(source);
        println!("{recipe}: {statements}");
        assert!(
            (1..=10).contains(&statements),
            "{recipe}.rs has {statements} statements"
        );
    }
}
