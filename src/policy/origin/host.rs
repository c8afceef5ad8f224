//! Checks the host of an allowed or assumed origin. URL parsers read some hosts in more than one
//! way, such as `127.1`; only the form in which requests contain them is accepted.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The part of an error text that says what to fix.
pub(super) type Problem = Cow<'static, str>;

/// Checks a host without port. An IPv6 address is in brackets.
pub(super) fn check(host: &str) -> Result<(), Problem> {
    if host.is_empty() {
        return Err("the host can't be read, it is empty".into());
    }
    if !host.is_ascii() {
        return Err(punycode_hint(host));
    }
    if host.starts_with('[') {
        return check_ipv6(host);
    }
    check_characters(host)?;
    // One dot at the end stands for the root of the DNS: such a name is in use.
    let labels = host.strip_suffix('.').unwrap_or(host);
    if labels.split('.').any(str::is_empty) {
        return Err("the host can't be read, it has an empty name before or after a dot".into());
    }
    match labels.rsplit('.').next() {
        Some(last) if is_number(last) => check_ipv4(host),
        _ => Ok(()),
    }
}

/// Names the form in which to write the host.
pub(super) fn write_as(host: impl Display) -> Problem {
    format!("write the host as `{host}`").into()
}

fn check_characters(host: &str) -> Result<(), Problem> {
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let problem = match host.chars().find(|character| !is_allowed(*character)) {
        None => return Ok(()),
        Some('*') => "wildcards are not supported, name each host",
        Some('%') => "write the host without percent-encoding",
        Some(',' | ';' | ' ') => "the host can't be read, name one origin at a time",
        Some(_) => "the host can't be read, it consists of letters, digits, `-`, `_` and `.`",
    };
    Err(problem.into())
}

/// Returns true for the last part of a host that URL parsers read as an IPv4 address (WHATWG URL,
/// "ends in a number").
fn is_number(label: &str) -> bool {
    let is_decimal = label.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal || hexadecimal(label).is_some()
}

fn hexadecimal(label: &str) -> Option<&str> {
    let digits = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))?;
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then_some(digits)
}

fn check_ipv4(host: &str) -> Result<(), Problem> {
    // std accepts four plain decimal numbers only.
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    Err(match parse_ipv4(host) {
        Some(address) => write_as(address),
        None => "a host that ends in a number must be an IPv4 address of four decimal numbers \
                 from 0 to 255"
            .into(),
    })
}

/// Parses an IPv4 address in any of the forms that URL parsers accept (WHATWG URL, "IPv4 parser").
fn parse_ipv4(host: &str) -> Option<Ipv4Addr> {
    let parts = host.strip_suffix('.').unwrap_or(host).split('.');
    let numbers = parts.map(parse_ipv4_number).collect::<Option<Vec<u32>>>()?;
    let (last, octets) = numbers.split_last()?;
    if octets.len() > 3 || octets.iter().any(|octet| *octet > 255) {
        return None;
    }
    let (mut bits, mut free_bits) = (0, 32_u32);
    for octet in octets {
        free_bits -= 8;
        bits |= octet << free_bits;
    }
    // The last number fills the octets that are left.
    if last
        .checked_shr(free_bits)
        .is_some_and(|excess| excess != 0)
    {
        return None;
    }
    bits |= last;
    Some(Ipv4Addr::from_bits(bits))
}

fn parse_ipv4_number(text: &str) -> Option<u32> {
    let (digits, radix) = match (hexadecimal(text), text.strip_prefix('0')) {
        (Some(""), _) | (None, Some("")) => return Some(0),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (text, 10),
    };
    let are_digits = digits.chars().all(|digit| digit.is_digit(radix));
    u32::from_str_radix(digits, radix)
        .ok()
        .filter(|_| are_digits)
}

fn check_ipv6(host: &str) -> Result<(), Problem> {
    let literal = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let Some(address) = literal.and_then(|it| it.parse::<Ipv6Addr>().ok()) else {
        return Err("the host can't be read, `[` and `]` must enclose an IPv6 address".into());
    };
    // RFC 5952 and URL parsers disagree about the form of these, so that they would not match.
    if let Some(address) = address.to_ipv4_mapped() {
        let problem = format!("write the IPv4 address `{address}` instead, in requests too");
        return Err(problem.into());
    }
    // std prints the canonical form (RFC 5952 §4).
    if literal == Some(address.to_string().as_str()) {
        return Ok(());
    }
    Err(write_as(format_args!("[{address}]")))
}

/// Returns a hint with the ASCII form of a host that is not ASCII.
fn punycode_hint(host: &str) -> Problem {
    // Both versions of reqwest have the same `Url`.
    #[cfg(feature = "reqwest")]
    use reqwest::Url;
    #[cfg(all(feature = "reqwest-0-12", not(feature = "reqwest")))]
    use reqwest_0_12::Url;

    #[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
    if let Ok(url) = Url::parse(&format!("https://{host}/"))
        && let Some(ascii) = url.host_str()
        && ascii.is_ascii()
        && check(ascii).is_ok()
    {
        return format!("write the host in its punycode form, `{ascii}`").into();
    }
    let _ = host;
    "write the host in its punycode form (`xn--…`)".into()
}
