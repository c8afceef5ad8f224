use std::fmt;
use std::io;

use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn timeout_names_the_limit() {
    for (limit, text) in [
        (millis(30_000), "30 s"),
        (millis(300), "300 ms"),
        (millis(1_500), "1500 ms"),
        (Duration::from_nanos(1), "1 ms"),
    ] {
        assert_eq!(
            TokenError::timeout(limit).to_string(),
            format!(
                "the token endpoint did not answer within {text}: check that it is reachable, or \
                 raise `fetch_timeout`"
            )
        );
    }
    assert_eq!(
        TokenError::wait_timeout(millis(300)).to_string(),
        "the fetch was still in progress after 300 ms: check that the token endpoint is reachable, \
         or raise `wait_timeout`"
    );
    let queued = TokenError::queue_timeout(millis(300));
    assert_eq!(
        queued.clone().with_unsent().to_string(),
        "the fetch was still queued after 300 ms: raise `max_concurrent_fetches`, or wait until \
         fewer are in progress"
    );
    assert_eq!(
        queued.to_string(),
        "the fetch was queued for most of 300 ms: raise `max_concurrent_fetches`, or wait until \
         fewer are in progress"
    );
    let without_limit = TokenError::new(TokenErrorKind::Timeout, true).to_string();
    assert!(without_limit.contains("did not answer in time"));
}

#[test]
fn text_has_no_changing_figures() {
    let error = TokenError::transient("down");
    let text = error.to_string();
    let paused = |wait| error.clone().with_retry_after(wait).to_string();
    assert_eq!(
        paused(millis(1)),
        format!("{text}; it may be retried after a pause, see `retry_after`")
    );
    assert_eq!(paused(millis(1)), paused(millis(60_000)));
    assert_eq!(
        paused(Duration::ZERO),
        format!("{text}; it may be retried now")
    );
}

#[test]
fn a_permanent_error_does_not_invite_to_retry() {
    let error = TokenError::builder(TokenErrorKind::InvalidClient).build();
    let text = error.to_string();
    let paused = |wait| error.clone().with_retry_after(wait).to_string();
    assert_eq!(
        paused(millis(1)),
        format!(
            "{text}; a retry fails until the cause is fixed, and the source is called again only \
             after a pause, see `retry_after`"
        )
    );
    assert_eq!(
        paused(Duration::ZERO),
        format!("{text}; a retry fails until the cause is fixed")
    );
}

#[test]
fn debug_shows_the_figures() {
    let error = TokenError::timeout(millis(30_000)).with_retry_after(millis(1_234));
    let shown = format!("{error:?}");
    assert!(shown.contains("30s") && shown.contains("1.234s"), "{shown}");
}

#[test]
fn cause_is_shown_once() {
    let setting = InvalidSetting::new("scope", "must be sorted");
    let error = TokenError::from(setting.clone());
    assert_eq!(
        error.to_string(),
        "invalid setting or request parameter: `scope` must be sorted"
    );
    assert!(error.source().is_none());
    assert!(format!("{error:?}").contains(&format!("{setting:?}")));

    let token = InvalidToken::at(7);
    let error = TokenError::from(token.clone());
    assert_eq!(error.to_string(), token.to_string());
    assert!(error.source().is_none());

    let error = TokenError::permanent("no such file");
    assert!(!error.to_string().contains("no such file"));
    assert_eq!(error.source().unwrap().to_string(), "no such file");
}

#[test]
fn details_can_be_added_to_an_error_that_was_cloned() {
    let first = TokenError::transient("down");
    let request = TokenRequest::scope("tenant/1");
    let second = first.clone().with_token_request(&request);
    assert_eq!(second.token_request(), Some(&request));
    assert_eq!(second.source().unwrap().to_string(), "down");
    assert_eq!(first.token_request(), None);
}

#[test]
fn request_and_endpoint_are_not_in_the_text() {
    let error = TokenError::transient("down");
    let text = error.to_string();
    let error = error
        .with_token_request(&TokenRequest::scope("tenant/1"))
        .edit(|details| details.token_endpoint = Some("identity.example.com".into()));
    assert_eq!(error.to_string(), text);
    assert_eq!(error.token_endpoint(), Some("identity.example.com"));
    let shown = format!("{error:?}");
    assert!(shown.contains("tenant/1") && shown.contains("identity.example.com"));
}

#[test]
fn pause_is_marked() {
    let error = TokenError::transient("down");
    assert!(!error.clone().with_retry_after(millis(1)).is_paused());
    let paused = error.clone().paused(millis(1));
    assert!(paused.is_paused() && paused.clone().is_paused() && !error.is_paused());
    assert_eq!(paused.retry_after(), Some(millis(1)));
}

#[test]
fn builder_sets_all_details() {
    let error = TokenError::builder(TokenErrorKind::Throttled)
        .status(429)
        .oauth_error("slow_down")
        .error_description("in words")
        .retry_after(millis(20_000))
        .transient(false)
        .cause("a cause")
        .build();
    assert_eq!(error.kind(), TokenErrorKind::Throttled);
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(error.oauth_error(), Some("slow_down"));
    assert_eq!(error.error_description(), Some("in words"));
    assert_eq!(error.retry_after(), Some(millis(20_000)));
    assert!(!error.is_transient() && !error.is_paused() && !error.is_final());
    assert_eq!(error.source().unwrap().to_string(), "a cause");
    assert!(!format!("{error} {error:?}").contains("in words"));
}

#[test]
fn builder_drops_what_is_no_status_and_no_safe_code() {
    for status in [0, 99, 1_000, u16::MAX] {
        let error = TokenError::builder(TokenErrorKind::Refused).status(401);
        assert_eq!(error.status(status).build().status(), None, "{status}");
    }
    for code in ["", "a b", "a\nb", &"x".repeat(65)] {
        let error = TokenError::builder(TokenErrorKind::Refused).oauth_error("x");
        assert_eq!(error.oauth_error(code).build().oauth_error(), None);
    }
}

#[test]
fn the_names_of_kinds_are_those_of_the_variants_in_snake_case() {
    use TokenErrorKind::*;

    let kinds = [
        Connection,
        Timeout,
        Throttled,
        Unavailable,
        InvalidResponse,
        InvalidClient,
        InvalidScope,
        Refused,
        Redirected,
        Discovery,
        Source,
        SourcePanicked,
        InvalidToken,
        InvalidSetting,
        NoRuntime,
        Closed,
        FetchCycle,
        CredentialFile,
        LoginRequired,
        RequestAuthMissing,
    ];
    for kind in kinds {
        let mut name = String::new();
        for letter in format!("{kind:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        assert_eq!(kind.as_str(), name);
    }
}

#[test]
fn builder_knows_which_kinds_are_transient() {
    use TokenErrorKind::*;

    for (kind, transient) in [
        (Connection, true),
        (Timeout, true),
        (Throttled, true),
        (Unavailable, true),
        (InvalidResponse, true),
        (InvalidClient, false),
        (InvalidScope, false),
        (Refused, false),
        (Redirected, false),
        (Discovery, false),
        (Source, true),
        (SourcePanicked, true),
        (InvalidToken, false),
        (InvalidSetting, false),
        (NoRuntime, false),
        (CredentialFile, true),
        (LoginRequired, false),
        (RequestAuthMissing, false),
    ] {
        let error = TokenError::builder(kind).build();
        assert_eq!(error.is_transient(), transient, "{kind:?}");
    }
}

#[test]
fn cause_of_another_type_is_not_in_the_text() {
    for kind in [TokenErrorKind::InvalidToken, TokenErrorKind::InvalidSetting] {
        let error = TokenError::builder(kind).cause("hush-hush").build();
        assert!(!error.to_string().contains("hush-hush"));
        assert_eq!(error.source().unwrap().to_string(), "hush-hush");
    }
}

/// Has a text of its own, and returns what it wraps as its cause.
#[derive(Debug)]
struct Wrapper(BoxError);

impl fmt::Display for Wrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a wrapper")
    }
}

impl Error for Wrapper {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn find_looks_through_wrappers() {
    let error = || TokenError::timeout(millis(1_234));
    let shared: Arc<dyn Error + Send + Sync> = Arc::new(error());
    let wrapped: [BoxError; 8] = [
        error().into(),
        Box::new(Box::new(error())),
        Box::new(Arc::new(error())),
        Box::new(shared),
        Box::new(Wrapper(error().into())),
        Box::new(Wrapper(Box::new(Wrapper(error().into())))),
        Box::new(io::Error::other(error())),
        Box::new(Wrapper(Box::new(io::Error::other(Wrapper(error().into()))))),
    ];
    for wrapped in &wrapped {
        let found = TokenError::find(&**wrapped);
        let found = found.unwrap_or_else(|| panic!("not found in {wrapped:?}"));
        assert_eq!(found.to_string(), error().to_string());
    }
}

#[test]
fn find_returns_the_outermost_error_or_none() {
    let outer = TokenError::permanent(TokenError::timeout(millis(1)));
    assert_eq!(
        TokenError::find(&outer).map(TokenError::kind),
        Some(TokenErrorKind::Source)
    );
    for other in [
        BoxError::from("x"),
        io::Error::other("x").into(),
        Box::new(io::Error::from(io::ErrorKind::NotFound)),
        Box::new(Wrapper("x".into())),
        Box::new(InvalidToken::at(7)),
    ] {
        assert!(TokenError::find(&*other).is_none(), "{other:?}");
    }
}

#[test]
fn empty_token_is_transient_and_any_other_invalid_token_permanent() {
    let empty = TokenError::from(InvalidToken::empty());
    let invalid = TokenError::from(InvalidToken::at(0));
    assert_eq!(empty.kind(), TokenErrorKind::InvalidToken);
    assert_eq!(invalid.kind(), TokenErrorKind::InvalidToken);
    assert!(empty.is_transient() && !invalid.is_transient());
}
