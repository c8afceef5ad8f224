//! The tokens issued.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest token that can be asked for: clients and servers bound the size of their headers.
pub(super) const MAX_TOKEN_LEN: usize = 64 * 1024;

/// Up to here dead tokens are remembered too, so that a record can still name their scope.
const REMEMBERED: usize = 100_000;

const PREFIX: &str = "mock-access-token-";

/// The tokens issued, by number: the text of a token follows from its number, so none is kept.
pub(super) struct Tokens {
    token_len: usize,
    issued: VecDeque<Issued>,
    /// How many of the oldest are no longer in `issued`, all of them dead.
    forgotten: usize,
    /// The tokens up to this number are revoked.
    revoked_through: usize,
}

impl Tokens {
    pub(super) fn new(token_len: usize) -> Self {
        Self {
            token_len,
            issued: VecDeque::new(),
            forgotten: 0,
            revoked_through: 0,
        }
    }

    pub(super) fn issued(&self) -> usize {
        self.forgotten + self.issued.len()
    }

    /// A new token and its number; its life counts from `received`.
    pub(super) fn issue(
        &mut self,
        received: Instant,
        lifetime: Duration,
        scope: Option<Arc<str>>,
    ) -> (usize, String) {
        // A live token is never forgotten, however many there are.
        while self.issued.len() >= REMEMBERED
            && self.issued.front().is_some_and(|oldest| {
                self.forgotten < self.revoked_through || oldest.is_dead(received)
            })
        {
            self.issued.pop_front();
            self.forgotten += 1;
        }
        let expires_at = received.checked_add(lifetime);
        self.issued.push_back(Issued {
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
        for token in &mut self.issued {
            token.revoked |= token.scope.as_deref() == Some(scope);
        }
    }

    /// What is known of a token that came with a request; `None` for one that was never issued.
    pub(super) fn look_up(&self, text: &str, now: Instant) -> Option<Carried> {
        let digits = text.strip_prefix(PREFIX)?;
        let digits = digits.split_once('.').map_or(digits, |(digits, _)| digits);
        let number: usize = digits.parse().ok()?;
        // One rendering decides, so no second spelling of a token is good.
        if number == 0 || number > self.issued() || text != self.text(number) {
            return None;
        }
        let issued = (number - 1)
            .checked_sub(self.forgotten)
            .and_then(|at| self.issued.get(at));
        Some(Carried {
            number,
            scope: issued.and_then(|token| token.scope.clone()),
            valid: number > self.revoked_through && issued.is_some_and(|token| !token.is_dead(now)),
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

/// A token that came with a request.
pub(super) struct Carried {
    pub(super) number: usize,
    pub(super) scope: Option<Arc<str>>,
    /// Neither expired nor revoked.
    pub(super) valid: bool,
}

struct Issued {
    /// `None`: so far away that it can't be said.
    expires_at: Option<Instant>,
    scope: Option<Arc<str>>,
    revoked: bool,
}

impl Issued {
    fn is_dead(&self, now: Instant) -> bool {
        self.revoked || self.expires_at.is_some_and(|at| at <= now)
    }
}
