//! The tokens that the server issued.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest token in bytes. Clients and servers limit the size of headers.
pub(super) const MAX_TOKEN_LEN: usize = 64 * 1024;

/// The number of tokens to keep before expired and revoked ones are dropped.
///
/// They are kept so that the records of later requests can name their scope.
const KEPT_TOKENS: usize = 100_000;

const PREFIX: &str = "mock-access-token-";

/// The tokens issued so far, by number.
///
/// The text of a token is derived from its number, so it is not stored.
pub(super) struct Tokens {
    token_len: usize,
    kept: VecDeque<IssuedToken>,
    /// The number of tokens dropped from the front of `kept`. All of them are expired or revoked.
    dropped: usize,
    /// The highest number that `revoke_all` has revoked.
    revoked_through: usize,
}

impl Tokens {
    pub(super) fn new(token_len: usize) -> Self {
        Self {
            token_len,
            kept: VecDeque::new(),
            dropped: 0,
            revoked_through: 0,
        }
    }

    /// Returns the number of tokens issued.
    pub(super) fn issued(&self) -> usize {
        self.dropped + self.kept.len()
    }

    /// Issues a token and returns its number and text. Its lifetime counts from `received`.
    pub(super) fn issue(
        &mut self,
        received: Instant,
        lifetime: Duration,
        scope: Option<Arc<str>>,
    ) -> (usize, String) {
        // Valid tokens are always kept, even if there are more than `KEPT_TOKENS`.
        while self.kept.len() >= KEPT_TOKENS
            && self.kept.front().is_some_and(|oldest| {
                self.dropped < self.revoked_through || oldest.is_invalid(received)
            })
        {
            self.kept.pop_front();
            self.dropped += 1;
        }
        let expires_at = received.checked_add(lifetime);
        self.kept.push_back(IssuedToken {
            expires_at,
            scope,
            revoked: false,
        });
        let number = self.issued();
        (number, self.text(number))
    }

    pub(super) fn revoke_all(&mut self) {
        self.revoked_through = self.issued();
    }

    pub(super) fn revoke_scope(&mut self, scope: &str) {
        for token in &mut self.kept {
            token.revoked |= token.scope.as_deref() == Some(scope);
        }
    }

    /// Looks up the token of a request. `None` if it was never issued.
    pub(super) fn look_up(&self, text: &str, now: Instant) -> Option<KnownToken> {
        let digits = text.strip_prefix(PREFIX)?;
        let digits = digits.split_once('.').map_or(digits, |(digits, _)| digits);
        let number: usize = digits.parse().ok()?;
        // Compare the whole text, so that `…-01` or a different padding is not accepted.
        if number == 0 || number > self.issued() || text != self.text(number) {
            return None;
        }
        let issued = (number - 1)
            .checked_sub(self.dropped)
            .and_then(|at| self.kept.get(at));
        Some(KnownToken {
            number,
            scope: issued.and_then(|token| token.scope.clone()),
            valid: number > self.revoked_through
                && issued.is_some_and(|token| !token.is_invalid(now)),
        })
    }

    fn text(&self, number: usize) -> String {
        let mut text = format!("{PREFIX}{number}");
        if text.len() < self.token_len {
            text.push('.');
            text.extend(std::iter::repeat_n('x', self.token_len - text.len()));
        }
        text
    }
}

/// A token in a request, issued by this server.
pub(super) struct KnownToken {
    pub(super) number: usize,
    pub(super) scope: Option<Arc<str>>,
    /// True if the token is neither expired nor revoked.
    pub(super) valid: bool,
}

struct IssuedToken {
    /// `None` if the expiry is too far away for an `Instant`.
    expires_at: Option<Instant>,
    scope: Option<Arc<str>>,
    revoked: bool,
}

impl IssuedToken {
    fn is_invalid(&self, now: Instant) -> bool {
        self.revoked || self.expires_at.is_some_and(|at| at <= now)
    }
}
