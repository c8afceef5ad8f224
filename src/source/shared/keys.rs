//! The keys that seal records.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::store::{StoreError, random};

const KEY_LENGTH: usize = 32;
pub(super) const NONCE_LENGTH: usize = 24;

/// The keys that seal and open the records in a token store.
///
/// Each key has 32 random bytes and a name, which stands in clear text in the records that it
/// seals. All processes need all keys that are in use. To rotate: give all processes the new key
/// with [`and_open`](Self::and_open) first, then make it the one of [`new`](Self::new) and keep the
/// old one for opening, and remove the old one when the last record that it sealed has expired.
///
/// The keys are zeroed when they are dropped. `Debug` shows their names only.
///
/// ```
/// use bearer_auth::SealingKeys;
///
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = SealingKeys::new("2026-11", new)?.and_open("2026-05", old)?;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
pub struct SealingKeys(Vec<SealingKey>);

struct SealingKey {
    id: String,
    key: Zeroizing<[u8; KEY_LENGTH]>,
}

impl SealingKeys {
    /// Creates the keys from the one that seals, and opens, too.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `id` is not 1 to 64 of `[A-Za-z0-9_.-]`, or the key has not
    /// exactly 32 bytes.
    pub fn new(id: impl Into<String>, key: impl AsRef<[u8]>) -> Result<Self, InvalidSetting> {
        Self(Vec::new()).and_open(id, key)
    }

    /// Adds a key that only opens.
    ///
    /// # Errors
    ///
    /// As of [`new`](Self::new), and if another key has the same id.
    pub fn and_open(
        mut self,
        id: impl Into<String>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, InvalidSetting> {
        let id = id.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !(1..=64).contains(&id.len()) || !id.bytes().all(allowed) {
            return Err(InvalidSetting::new(
                "sealed_with",
                "the id of a key must be 1 to 64 of `[A-Za-z0-9_.-]`",
            ));
        }
        if self.find(&id).is_some() {
            return Err(InvalidSetting::new(
                "sealed_with",
                "two keys must not have the same id",
            ));
        }
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        let key = key.as_ref();
        if key.len() != KEY_LENGTH {
            return Err(InvalidSetting::new(
                "sealed_with",
                "a key must have exactly 32 bytes",
            ));
        }
        bytes.copy_from_slice(key);
        self.0.push(SealingKey { id, key: bytes });
        Ok(self)
    }

    /// Returns the id of the key that seals.
    pub(super) fn id(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    pub(super) fn has(&self, id: &[u8]) -> bool {
        std::str::from_utf8(id).is_ok_and(|id| self.find(id).is_some())
    }

    /// Returns a random nonce and the sealed text.
    pub(super) fn seal(
        &self,
        text: &[u8],
        associated: &[u8],
    ) -> Result<([u8; NONCE_LENGTH], Vec<u8>), StoreError> {
        let key = self.0.first().ok_or_else(|| StoreError::new("no key"))?;
        let nonce = random()?;
        let payload = Payload {
            msg: text,
            aad: associated,
        };
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| StoreError::new("the record cannot be sealed"))?;
        Ok((nonce, sealed))
    }

    /// Returns the text, or `None` if this key did not seal exactly this.
    pub(super) fn open(
        &self,
        id: &[u8],
        nonce: [u8; NONCE_LENGTH],
        sealed: &[u8],
        associated: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.find(std::str::from_utf8(id).ok()?)?;
        let payload = Payload {
            msg: sealed,
            aad: associated,
        };
        let text = key.cipher().decrypt(&XNonce::from(nonce), payload).ok()?;
        Some(Zeroizing::new(text))
    }

    fn find(&self, id: &str) -> Option<&SealingKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl SealingKey {
    /// The cipher zeroes its copy of the key, too.
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.0.iter().map(|key| &key.id).collect();
        f.debug_struct("SealingKeys")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_work_are_errors() {
        for (id, length) in [("", 32), ("a b", 32), ("a\n", 32), ("a", 31), ("a", 33)] {
            assert!(SealingKeys::new(id, vec![0; length]).is_err(), "{id:?}");
        }
        assert!(SealingKeys::new("x".repeat(65), [0; 32]).is_err());
        let keys = SealingKeys::new("a", [0; 32]).unwrap();
        assert!(keys.and_open("a", [1; 32]).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let keys = SealingKeys::new("a", [77; 32]).unwrap();
        assert_eq!(format!("{keys:?}"), "SealingKeys { ids: [\"a\"], .. }");
    }

    #[test]
    fn nonces_are_not_used_twice() {
        let keys = SealingKeys::new("a", [1; 32]).unwrap();
        let nonce = || keys.seal(b"text", b"").unwrap().0;
        assert_ne!(nonce(), nonce());
    }
}
