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
fn empty_token_is_transient_and_any_other_invalid_token_permanent() {
    let empty = TokenError::from(InvalidToken::empty());
    let invalid = TokenError::from(InvalidToken::at(0));
    assert_eq!(empty.kind(), TokenErrorKind::InvalidToken);
    assert_eq!(invalid.kind(), TokenErrorKind::InvalidToken);
    assert!(empty.is_transient() && !invalid.is_transient());
}
