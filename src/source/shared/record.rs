//! The record of a token in the store: its content, and its sealed form.
//!
//! ```text
//! version 1 | length 1 | key id | epoch 16 | fence 8 | nonce 24 | sealed content
//! ```
//!
//! The seal binds the content to everything before the nonce, to the fleet and to the token
//! request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use zeroize::Zeroizing;

use crate::error::{TokenError, TokenErrorKind};
use crate::source::shared::identity::TokenName;
use crate::source::shared::keys::{NONCE_LENGTH, SealingKeys};
use crate::source::shared::record::bytes::{Reader, Writer};
use crate::store::{Lease, StoreError, StoreTime};
use crate::token::AccessToken;

mod bytes;

/// The maximum length of a sealed record. A longer token is not shared.
pub(super) const MAX_LENGTH: usize = 64 * 1024;

const VERSION: u8 = 1;

/// The content of a record.
#[derive(Clone, Default)]
pub(super) struct Record {
    pub(super) token: Option<SharedToken>,
    pub(super) pause: Option<SharedPause>,
    pub(super) spacing: Spacing,
    /// The tokens of this request cannot be shared, so each process fetches its own.
    pub(super) is_unshared: bool,
}

/// A token and its times by the clock of the store, which all processes agree on.
#[derive(Clone)]
pub(super) struct SharedToken {
    pub(super) token: AccessToken,
    /// `None` if it never expires.
    pub(super) times: Option<Times>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    /// The whole life.
    pub(super) life: Duration,
    pub(super) due: StoreTime,
    pub(super) end: StoreTime,
    /// The same end by the wall clock of the process that fetched it: no false time of the store
    /// makes the token live longer.
    pub(super) wall_end: SystemTime,
}

/// A failed fetch. It is kept for a while after its end, for the number of failures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SharedPause {
    pub(super) until: StoreTime,
    pub(super) failures: u32,
    kind: TokenErrorKind,
    is_transient: bool,
    status: Option<u16>,
    oauth_error: Option<String>,
}

/// The minimum time between the fetches that rejections cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spacing {
    pub(super) until: StoreTime,
    pub(super) length: Duration,
    /// The token was rejected within it.
    pub(super) was_rejected: bool,
}

/// A record as it was found in the store.
pub(super) enum Opened {
    /// There is none, or one that may be replaced: it does not open, or is older than one that was
    /// seen.
    Nothing,
    Record(Box<Record>, Lease),
    /// Another version wrote it, or a process with a newer key. It must not be replaced.
    Foreign,
}

impl SharedPause {
    /// Returns the pause after a failure, unless it says nothing about the token endpoint.
    pub(super) fn new(error: &TokenError, until: StoreTime, failures: u32) -> Self {
        Self {
            until,
            failures,
            kind: error.kind(),
            is_transient: error.is_transient(),
            status: error.status().map(|status| status.as_u16()),
            oauth_error: error.oauth_error().map(str::to_owned),
        }
    }

    /// Returns the error of a caller that comes while this remains of the pause.
    pub(super) fn error(&self, remaining: Duration) -> TokenError {
        let mut error = TokenError::builder(self.kind).transient(self.is_transient);
        if let Some(status) = self.status {
            error = error.status(status);
        }
        if let Some(code) = &self.oauth_error {
            error = error.oauth_error(code);
        }
        error.build().paused(remaining)
    }
}

impl Default for Spacing {
    fn default() -> Self {
        Self {
            until: StoreTime::from_millis(0),
            length: Spacing::MIN,
            was_rejected: false,
        }
    }
}

impl Spacing {
    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(10);

    /// Returns the spacing after a fetch that a rejection caused.
    pub(super) fn after_rejection(self, now: StoreTime) -> Self {
        let length = match self.was_rejected {
            true => self.length,
            false => Self::MIN,
        };
        Self {
            until: now.plus(length),
            length,
            was_rejected: false,
        }
    }

    /// Returns the spacing after a fetch that no rejection caused.
    pub(super) fn after_refresh(self, now: StoreTime) -> Self {
        if now < self.until {
            self
        } else {
            Self::default()
        }
    }

    /// Returns the spacing in which the new token was rejected as well: it is twice as long.
    pub(super) fn doubled(self) -> Self {
        let length = (self.length * 2).min(Self::MAX);
        Self {
            until: self.until.plus(length.saturating_sub(self.length)),
            length,
            was_rejected: true,
        }
    }
}

impl Record {
    /// Returns the sealed record, or `None` if it is too long.
    pub(super) fn seal(
        &self,
        name: &TokenName,
        keys: &SealingKeys,
        lease: Lease,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut record = header(keys.id(), lease);
        let (nonce, sealed) = keys.seal(&self.encode(), &associated(name, &record))?;
        record.extend_from_slice(&nonce);
        record.extend_from_slice(&sealed);
        Ok((record.len() <= MAX_LENGTH).then_some(record))
    }

    /// Opens a record. `is_old` says of a lease that a later one was seen.
    pub(super) fn open(
        bytes: &[u8],
        name: &TokenName,
        keys: &SealingKeys,
        is_old: impl Fn(Lease) -> bool,
    ) -> Opened {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(_) => return Opened::Foreign,
            None => return Opened::Nothing,
        }
        let mut rest = Reader(bytes);
        let parts = (|| {
            rest.array::<1>()?;
            let [length] = rest.array()?;
            let id = rest.take(length.into())?;
            let epoch = rest.array()?;
            let fence = u64::from_be_bytes(rest.array()?);
            Some((id, Lease::new(epoch, fence), rest.array::<NONCE_LENGTH>()?))
        })();
        let Some((id, lease, nonce)) = parts else {
            return Opened::Nothing;
        };
        if bytes.len() > MAX_LENGTH || is_old(lease) {
            return Opened::Nothing;
        }
        if !keys.has(id) {
            return Opened::Foreign;
        }
        let header = &bytes[..bytes.len() - NONCE_LENGTH - rest.0.len()];
        let content = keys.open(id, nonce, rest.0, &associated(name, header));
        match content.and_then(|content| Self::decode(&content)) {
            Some(record) => Opened::Record(Box::new(record), lease),
            None => Opened::Nothing,
        }
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let texts = self.token.as_ref().map_or(0, |it| {
            it.token.expose_secret().len() + it.token.scope().map_or(0, str::len)
        });
        // With its whole capacity from the start, it is never moved, which would leave a copy.
        let mut content = Writer(Zeroizing::new(Vec::with_capacity(texts + 1_024)));
        content.flag(self.is_unshared);
        content.number(self.spacing.until.as_millis());
        content.span(self.spacing.length);
        content.flag(self.spacing.was_rejected);
        content.flag(self.token.is_some());
        if let Some(SharedToken { token, times }) = &self.token {
            content.text(token.expose_secret());
            content.flag(token.scope().is_some());
            content.text(token.scope().unwrap_or_default());
            content.flag(times.is_some());
            if let Some(times) = times {
                content.span(times.life);
                content.number(times.due.as_millis());
                content.number(times.end.as_millis());
                let wall_end = times.wall_end.duration_since(UNIX_EPOCH);
                content.span(wall_end.unwrap_or_default());
            }
        }
        content.flag(self.pause.is_some());
        if let Some(pause) = &self.pause {
            content.number(pause.until.as_millis());
            content.number(pause.failures.into());
            content.number(code_of(pause.kind).into());
            content.flag(pause.is_transient);
            content.number(pause.status.unwrap_or_default().into());
            content.text(pause.oauth_error.as_deref().unwrap_or_default());
        }
        content.0
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let mut content = Reader(content);
        let is_unshared = content.flag()?;
        let spacing = Spacing {
            until: content.moment()?,
            length: content.span()?.clamp(Spacing::MIN, Spacing::MAX),
            was_rejected: content.flag()?,
        };
        let mut token = None;
        if content.flag()? {
            let mut value = AccessToken::new(content.text()?).ok()?;
            let has_scope = content.flag()?;
            let scope = content.text()?;
            if has_scope {
                value = value.with_scope(scope);
            }
            let mut times = None;
            if content.flag()? {
                times = Some(Times {
                    life: content.span()?,
                    due: content.moment()?,
                    end: content.moment()?,
                    wall_end: UNIX_EPOCH.checked_add(content.span()?)?,
                });
            }
            token = Some(SharedToken {
                token: value,
                times,
            });
        }
        let mut pause = None;
        if content.flag()? {
            pause = Some(SharedPause {
                until: content.moment()?,
                failures: content.number()?.try_into().ok()?,
                kind: kind_of(content.number()?),
                is_transient: content.flag()?,
                status: match content.number()?.try_into().ok()? {
                    0 => None,
                    status => Some(StatusCode::from_u16(status).ok()?.as_u16()),
                },
                oauth_error: Some(content.text()?)
                    .filter(|code| !code.is_empty())
                    .map(str::to_owned),
            });
        }
        content.0.is_empty().then_some(Self {
            token,
            pause,
            spacing,
            is_unshared,
        })
    }
}

fn header(key_id: &str, lease: Lease) -> Vec<u8> {
    let mut header = vec![VERSION, key_id.len() as u8];
    header.extend_from_slice(key_id.as_bytes());
    header.extend_from_slice(&lease.epoch);
    header.extend_from_slice(&lease.fence.to_be_bytes());
    header
}

/// Returns what the seal binds the content to.
fn associated(name: &TokenName, header: &[u8]) -> Vec<u8> {
    let mut associated = (header.len() as u64).to_be_bytes().to_vec();
    associated.extend_from_slice(header);
    associated.extend_from_slice(&name.identity);
    associated
}

/// The kinds of errors that are shared. The place in the list is the code, so only its end grows.
const KINDS: [TokenErrorKind; 10] = [
    TokenErrorKind::Source,
    TokenErrorKind::Connection,
    TokenErrorKind::Timeout,
    TokenErrorKind::Throttled,
    TokenErrorKind::Unavailable,
    TokenErrorKind::InvalidResponse,
    TokenErrorKind::InvalidClient,
    TokenErrorKind::InvalidScope,
    TokenErrorKind::Refused,
    TokenErrorKind::Redirected,
];

/// Returns true if an error of this kind is one of the token endpoint rather than of this process.
pub(super) fn is_shared(kind: TokenErrorKind) -> bool {
    KINDS.contains(&kind)
}

fn code_of(kind: TokenErrorKind) -> u8 {
    let place = KINDS.iter().position(|it| *it == kind);
    place.unwrap_or_default() as u8
}

fn kind_of(code: u64) -> TokenErrorKind {
    let place = usize::try_from(code).unwrap_or(usize::MAX);
    KINDS.get(place).copied().unwrap_or(TokenErrorKind::Source)
}

#[cfg(test)]
mod tests;
