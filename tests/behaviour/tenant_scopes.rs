//! Scopes that are made from a tenant id of a request.

use bearer_auth::{BearerAuthLayer, MockTokenSource, RequestAuth, TokenRequest};

use crate::support::api::{Api, ok};
use crate::support::stack::{Call, Kind, Stack};

fn for_tenant(id: &str) -> Result<RequestAuth, bearer_auth::InvalidSetting> {
    RequestAuth::single_scope(format!("tenant/{id}"))
}

#[test]
fn an_id_cannot_add_a_second_scope() {
    for id in [
        "1 tenant/2",
        "1\ttenant/2",
        "1\ntenant/2",
        " 1",
        "1 ",
        "1\u{a0}tenant/2",
        "1\"",
        "1\\",
        "ü",
        "1\0",
    ] {
        let error = for_tenant(id).unwrap_err();
        assert_eq!(error.setting(), "scope", "{id:?}");
        assert!(TokenRequest::single_scope(format!("tenant/{id}")).is_err());
        // The error shows nothing of what a user sent.
        assert!(!error.to_string().contains("tenant/"), "{error}");
    }
    for empty in ["", " "] {
        assert!(TokenRequest::single_scope(empty).is_err(), "{empty:?}");
        assert!(RequestAuth::single_scope(empty).is_err(), "{empty:?}");
    }
    // The list of names that `scope` makes of it.
    let two = TokenRequest::scope("tenant/1 tenant/2");
    assert_eq!(two, TokenRequest::scope("tenant/2 tenant/1"));
}

#[tokio::test]
async fn a_single_scope_chooses_the_same_token_as_the_scope() {
    for kind in Kind::WITH_EXTENSIONS {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        let stack = Stack::new(kind, &BearerAuthLayer::new(tokens.clone()));
        for auth in [
            for_tenant("42").unwrap(),
            RequestAuth::scope("tenant/42"),
            TokenRequest::single_scope("tenant/42").unwrap().into(),
        ] {
            stack
                .send(Call::get(api.url("/")).auth(auth))
                .await
                .unwrap();
        }
        let requests = tokens.requests();
        let scopes: Vec<_> = requests.iter().map(TokenRequest::scopes).collect();
        assert_eq!(scopes, [Some("tenant/42")], "{kind:?}");
    }
}
