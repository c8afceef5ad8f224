//! Tests of malformed and excessive input.

use super::*;
use crate::policy::challenge::{MAX_CHALLENGES, MAX_PARAMS};

#[test]
fn an_unterminated_quoted_string_drops_only_its_parameter() {
    assert_eq!(
        read(r#"Bearer error="invalid_token", error_description="it exp"#),
        r#"Bearer error="invalid_token""#,
    );
    assert_eq!(
        read(r#"Bearer realm="a", error="inv"#),
        r#"Bearer realm="a""#
    );
    assert_eq!(read(r#"Bearer realm="a\"#), "Bearer");
    assert_eq!(read(r#"Bearer realm="a\""#), "Bearer");
    assert_eq!(read(r#"Basic, Bearer a=1 b=""#), r#"Basic; Bearer a="1""#);
}

#[test]
fn characters_after_a_quoted_string_drop_only_its_parameter() {
    assert_eq!(read(r#"Bearer a="b"c, d="e""#), r#"Bearer d="e""#);
    assert_eq!(read(r#"Bearer a="b";c="d", e=f"#), r#"Bearer e="f""#);
    // After a missing quote, the value extends into the next parameter.
    assert_eq!(
        read(r#"Bearer error="invalid_token, error_description="expired""#),
        "Bearer",
    );
}

#[test]
fn a_bearer_challenge_is_found_next_to_malformed_ones() {
    let bearer = r#"Bearer error="invalid_token""#;
    for malformed in [
        "?",
        "@Basic realm=\"x\"",
        "Basic ???",
        "Basic realm",
        "Basic realm=",
        "Basic realm==",
        "Basic =x",
        "= =",
        r#"Basic realm="a"b"#,
        r#"Basic realm="my"house""#,
        r#"Basic realm="a"""#,
        r#"Basic realm=""a"""#,
        r#"Basic realm=""""#,
        r#"Basic realm="5" disk""#,
        r#"Basic realm=my"house"#,
        r#"Basic realm"x""#,
        r#"Basic "quoted, text" "and, more""#,
        r#"Basic realm="\\""#,
        "Basic realm=\\\"x",
        "NTLM a==b",
        "\u{0}\u{7f}\u{e4}",
        "Basic realm='x, y'",
    ] {
        for line in [
            format!("{malformed}, {bearer}"),
            format!("{bearer}, {malformed}"),
            format!("{malformed},{bearer},{malformed}"),
        ] {
            let found = parse_line(&line)
                .iter()
                .any(|one| one.is_bearer() && one.param("error") == Some("invalid_token"));
            assert!(found, "{line}: {}", read(&line));
        }
    }
}

#[test]
fn parameters_after_unreadable_elements_are_kept() {
    assert_eq!(
        read(r#"Bearer ???, error="invalid_token""#),
        r#"Bearer error="invalid_token""#,
    );
}

#[test]
fn challenges_beyond_the_limit_are_ignored() {
    let line = vec!["Basic"; MAX_CHALLENGES - 1].join(",");
    let lines = [line.as_str(), "Bearer a=1,Bearer b=2, c=3", "Bearer"];
    let challenges = parse(lines.map(str::as_bytes));
    assert_eq!(challenges.len(), MAX_CHALLENGES);
    assert_eq!(shown(&challenges[MAX_CHALLENGES - 1..]), r#"Bearer a="1""#);
}

#[test]
fn parameters_beyond_the_limit_are_ignored() {
    let params: Vec<_> = (0..=MAX_PARAMS).map(|n| format!("p{n}={n}")).collect();
    let line = format!("Bearer {}, Basic a=1", params.join(", "));
    let challenges = parse_line(&line);
    assert_eq!(challenges.len(), 2);
    assert_eq!(challenges[0].params.len(), MAX_PARAMS);
    assert_eq!(challenges[0].param("p63"), Some("63"));
    assert_eq!(challenges[0].param("p64"), None);
    assert_eq!(challenges[1].param("a"), Some("1"));
}

/// In quadratic time, each of these lines would take minutes.
#[test]
fn long_hostile_lines_take_linear_time() {
    for unit in [
        ",",
        " ",
        "a",
        "=",
        "\"",
        "\\",
        "'",
        "a ",
        "a=",
        "a =",
        "a, ",
        "a=\"",
        "a=\"\\",
        "\"\"",
        "?a=\"b\"c ",
        "a=b ",
        "x a=b, ",
    ] {
        let line = format!("Basic {}", unit.repeat((1 << 18) / unit.len()));
        assert!(parse_line(&line).len() <= MAX_CHALLENGES, "{unit}");
    }
}
