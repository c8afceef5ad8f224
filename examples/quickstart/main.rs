//! What the crate does, step by step, in numbers to check.
//!
//! ```text
//! cargo run --example quickstart             against a mock server on loopback, about 20 s
//! cargo run --example quickstart -- --help   how to run it against a service of yours
//! ```
//!
//! - [`cold`]: a thousand requests at once, one token request
//! - [`load`]: renewal and revocation while requests go on
//! - [`origin`]: where no token goes
//! - [`service`]: a few requests to a service of yours

use std::env;
use std::error::Error;
use std::process::ExitCode;

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer};

use self::report::Report;
use self::service::Service;

mod cold;
mod load;
mod origin;
mod report;
mod service;

const HELP: &str = "\
Shows what bearer-auth does, step by step, in numbers to check.

    cargo run --example quickstart

With nothing configured it runs against a mock server on loopback. With the variables
below it sends a few requests to a service of yours. It prints neither token nor secret.

    TOKEN_URL              the token endpoint, such as https://identity.example.com/connect/token
    CLIENT_ID              the client's id
    CLIENT_SECRET          the client's secret
    API_URL                what to GET with the token, such as https://api.example.com/v1/ping
    SCOPE                  the scope to ask for, such as tenant/4f1c2d3e; default: none
    CLIENT_AUTHENTICATION  post (id and secret in the form), basic (HTTP Basic, form-encoded first)
                           or basic-raw (HTTP Basic as they are); default: post

Exit status: 0 if every number is as it says, 1 if not, 2 if arguments or variables are wrong.
";

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(argument) = env::args_os().nth(1) {
        if argument == "--help" || argument == "-h" {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        eprintln!("unknown argument `{}`, see --help", argument.display());
        return ExitCode::from(2);
    }
    let service = match Service::from_env() {
        Ok(service) => service,
        Err(error) => {
            eprintln!("{}\nsee --help", with_causes(&*error));
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    let outcome = match service {
        Some(service) => service.try_out(&mut report).await,
        None => on_loopback(&mut report).await,
    };
    match outcome {
        Ok(()) => report.finish(),
        Err(error) => {
            eprintln!("\nFAILED: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn on_loopback(report: &mut Report) -> Result<(), BoxError> {
    println!("A mock token endpoint and API on loopback.");
    println!("For a service of yours, see --help.");
    cold::reqwest_middleware(report).await?;
    cold::tower_over_hyper(report).await?;
    cold::tower_over_reqwest(report).await?;
    load::short_lived(report).await?;
    load::revoked(report).await?;
    origin::another(report).await
}

/// The layer as all steps on loopback use it.
fn layer(server: &MockAuthServer) -> Result<BearerAuthLayer, BoxError> {
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_builder(loopback_client())
        .build()?;
    Ok(BearerAuthLayer::new(source).allow_origin(server.origin())?)
}

/// A proxy that the environment names can't reach a server on this machine's loopback.
fn loopback_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
