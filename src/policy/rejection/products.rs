//! The challenges of real products, as their documentation and their users show them.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{BearerChallenge, RejectionPolicy, says_invalid_token};

/// The effect of a 401 on the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// No request uses it again.
    Withdrawn,
    /// It is refreshed, and other requests use it until its successor arrives.
    Refreshed,
    /// Another token would not help.
    Kept,
}

use Effect::{Kept, Refreshed, Withdrawn};

const PRODUCTS: &[(&str, &[&str], Effect)] = &[
    (
        "Keycloak",
        &[r#"Bearer realm="demo", error="invalid_token", error_description="Token is not active""#],
        Withdrawn,
    ),
    (
        "Microsoft Entra, continuous access evaluation",
        &[
            r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#,
        ],
        Kept,
    ),
    (
        "Azure Resource Manager",
        &[
            r#"Bearer authorization_uri="https://login.windows.net/contoso", error="invalid_token", error_description="The access token has expired.""#,
        ],
        Withdrawn,
    ),
    (
        "Azure Key Vault",
        &[
            r#"Bearer authorization="https://login.windows.net/contoso", resource="https://vault.azure.net""#,
        ],
        Refreshed,
    ),
    (
        "SharePoint",
        &[
            r#"Bearer realm="contoso",client_id="00000003-0000-0ff1-ce00-000000000000",trusted_issuers="00000001-0000-0000-c000-000000000000@*,https://sts.windows.net/*/",authorization_uri="https://login.windows.net/common/oauth2/authorize""#,
            "NTLM",
        ],
        Refreshed,
    ),
    (
        "Exchange",
        &[
            r#"Bearer client_id="00000002-0000-0ff1-ce00-000000000000", trusted_issuers="00000001-0000-0000-c000-000000000000@*", token_types="app_asserted_user_v1 service_asserted_app_v1", error="invalid_token",Basic realm="mail.example.com""#,
        ],
        Withdrawn,
    ),
    (
        "Okta",
        &[
            r#"Bearer authorization_uri="http://example.okta.com/oauth2/v1/authorize", realm="http://example.okta.com", scope="okta.users.read", error="invalid_token", error_description="The access token expired", resource="/api/v1/users""#,
        ],
        Withdrawn,
    ),
    (
        "Auth0",
        &[
            r#"Bearer realm="api", error="invalid_token", error_description="\"exp\" claim timestamp check failed""#,
        ],
        Withdrawn,
    ),
    (
        "Amazon Cognito",
        &[
            r#"Bearer error="invalid_token", error_description="Access token is expired, disabled, or deleted, or the user has globally signed out.""#,
        ],
        Withdrawn,
    ),
    // No commas between the parameters.
    (
        "Amazon API Gateway",
        &[r#"Bearer scope="" error="invalid_token" error_description="the token has expired""#],
        Withdrawn,
    ),
    (
        "Kong",
        &[
            r#"Bearer realm="service" error="invalid_token" error_description="The access token is invalid or has expired""#,
        ],
        Withdrawn,
    ),
    (
        "Apigee",
        &[
            r#"Bearer realm="null",error="invalid_token",error_description="oauth.v2.InvalidAccessToken: Invalid access token""#,
        ],
        Withdrawn,
    ),
    (
        "Envoy and Istio",
        &[r#"Bearer realm="http://api.example.com/v1/items", error="invalid_token""#],
        Withdrawn,
    ),
    (
        "WSO2",
        &[
            r#"OAuth2 realm="WSO2 API Microgateway", error="invalid token" , error_description="The access token expired""#,
        ],
        Refreshed,
    ),
    (
        "Spring Security",
        &[
            r#"Bearer error="invalid_token", error_description="Jwt expired at 2026-11-01T00:00:00Z", error_uri="https://tools.ietf.org/html/rfc6750#section-3.1""#,
        ],
        Withdrawn,
    ),
    (
        "ASP.NET Core",
        &[
            r#"Bearer error="invalid_token", error_description="The token expired at '11/01/2026 00:00:00'""#,
        ],
        Withdrawn,
    ),
    ("ASP.NET Core without a token", &["Bearer"], Refreshed),
    (
        "Duende IdentityServer",
        &[
            r#"Bearer realm="IdentityServer",error="invalid_token",error_description="The access token expired""#,
        ],
        Withdrawn,
    ),
    (
        "Google",
        &[r#"Bearer realm="https://accounts.google.com/", error="invalid_token""#],
        Withdrawn,
    ),
    ("GitHub's API", &[], Refreshed),
    (
        "GitHub's container registry",
        &[
            r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
        ],
        Refreshed,
    ),
    (
        "Docker Hub",
        &[
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull",error="invalid_token""#,
        ],
        Withdrawn,
    ),
    (
        "Docker Hub, too narrow a scope",
        &[
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:push",error="insufficient_scope""#,
        ],
        Kept,
    ),
    (
        "GitLab",
        &[r#"Bearer realm="Protected by OAuth 2.0", error="invalid_token""#],
        Withdrawn,
    ),
    ("Salesforce", &["Token"], Refreshed),
    (
        "Salesforce, a session that has ended",
        &[r#"Bearer error="Session_Invalid""#],
        Refreshed,
    ),
    (
        "Atlassian",
        &[r#"OAuth realm="https%3A%2F%2Fexample.atlassian.net""#],
        Refreshed,
    ),
    (
        "ServiceNow",
        &[
            r#"BEARER realm="Service-now""#,
            r#"BASIC realm="Service-now""#,
        ],
        Refreshed,
    ),
    (
        "Pega",
        &[r#"null Bearer realm="api", error="invalid_token""#],
        Refreshed,
    ),
    (
        "Facebook",
        &[r#"OAuth "Facebook Platform" "invalid_token" "Error validating access token.""#],
        Refreshed,
    ),
    (
        "Spotify",
        &[
            r#"Bearer realm="spotify", error="invalid_token", error_description="The access token expired""#,
        ],
        Withdrawn,
    ),
    (
        "Box",
        &[
            r#"Bearer realm="Service", error="invalid_token", error_description="The access token provided is invalid.""#,
        ],
        Withdrawn,
    ),
];

#[test]
fn the_effect_of_the_challenges_of_real_products() {
    for (product, lines, expected) in PRODUCTS {
        let mut headers = HeaderMap::new();
        for line in *lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(line));
        }
        let status = StatusCode::UNAUTHORIZED;
        let is_rejected = BearerChallenge.rejects(status, &headers);
        let effect = match (is_rejected, says_invalid_token(status, &headers)) {
            (true, true) => Withdrawn,
            (true, false) => Refreshed,
            (false, _) => Kept,
        };
        assert_eq!(effect, *expected, "{product}");
    }
}
