//! The token endpoint by the server's own metadata, `/.well-known/openid-configuration`.

use bearer_auth::{ClientCredentials, PrivateKeyJwt, TokenCache, TokenErrorKind};

use crate::server::{Counters, Server};
use crate::support::stack::{Kind, Stack};
use crate::{ONE_OF_EACH, accepted, layer};

#[tokio::test]
async fn the_metadata_names_the_token_endpoint_and_the_audience() {
    let Some(server) = Server::start().await else {
        return;
    };
    let key = PrivateKeyJwt::from_pem(&server.keys["p256"]).unwrap();
    let client = |id: &str| ClientCredentials::discover(&server.issuer).client_id(id);
    for (id, source) in [
        (
            "post-client",
            client("post-client").client_secret("post-secret"),
        ),
        // The audience of its assertion is the issuer.
        (
            "es256-client",
            client("es256-client").private_key_jwt(key.key_id("p256")),
        ),
    ] {
        server.reset_counters().await;
        let stack = Stack::new(Kind::ALL[0], &layer(&server, source));
        let report = accepted(stack.get(server.url("/")).await);
        assert_eq!(report["client"], id);
        // The metadata has an endpoint for clients with a certificate, which these don't use.
        let counters = server.counters().await;
        assert_eq!(
            counters,
            Counters {
                token_requests_tls: 0,
                ..ONE_OF_EACH
            }
        );
    }
}

#[tokio::test]
async fn metadata_of_an_issuer_with_another_name_gets_no_credentials() {
    let Some(server) = Server::start().await else {
        return;
    };
    for issuer in [
        format!("{}/", server.issuer),
        server.issuer.replace("127.0.0.1", "localhost"),
    ] {
        let source = ClientCredentials::discover(&issuer)
            .client_id("post-client")
            .client_secret("post-secret")
            .build();
        let error = TokenCache::new(source.unwrap()).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Discovery, "{issuer}");
        assert!(!error.is_transient(), "{issuer}");
    }
    assert_eq!(server.counters().await.token_requests, 0);
}
