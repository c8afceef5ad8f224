//! The errors of values that a user sets: tokens, settings and request parameters.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// A value that cannot be an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidToken {
    /// The position of the first byte that cannot be sent; `None` for an empty value.
    position: Option<usize>,
}

impl InvalidToken {
    pub(crate) fn empty() -> Self {
        Self { position: None }
    }

    pub(crate) fn at(position: usize) -> Self {
        Self {
            position: Some(position),
        }
    }

    /// Returns true if the value is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.position.is_none()
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            None => f.write_str(
                "the access token is empty: it must be one or more of the bytes 0x21 to 0x7E",
            ),
            Some(position) => write!(
                f,
                "the access token cannot be sent: it must be bytes 0x21 to 0x7E only, but there is \
                 another at position {position} (was a line break or space read with it?)"
            ),
        }
    }
}

impl Error for InvalidToken {}

/// A setting or request parameter with an invalid value, and the requirement that it must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    setting: &'static str,
    requirement: Cow<'static, str>,
}

impl InvalidSetting {
    /// Creates the error of a setting that does not meet `requirement`, a text that begins with
    /// "must".
    pub(crate) fn new(setting: &'static str, requirement: impl Into<Cow<'static, str>>) -> Self {
        Self {
            setting,
            requirement: requirement.into(),
        }
    }

    /// Returns the name of the setting, which is the name of its setter.
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Returns the text that begins with "must".
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    pub(crate) fn into_requirement(self) -> Cow<'static, str> {
        self.requirement
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.requirement)
    }
}

impl Error for InvalidSetting {}
