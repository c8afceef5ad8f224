//! Makes JSON of what servers send in its place, so that one bad value does not hide the others.

use std::iter::Peekable;

use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// Replaces what no token and no error code can contain, so that a token with it stays invalid.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Returns the body as JSON that means the same, without a byte order mark.
///
/// Bytes that are not UTF-8, control characters in strings, and escapes that are none or only half
/// of a surrogate pair become U+FFFD. A value that is neither a JSON number nor another JSON
/// literal, such as `NaN`, becomes `null`. The structure is not changed: a body that is cut off
/// stays invalid.
pub(super) fn repaired(body: &[u8]) -> Zeroizing<String> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // Reserved, so that growing leaves no copy of a token in memory.
    let mut json = Zeroizing::new(String::with_capacity(body.len()));
    let mut chars = chars(body).peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => string(&mut chars, &mut json),
            char if is_structure(char) => json.push(char),
            char => literal(char, &mut chars, &mut json),
        }
    }
    json
}

/// Returns the characters of a text in UTF-8, with one replacement for each invalid sequence.
fn chars(body: &[u8]) -> impl Iterator<Item = char> + Clone {
    body.utf8_chunks().flat_map(|chunk| {
        let invalid = (!chunk.invalid().is_empty()).then_some(REPLACEMENT);
        chunk.valid().chars().chain(invalid)
    })
}

fn is_structure(char: char) -> bool {
    matches!(
        char,
        '{' | '}' | '[' | ']' | ':' | ',' | ' ' | '\t' | '\r' | '\n'
    )
}

/// Copies a string up to its closing quote; the opening one has been read.
fn string(chars: &mut (impl Iterator<Item = char> + Clone), json: &mut String) {
    json.push('"');
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                json.push('"');
                return;
            }
            '\\' => escape(chars, json),
            '\0'..='\x1f' => json.push(REPLACEMENT),
            char => json.push(char),
        }
    }
}

/// Copies an escape; its backslash has been read.
fn escape(chars: &mut (impl Iterator<Item = char> + Clone), json: &mut String) {
    match chars.next() {
        Some(char @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            json.push('\\');
            json.push(char);
        }
        Some('u') => match escaped_char(chars) {
            Some(char) if char.is_control() || matches!(char, '"' | '\\') => {
                json.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            Some(char) => json.push(char),
            None => json.push(REPLACEMENT),
        },
        Some(_) => json.push(REPLACEMENT),
        None => {}
    }
}

/// Reads the digits of a `\u` escape, and the second escape of a surrogate pair. Reads nothing if
/// they are invalid, and one escape if it is half of a pair.
fn escaped_char(chars: &mut (impl Iterator<Item = char> + Clone)) -> Option<char> {
    let first = code_unit(chars)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first.into());
    }
    let mut ahead = chars.clone();
    if (ahead.next(), ahead.next()) != (Some('\\'), Some('u')) {
        return None;
    }
    let second = code_unit(&mut ahead)?;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    *chars = ahead;
    Some(char)
}

/// Reads four hexadecimal digits, or nothing.
fn code_unit(chars: &mut (impl Iterator<Item = char> + Clone)) -> Option<u16> {
    let mut ahead = chars.clone();
    let mut unit = 0;
    for _ in 0..4 {
        let digit = ahead.next()?.to_digit(16)?;
        unit = unit << 4 | u16::try_from(digit).ok()?;
    }
    *chars = ahead;
    Some(unit)
}

/// Copies a number or a literal if it is one of JSON's.
fn literal(
    first: char,
    chars: &mut Peekable<impl Iterator<Item = char> + Clone>,
    json: &mut String,
) {
    let start = json.len();
    json.push(first);
    while let Some(char) = chars.next_if(|char| *char != '"' && !is_structure(*char)) {
        json.push(char);
    }
    if serde_json::from_str::<IgnoredAny>(&json[start..]).is_err() {
        json.truncate(start);
        json.push_str("null");
    }
}
