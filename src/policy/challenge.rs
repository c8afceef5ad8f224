//! A lenient parser for the challenges in `WWW-Authenticate` fields.
//!
//! The grammar is in RFC 9110 §11.2–11.4 and §11.6.1; RFC 6750 §3 defines the parameters that
//! matter here. Many servers deviate from both, and their challenges decide whether a token is
//! still valid, so [`parse`] keeps everything readable and never fails:
//!
//! - **Lines** are independent lists: nothing in one line affects another. Space, tab, CR and LF
//!   are whitespace, and so is an obsolete line fold. In values, CR and LF become spaces.
//! - **Elements** end at a comma outside of quoted strings. Empty elements are skipped. If part of
//!   an element is unreadable, the rest of it up to the comma is skipped, and parsing continues
//!   there.
//! - **Schemes**: a token at the start of an element begins a challenge unless `=` follows it.
//!   Nothing else needs to follow. A parameter without a value (`Basic realm="x", charset`) looks
//!   the same and becomes a challenge too.
//! - **token68** is read only where the grammar allows it: alone between the scheme and the next
//!   comma, so `Bearer error=` contains a token68. Parameters after a token68 are kept.
//! - **Parameters** belong to the latest challenge in their line, so `Bearer, error="x"` is one
//!   challenge. Parameters before the first challenge are dropped. Whitespace around `=` is
//!   allowed, and the comma between parameters may be missing, as some gateways omit it.
//! - **Duplicates** are all kept, in order. `Challenge::param` returns the first value and
//!   [`values`](Challenge::values) returns all of them. Check all of them to find out whether a
//!   challenge contains `invalid_token`.
//! - **Unquoted values** end at whitespace or a comma and may contain anything (`a@b`, a URL)
//!   except a double quote or a leading `=`. One pair of single quotes around the value is removed:
//!   in HTTP they are ordinary characters, but `error='invalid_token'` can have only one meaning.
//! - **Quoted strings** begin where a word can begin: at the start of an element, after whitespace
//!   or after `=`. They end at the closing quote or at the end of the line, and commas in them have
//!   no meaning. A quote in the middle of a word begins no quoted string: after `realm="my"house"`,
//!   the next comma ends the element.
//! - **Malformed parameters** are dropped: those without a value, with an unterminated quoted
//!   string, or with other characters directly after a quoted string. The valid parameters around
//!   them are kept. A truncated `error` is therefore treated as missing rather than as a wrong
//!   value.

/// The maximum number of challenges in all lines; the rest is ignored.
const MAX_CHALLENGES: usize = 64;

/// The maximum number of parameters in a challenge; the rest is ignored.
const MAX_PARAMS: usize = 64;

/// A challenge: an authentication scheme that the server accepts, and its parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Challenge {
    /// The scheme as the server wrote it.
    scheme: String,
    /// The token68, which schemes such as `Negotiate` send in place of parameters.
    token68: Option<String>,
    /// The parameters in order, with names in lower case and values without quotes and escapes.
    /// Invalid UTF-8 is replaced by U+FFFD.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the scheme as the server wrote it. Schemes are case-insensitive.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns true if the scheme is `Bearer`, in any case.
    pub(crate) fn is_bearer(&self) -> bool {
        self.scheme().eq_ignore_ascii_case("bearer")
    }

    /// Returns the value of the first parameter with this name, which is case-insensitive.
    #[cfg(test)]
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Returns the values of all parameters with this name, which is case-insensitive.
    ///
    /// There is more than one only if the server repeats it, which RFC 9110 §11.2 forbids.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.params
            .iter()
            .filter(move |(param, _)| param.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns the scheme, token68 and parameters.
    #[cfg(fuzzing)]
    pub(crate) fn into_parts(self) -> (String, Option<String>, Vec<(String, String)>) {
        (self.scheme, self.token68, self.params)
    }
}

/// Parses the lines of a `WWW-Authenticate` field into challenges, in order.
///
/// It never fails; the [module documentation](self) describes how it treats malformed input. It
/// takes time linear in the length of the lines and returns at most 64 challenges with at most 64
/// parameters each. The rest is ignored.
pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        let limit = MAX_CHALLENGES.saturating_sub(challenges.len());
        if limit == 0 {
            break;
        }
        challenges.extend(parse_line(line, limit));
    }
    challenges
}

/// Parses at most `limit` challenges from a line.
fn parse_line(line: &[u8], limit: usize) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor { rest: line };
    while cursor.next_element() {
        if let Some(scheme) = cursor.scheme() {
            if challenges.len() == limit {
                break;
            }
            challenges.push(Challenge {
                scheme,
                token68: cursor.token68(),
                params: Vec::new(),
            });
        }
        while let Some(param) = cursor.param() {
            if let Some(current) = challenges.last_mut()
                && current.params.len() < MAX_PARAMS
            {
                current.params.push(param);
            }
        }
        cursor.skip_element();
    }
    challenges
}

/// A position in a line.
///
/// Methods that return an `Option` advance past the text they read. On `None` they do not advance,
/// unless their documentation says otherwise.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Advances to the next element that is not empty. Returns false at the end of the line.
    fn next_element(&mut self) -> bool {
        self.take_while(|byte| is_space(byte) || byte == b',');
        !self.rest.is_empty()
    }

    /// Reads a scheme: a token that is a whole word and that no `=` follows.
    fn scheme(&mut self) -> Option<String> {
        let mut ahead = *self;
        let scheme = ahead.take_while(is_token_byte);
        if scheme.is_empty() || !ahead.at_delimiter() || ahead.past_equals().is_some() {
            return None;
        }
        *self = ahead;
        Some(text(scheme))
    }

    /// Reads a token68, which must be the last word of its element.
    fn token68(&mut self) -> Option<String> {
        let mut ahead = *self;
        ahead.skip_space();
        let word = ahead.take_word();
        ahead.skip_space();
        if !is_token68(word) || !ahead.at_delimiter() {
            return None;
        }
        *self = ahead;
        Some(text(word))
    }

    /// Reads a parameter.
    ///
    /// If the value is malformed, this returns `None` but still advances past the name and `=`.
    fn param(&mut self) -> Option<(String, String)> {
        self.skip_space();
        let mut ahead = *self;
        let name = ahead.take_while(is_token_byte);
        if name.is_empty() {
            return None;
        }
        *self = ahead.past_equals()?;
        let value = self.value()?;
        Some((text(name).to_ascii_lowercase(), value))
    }

    /// Reads the value of a parameter, quoted or not.
    ///
    /// Advances past a quoted value even if it is malformed.
    fn value(&mut self) -> Option<String> {
        if self.rest.first() == Some(&b'"') {
            return self.quoted();
        }
        let mut ahead = *self;
        let word = ahead.take_word();
        if word.is_empty() || word.starts_with(b"=") || word.contains(&b'"') {
            return None;
        }
        *self = ahead;
        let bare = word
            .strip_prefix(b"'")
            .and_then(|word| word.strip_suffix(b"'"));
        Some(text(bare.unwrap_or(word)))
    }

    /// Reads a quoted string, starting at the opening quote.
    ///
    /// Returns `None` if the closing quote is missing or if other characters directly follow it. In
    /// either case this advances past the string and the characters after it.
    fn quoted(&mut self) -> Option<String> {
        let mut content = Vec::new();
        let mut bytes = self.rest.iter();
        bytes.next();
        let terminated = loop {
            match bytes.next() {
                None => break false,
                Some(b'"') => break true,
                Some(b'\\') => content.extend(bytes.next()),
                Some(byte) => content.push(*byte),
            }
        };
        self.rest = bytes.as_slice();
        let is_delimited = self.at_delimiter();
        self.skip_word_part();
        (terminated && is_delimited).then(|| text(&content))
    }

    /// Skips the rest of the element, up to its comma.
    fn skip_element(&mut self) {
        loop {
            self.skip_space();
            match self.rest.first() {
                None | Some(b',') => return,
                Some(b'"') => drop(self.quoted()),
                Some(_) => self.skip_word_part(),
            }
        }
    }

    /// Skips the rest of a word, or the part of it up to and including the next `=`.
    ///
    /// It stops there because a quote after `=` begins a quoted string.
    fn skip_word_part(&mut self) {
        self.take_while(|byte| !is_delimiter(byte) && byte != b'=');
        self.rest = self.rest.strip_prefix(b"=").unwrap_or(self.rest);
    }

    fn skip_space(&mut self) {
        self.take_while(is_space);
    }

    /// Returns the position after `=` and the whitespace around it, if `=` comes next.
    fn past_equals(mut self) -> Option<Self> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(b"=")?;
        self.skip_space();
        Some(self)
    }

    /// Returns true at whitespace, a comma or the end of the line.
    fn at_delimiter(&self) -> bool {
        self.rest.first().copied().is_none_or(is_delimiter)
    }

    /// Takes the bytes before the next whitespace or comma.
    fn take_word(&mut self) -> &'a [u8] {
        self.take_while(|byte| !is_delimiter(byte))
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !accept(*byte));
        let (taken, rest) = end
            .and_then(|end| self.rest.split_at_checked(end))
            .unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }
}

/// Returns true for a `tchar` (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns true for a `token68` (RFC 9110 §11.2).
fn is_token68(word: &[u8]) -> bool {
    let is_token68_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    word.first().is_some_and(is_token68_byte)
        && word
            .iter()
            .skip_while(|byte| is_token68_byte(byte))
            .all(|byte| *byte == b'=')
}

fn is_delimiter(byte: u8) -> bool {
    is_space(byte) || byte == b','
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests;
