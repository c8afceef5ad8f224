//! Tests of valid input and of the accepted deviations from the grammar.

use super::*;

#[test]
fn a_challenge_is_a_scheme_and_parameters() {
    let challenges = parse_line(r#"BEARER Realm="example", error="invalid_token""#);
    let [challenge] = challenges.as_slice() else {
        panic!("expected one challenge: {challenges:?}");
    };
    assert_eq!(challenge.scheme(), "BEARER");
    assert!(challenge.is_bearer());
    assert_eq!(challenge.param("realm"), Some("example"));
    assert_eq!(challenge.param("ERROR"), Some("invalid_token"));
    assert_eq!(challenge.param("scope"), None);
}

#[test]
fn other_schemes_are_not_bearer() {
    for line in ["Basic", "BearerToken", "Bear", "DPoP"] {
        let challenges = parse_line(line);
        assert_eq!(challenges.len(), 1, "{line}");
        assert!(!challenges.iter().any(Challenge::is_bearer), "{line}");
    }
}

#[test]
fn a_scheme_needs_no_parameters() {
    assert_eq!(read("Bearer"), "Bearer");
    assert_eq!(read("Bearer,"), "Bearer");
    assert_eq!(read("  Bearer \t "), "Bearer");
    assert_eq!(
        read(r#"Basic realm="x", Bearer"#),
        r#"Basic realm="x"; Bearer"#
    );
    assert_eq!(read("Bearer, Basic"), "Bearer; Basic");
}

#[test]
fn a_line_can_contain_several_challenges() {
    assert_eq!(
        read(
            r#"Basic realm="a", charset="UTF-8", Bearer realm="b",error=invalid_token, Negotiate"#
        ),
        r#"Basic realm="a" charset="UTF-8"; Bearer realm="b" error="invalid_token"; Negotiate"#,
    );
}

#[test]
fn lines_are_independent_and_in_order() {
    let lines = [
        r#"Basic realm="open"#,
        r#"error="x""#,
        "",
        "Bearer",
        "error=y",
    ];
    assert_eq!(shown(&parse(lines.map(str::as_bytes))), "Basic; Bearer");
}

#[test]
fn empty_elements_are_skipped() {
    assert_eq!(read(""), "");
    assert_eq!(read(" ,\t, ,"), "");
    assert_eq!(
        read(",, Bearer ,, a=1 ,,b=2,, Basic,,"),
        r#"Bearer a="1" b="2"; Basic"#
    );
}

#[test]
fn a_comma_may_separate_a_scheme_from_its_parameters() {
    assert_eq!(
        read(r#"Bearer, error="invalid_token""#),
        r#"Bearer error="invalid_token""#,
    );
}

#[test]
fn parameters_before_any_scheme_are_dropped() {
    assert_eq!(read(r#"error="invalid_token""#), "");
    assert_eq!(read(r#"error="a, Bearer", Bearer"#), "Bearer");
    assert_eq!(read("Bearer=x"), "");
    assert_eq!(read("Basic =, Bearer"), "Bearer");
}

#[test]
fn a_parameter_without_a_value_is_a_challenge_or_dropped() {
    assert_eq!(
        read(r#"Bearer realm="x", flag"#),
        r#"Bearer realm="x"; flag"#
    );
    assert_eq!(
        read(r#"Bearer realm="x", a=, b= ,c=1"#),
        r#"Bearer realm="x" c="1""#
    );
}

#[test]
fn commas_between_parameters_may_be_missing() {
    assert_eq!(
        read(r#"Bearer scope="" error="insufficient_scope" error_description="not enough", Basic"#),
        r#"Bearer scope="" error="insufficient_scope" error_description="not enough"; Basic"#,
    );
    assert_eq!(read("Bearer a=1\tb=2"), r#"Bearer a="1" b="2""#);
}

#[test]
fn whitespace_includes_tabs_and_line_folds() {
    assert_eq!(
        read("Bearer\r\n\trealm \t=\r\n \"a\r\n b\"\t,\r\n error\t=\tinvalid_token\r\n"),
        "Bearer realm=\"a   b\" error=\"invalid_token\"",
    );
    assert_eq!(read("Bearer\u{b}, Basic"), "Basic");
}

#[test]
fn quoted_strings_are_unescaped() {
    assert_eq!(
        read(r#"Bearer a="say \"hi\", \\ \x""#),
        r#"Bearer a="say \"hi\", \\ x""#,
    );
    assert_eq!(read(r#"Bearer a="", b=c"#), r#"Bearer a="" b="c""#);
}

#[test]
fn quoted_text_is_never_a_challenge() {
    for line in [
        r#"Basic realm="Bearer error=invalid_token""#,
        r#"Basic realm="x, Bearer error=invalid_token""#,
        r#"Basic realm="\", Bearer error=invalid_token""#,
        r#"Basic realm="\\\", Bearer error=invalid_token, \"""#,
        r#"Basic realm = "x, Bearer error=invalid_token, "#,
        r#"Basic "x, Bearer error=invalid_token""#,
        r#"Basic x=y="z, Bearer error=invalid_token""#,
        r#"Basic "a"="z, Bearer error=invalid_token""#,
        r#"Basic ?, "x, Bearer error=invalid_token""#,
    ] {
        let challenges = parse_line(line);
        let [basic] = challenges.as_slice() else {
            panic!("{line}: {challenges:?}");
        };
        assert_eq!(basic.scheme(), "Basic", "{line}");
    }
    assert_eq!(read(r#""x, Bearer error=invalid_token""#), "");
}

#[test]
fn unquoted_values_end_at_whitespace_or_a_comma() {
    assert_eq!(
        read(r"Bearer a=user@example.com, b=https://x.example/?q=1;r, c=\f, d=1/2=="),
        r#"Bearer a="user@example.com" b="https://x.example/?q=1;r" c="\\f" d="1/2==""#,
    );
    assert_eq!(
        read("Bearer realm=My House, error=x"),
        r#"Bearer realm="My" error="x""#
    );
    assert_eq!(read("Bearer realm==x, error=y"), r#"Bearer error="y""#);
}

#[test]
fn single_quotes_around_an_unquoted_value_are_removed() {
    assert_eq!(
        read("Bearer error='invalid_token', a='', b=', c='x, d=it's"),
        r#"Bearer error="invalid_token" a="" b="'" c="'x" d="it's""#,
    );
    assert_eq!(read(r#"Bearer a="'x'""#), r#"Bearer a="'x'""#);
}

#[test]
fn invalid_utf_8_is_replaced() {
    let line = b"Bearer a=\"f\xe4\", b=\"\xc3\xa4\", c=\xff";
    assert_eq!(
        shown(&parse([line.as_slice()])),
        "Bearer a=\"f\u{fffd}\" b=\"\u{e4}\" c=\"\u{fffd}\"",
    );
    assert_eq!(shown(&parse([b"B\xe4sic, Bearer".as_slice()])), "Bearer");
}

#[test]
fn a_token68_is_alone_after_its_scheme() {
    let challenges = parse_line("Negotiate YII/w-._~+==");
    assert_eq!(challenges[0].token68.as_deref(), Some("YII/w-._~+=="));
    assert_eq!(read("Negotiate abc== , Bearer"), "Negotiate abc==; Bearer");
    assert_eq!(read("Bearer error="), "Bearer error=");
    assert_eq!(read("Bearer error= , a=1"), r#"Bearer error= a="1""#);
    assert_eq!(read(r#"Bearer realm= "x""#), r#"Bearer realm="x""#);
    assert_eq!(read("Negotiate a==b, Bearer"), "Negotiate; Bearer");
    assert_eq!(read("Negotiate abc== ?, Bearer"), "Negotiate; Bearer");
    assert_eq!(read("Negotiate, abc==, Bearer"), "Negotiate; Bearer");
}

#[test]
fn all_duplicates_are_kept() {
    let challenges = parse_line(r#"Bearer error="invalid_request", Error=invalid_token"#);
    assert_eq!(challenges[0].param("error"), Some("invalid_request"));
    let values: Vec<_> = challenges[0].values("error").collect();
    assert_eq!(values, ["invalid_request", "invalid_token"]);
}
