//! The settings by which a client proves its identity: which exclude each other, and which are
//! required.

use bearer_auth::{
    ClientAuthentication, ClientCredentials, InvalidSetting, PrivateKeyJwt, SigningAlgorithm,
};

use crate::client_assertions::{ISSUER, MAC_SECRET, P256};

#[test]
fn two_proofs_of_identity_are_an_error_that_names_both() {
    let client = || ClientCredentials::builder("https://id.example.com/token").client_id("id");
    let key = || PrivateKeyJwt::from_pem(P256).unwrap();
    for (builder, names) in [
        (
            client().client_secret("s").private_key_jwt(key()),
            ["client_secret", "private_key_jwt"],
        ),
        (
            client().private_key_jwt(key()).client_secret("s"),
            ["client_secret", "private_key_jwt"],
        ),
        (
            client()
                .client_assertion_file("a")
                .client_assertion(PrivateKeyJwt::from_pem(P256).unwrap()),
            ["client_assertion_file", "client_assertion"],
        ),
        (
            client()
                .client_assertion_file("a")
                .client_authentication(ClientAuthentication::SecretBasic),
            ["client_authentication", "client_assertion_file"],
        ),
        (
            client()
                .private_key_jwt(key())
                .client_authentication(ClientAuthentication::SecretJwt),
            ["client_authentication", "private_key_jwt"],
        ),
        (
            client()
                .private_key_jwt(key())
                .audience(ISSUER)
                .token_url_as_audience(),
            ["audience", "token_url_as_audience"],
        ),
        (
            client().client_secret("s").audience(ISSUER),
            ["audience", "client_secret"],
        ),
    ] {
        let error = builder.build().unwrap_err().to_string();
        for name in names {
            assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
        }
    }
    let source = client().private_key_jwt(key()).private_key_jwt(key());
    assert!(source.audience(ISSUER).build().is_ok(), "one setter, twice");
}

#[test]
fn an_assertion_that_cannot_be_made_is_an_error_of_build() {
    let client = || ClientCredentials::builder("https://id.example.com/token").client_id("id");
    let key = || PrivateKeyJwt::from_pem(P256).unwrap();
    let jwt = |secret: &str| {
        client()
            .client_secret(secret)
            .client_authentication(ClientAuthentication::SecretJwt)
    };
    for (builder, setting) in [
        (client(), "client_secret"),
        (client().private_key_jwt(key()), "audience"),
        (jwt(MAC_SECRET), "audience"),
        (jwt(&MAC_SECRET[..31]).audience(ISSUER), "client_secret"),
        (client().private_key_jwt(key()).audience(""), "audience"),
        (client().private_key_jwt(key()).audience("a\n"), "audience"),
        (client().client_assertion_file(""), "client_assertion_file"),
        (
            client()
                .private_key_jwt(key().algorithm(SigningAlgorithm::Rs256))
                .audience(ISSUER),
            "private_key_jwt",
        ),
        (
            client().client_assertion_file("a").client_id(""),
            "client_id",
        ),
        (
            client()
                .client_assertion_file("a")
                .param("client_assertion", "x"),
            "param",
        ),
    ] {
        let error: InvalidSetting = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
}
