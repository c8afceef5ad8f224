//! What a `WWW-Authenticate` field asks for: a lenient reader of challenges.
//!
//! The grammar is RFC 9110 §11.2–11.4 and §11.6.1, the parameters that matter here are those of
//! RFC 6750 §3. Servers bend both, and what they say decides whether a token is still good, so
//! [`parse`] keeps whatever can be read and never fails:
//!
//! - **Lines** are independent lists: nothing in one line affects another. Space, tab, CR and LF
//!   are whitespace, so an obsolete line fold is too; in a value, CR and LF become spaces.
//! - **Elements** end at a comma outside a quoted string. Empty ones are skipped. The unreadable
//!   rest of one is skipped up to its comma, and reading goes on behind it.
//! - **Schemes**: a token at the start of an element, unless `=` follows, begins a challenge, with
//!   or without anything behind it. A parameter without a value (`Basic realm="x", charset`) looks
//!   no different and becomes a challenge too.
//! - **token68** is read where the grammar has it: alone between the scheme and the next comma. So
//!   `Bearer error=` is a token68. Parameters behind one are kept.
//! - **Parameters** belong to the last challenge begun in their line (so `Bearer, error="x"` is one
//!   challenge), and to none before the first. Whitespace around `=` is fine. They may follow each
//!   other without a comma, as some gateways write them.
//! - **Duplicates** are all kept, in order: [`param`](Challenge::param) gives the first,
//!   [`values`](Challenge::values) all. To learn whether a challenge says `invalid_token`, ask all
//!   of them.
//! - **Unquoted values** run to whitespace or a comma, whatever they hold (`a@b`, a URL), except a
//!   double quote or a leading `=`. One pair of single quotes around such a value is removed: to
//!   HTTP they are letters, but `error='invalid_token'` has one meaning only.
//! - **Quoted strings** begin where a word could (at the start of an element, after whitespace or
//!   `=`) and hide everything up to their closing quote, or to the end of the line. A quote in the
//!   middle of a word is part of the junk: after `realm="my"house"`, the next comma counts.
//! - **Broken parameters** are dropped: no value, an unterminated quoted string, a quoted string
//!   with something glued to it. The good ones around them stay. A cut-off `error` is thus no
//!   `error`, rather than a wrong one.

/// Challenges beyond this many, over all lines, are ignored.
const MAX_CHALLENGES: usize = 64;

/// Parameters of one challenge beyond this many are ignored.
const MAX_PARAMS: usize = 64;

/// One challenge: how a server wants to be authenticated to, and why it was not satisfied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Challenge {
    /// The scheme as the server wrote it.
    scheme: String,
    /// What schemes such as `Negotiate` send in place of parameters.
    token68: Option<String>,
    /// Names in lower case, values without quotes and escapes, in the order of the line. Bytes
    /// that are not UTF-8 became U+FFFD.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The scheme as the server wrote it. Schemes are compared without regard to case.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the scheme is `Bearer`, in any case.
    pub(crate) fn is_bearer(&self) -> bool {
        self.scheme().eq_ignore_ascii_case("bearer")
    }

    /// The value of the first parameter called `name`, in any case.
    #[cfg(test)]
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all parameters called `name`, in any case; more than one only if the server
    /// repeated it, which RFC 9110 §11.2 forbids.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.params
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Scheme, token68 and parameters.
    #[cfg(fuzzing)]
    pub(crate) fn into_parts(self) -> (String, Option<String>, Vec<(String, String)>) {
        (self.scheme, self.token68, self.params)
    }
}

/// Reads the challenges from the lines of a `WWW-Authenticate` field, in their order.
///
/// Never fails and never panics: the [module documentation](self) says what becomes of what the
/// grammar doesn't allow. Takes time linear in the length of the lines, and gives at most 64
/// challenges over all lines with at most 64 parameters each; the rest is ignored.
pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        let room = MAX_CHALLENGES.saturating_sub(challenges.len());
        if room == 0 {
            break;
        }
        challenges.extend(parse_line(line, room));
    }
    challenges
}

/// Reads at most `room` challenges from one line.
fn parse_line(line: &[u8], room: usize) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor { rest: line };
    while cursor.next_element() {
        if let Some(scheme) = cursor.scheme() {
            if challenges.len() == room {
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

/// What is left of a line.
///
/// The methods that give an `Option` move past what they read and, except where they say
/// otherwise, stay where they are if they can't read it.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Moves to the next element that is not empty, or gives `false` at the end of the line.
    fn next_element(&mut self) -> bool {
        self.take_while(|byte| is_space(byte) || byte == b',');
        !self.rest.is_empty()
    }

    /// Reads a scheme: a token that is a word of its own, with no `=` behind it.
    fn scheme(&mut self) -> Option<String> {
        let mut ahead = *self;
        let scheme = ahead.take_while(is_token_byte);
        if scheme.is_empty() || !ahead.at_delimiter() || ahead.past_equals().is_some() {
            return None;
        }
        *self = ahead;
        Some(text(scheme))
    }

    /// Reads a token68, which nothing but whitespace separates from the end of its element.
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

    /// Reads a parameter. Moves past its name, and into its value, even if the value is broken.
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

    /// Reads the value of a parameter, quoted or not. Moves past a quoted one even if it is broken.
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

    /// Reads a quoted string, of which the cursor is at the opening quote, if it is terminated and
    /// nothing is glued to it. Moves past it, and past what is glued to it, in any case.
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
        let alone = self.at_delimiter();
        self.skip_word_part();
        (terminated && alone).then(|| text(&content))
    }

    /// Skips what is left of the element, up to its comma.
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

    /// Skips what is left of a word, but no further than its next `=`, behind which a quote is the
    /// beginning of a quoted string.
    fn skip_word_part(&mut self) {
        self.take_while(|byte| !is_delimiter(byte) && byte != b'=');
        self.rest = self.rest.strip_prefix(b"=").unwrap_or(self.rest);
    }

    fn skip_space(&mut self) {
        self.take_while(is_space);
    }

    /// The cursor behind `=` and the whitespace on both of its sides, if they come next.
    fn past_equals(mut self) -> Option<Self> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(b"=")?;
        self.skip_space();
        Some(self)
    }

    /// Whether a word that ended here was whole.
    fn at_delimiter(&self) -> bool {
        self.rest.first().copied().is_none_or(is_delimiter)
    }

    /// Takes the bytes up to the next whitespace or comma.
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

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `token68` of RFC 9110 §11.2.
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
