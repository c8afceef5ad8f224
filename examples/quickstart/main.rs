//! A demonstration of the crate, which compares each number with the expected one.
//!
//! ```text
//! cargo run --example quickstart             with a mock server on loopback, about 20 s
//! cargo run --example quickstart -- --help   prints the settings for your own service
//! ```
//!
//! - [`cold_start`]: 1,000 concurrent requests and one token request
//! - [`load`]: refresh and revocation under load
//! - [`origin`]: no token for another origin
//! - [`service`]: a few requests to your own service

use std::env;
use std::error::Error;
use std::process::ExitCode;

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer};

use self::report::Report;
use self::service::Service;

mod cold_start;
mod load;
mod origin;
mod report;
mod service;

const HELP: &str = "\
Demonstrates bearer-auth step by step and compares each number with the expected one.

    cargo run --example quickstart

Without settings it uses a mock server on loopback. With the environment variables below it
sends a few requests to your own service. It never prints a token or a secret.

    TOKEN_URL              token endpoint, such as https://identity.example.com/connect/token
    CLIENT_ID              client id
    CLIENT_SECRET          client secret
    API_URL                what to GET with the token, such as https://api.example.com/v1/ping
    SCOPE                  scope to request, such as tenant/4f1c2d3e; default: none
    CLIENT_AUTHENTICATION  post (id and secret in the form), basic (HTTP Basic, form-encoded) or
                           basic-raw (HTTP Basic without form encoding); default: post

Exit status: 0 if all checks pass, 1 if one fails, 2 if the arguments or variables are invalid.
";

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(argument) = env::args_os().nth(1) {
        if argument == "--help" || argument == "-h" {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        eprintln!("unknown argument `{}`; see --help", argument.display());
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
    println!("Using a mock token endpoint and API on loopback.");
    println!("To use your own service, see --help.");
    cold_start::reqwest_middleware(report).await?;
    cold_start::tower_over_hyper(report).await?;
    cold_start::tower_over_reqwest(report).await?;
    load::refresh(report).await?;
    load::revocation(report).await?;
    origin::other_origin(report).await
}

/// Returns the layer that all steps on loopback use.
fn layer(server: &MockAuthServer) -> Result<BearerAuthLayer, BoxError> {
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_builder(loopback_client())
        .build()?;
    Ok(BearerAuthLayer::new(source).allow_origin(server.origin())?)
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
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
