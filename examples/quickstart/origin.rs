//! The token goes to the origins that were allowed, and nowhere else.

use bearer_auth::{BoxError, MockAuthServer};
use http::StatusCode;

use crate::report::Report;
use crate::{layer, loopback_client};

pub(crate) async fn another(report: &mut Report) -> Result<(), BoxError> {
    report.step("A pre-signed upload to another origin, by the same client");
    let server = MockAuthServer::start().await?;
    let storage = MockAuthServer::start().await?;
    let client = reqwest_middleware::ClientBuilder::new(loopback_client().build()?)
        .with(layer(&server)?)
        .build();

    let url = format!("{}/upload/report.csv", storage.origin());
    let upload = client.put(url).body("id,amount\n1,7\n").send().await?;
    report.check(
        "upload answered 200",
        1,
        usize::from(upload.status() == StatusCode::OK),
    );
    report.check("uploads with a token", 0, with_token(&storage));
    report.check("token requests for it", 0, server.token_requests());

    let answer = client.get(server.api_url()).send().await?;
    report.check(
        "API answered 200",
        1,
        usize::from(answer.status() == StatusCode::OK),
    );
    report.check("API requests with a token", 1, with_token(&server));
    Ok(())
}

/// By the server's own record.
fn with_token(server: &MockAuthServer) -> usize {
    let log = server.api_log();
    log.iter()
        .filter(|request| request.has_authorization())
        .count()
}
