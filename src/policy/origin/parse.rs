//! Parses the origins that are allowed or assumed, in text alone: a more lenient parser would
//! change a host, and the setting would never match a request URI, which is not changed.

use std::net::Ipv6Addr;

use super::Origin;
use super::host::{self, Problem};
use crate::error::InvalidSetting;

impl Origin {
    /// Parses scheme, host and port. Anything else is an error.
    pub(crate) fn parse(setting: &'static str, text: &str) -> Result<Self, InvalidSetting> {
        parse_origin(text).map_err(|problem| {
            let requirement = format!(
                "must be only scheme, host and port, such as `https://api.example.com`: {problem}"
            );
            InvalidSetting::new(setting, requirement)
        })
    }

    /// Parses the origin of a URL and ignores its path, query and fragment.
    pub(crate) fn of_url(setting: &'static str, url: &str) -> Result<Self, InvalidSetting> {
        parse_url(url).map_err(|problem| {
            let requirement = format!(
                "must be an http or https URL, such as `https://api.example.com/v2/`: {problem}"
            );
            InvalidSetting::new(setting, requirement)
        })
    }

    fn new(https: bool, host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let authority = match (https, port) {
            (true, 443) | (false, 80) => host.clone(),
            _ => format!("{host}:{port}"),
        };
        Self {
            https,
            host: host.into(),
            port,
            authority: authority.into(),
        }
    }
}

fn parse_origin(text: &str) -> Result<Origin, Problem> {
    let (https, authority, rest) = split(text)?;
    if authority.contains('@') {
        return Err("leave out user and password".into());
    }
    if !rest.is_empty() {
        return Err("leave out path, query and fragment, a last `/` too".into());
    }
    parse_authority(https, authority)
}

fn parse_url(url: &str) -> Result<Origin, Problem> {
    // Some parsers read it as `/`, others as a part of user or host.
    if url.contains('\\') {
        return Err("leave out backslashes".into());
    }
    let (https, authority, _) = split(url)?;
    if authority.contains('@') {
        return Err("leave out user and password".into());
    }
    parse_authority(https, authority)
}

/// Splits a URL into its scheme, which is https or not, its authority and the rest.
fn split(url: &str) -> Result<(bool, &str, &str), Problem> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("`https://` is missing".into());
    };
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") {
        return Err("the scheme is neither https nor http".into());
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Ok((https, authority, rest))
}

fn parse_authority(https: bool, authority: &str) -> Result<Origin, Problem> {
    if let Ok(address) = authority.parse::<Ipv6Addr>() {
        let host = format!("[{address}]");
        return Err(host::check(&host)
            .err()
            .unwrap_or_else(|| host::write_as(host)));
    }
    let host_end = match authority.strip_prefix('[') {
        Some(_) => authority.find(']').map(|bracket| bracket + 1),
        None => authority.find(':'),
    };
    let (host, port) = authority.split_at(host_end.unwrap_or(authority.len()));
    let port = match port.strip_prefix(':') {
        Some(digits) => parse_port(digits)?,
        None if !port.is_empty() => return Err("the host can't be read".into()),
        None if https => 443,
        None => 80,
    };
    host::check(host)?;
    Ok(Origin::new(https, host, port))
}

fn parse_port(digits: &str) -> Result<u16, Problem> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if is_number && port != 0 => Ok(port),
        _ => Err("the port can't be read, it is a number from 1 to 65535".into()),
    }
}
