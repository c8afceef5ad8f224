//! The token is sent to allowed origins only.

use bearer_auth::{BoxError, MockAuthServer};
use http::StatusCode;

use crate::report::Report;
use crate::{layer, loopback_client};

pub(crate) async fn other_origin(report: &mut Report) -> Result<(), BoxError> {
    report.step("A pre-signed upload to another origin, through the same client");
    let server = MockAuthServer::start().await?;
    let storage = MockAuthServer::start().await?;
    let client = reqwest_middleware::ClientBuilder::new(loopback_client().build()?)
        .with(layer(&server)?)
        .build();

    let url = format!("{}/upload/report.csv", storage.origin());
    let upload = client.put(url).body("id,amount\n1,7\n").send().await?;
    report.check(
        "uploads that succeed (200)",
        1,
        usize::from(upload.status() == StatusCode::OK),
    );
    report.check("uploads with a token", 0, with_token(&storage));
    report.check("token requests", 0, server.token_requests());

    let response = client.get(server.api_url()).send().await?;
    report.check(
        "API requests that succeed (200)",
        1,
        usize::from(response.status() == StatusCode::OK),
    );
    report.check("API requests with a token", 1, with_token(&server));
    Ok(())
}

/// Returns the number of requests with a token that the server received.
fn with_token(server: &MockAuthServer) -> usize {
    let log = server.api_log();
    log.iter()
        .filter(|request| request.has_authorization())
        .count()
}
