//! What the server remembers of each request.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

/// One request that the token endpoint answered.
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenRecord {
    pub(super) at: Duration,
    pub(super) status: StatusCode,
    pub(super) client_authentication: ClientAuthenticationSeen,
    pub(super) scope: Option<Arc<str>>,
    pub(super) params: Arc<[(String, String)]>,
    pub(super) accept: Option<Arc<str>>,
    pub(super) token_number: Option<usize>,
}

impl TokenRecord {
    /// When the request was received, counted from the server's start.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// The status it was answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// How the client authenticated, or tried to.
    pub fn client_authentication(&self) -> ClientAuthenticationSeen {
        self.client_authentication
    }

    /// The scope it asked for, as it was written.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The first form field of this name; never `client_secret`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }

    /// The form's fields in the order they came, without `client_secret`; none if it was no form.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first `Accept` header.
    pub fn accept(&self) -> Option<&str> {
        self.accept.as_deref()
    }

    /// The number of the token it was answered with: 7 for `mock-access-token-7`.
    pub fn token_number(&self) -> Option<usize> {
        self.token_number
    }
}

impl fmt::Debug for TokenRecord {
    // Without the parameters: a test's own may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("at", &self.at)
            .field("status", &self.status)
            .field("client_authentication", &self.client_authentication)
            .field("scope", &self.scope)
            .field("token_number", &self.token_number)
            .finish_non_exhaustive()
    }
}

/// Where a token request carried the client's credentials (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuthenticationSeen {
    /// Nowhere.
    None,
    /// In the form: `client_secret_post`.
    Post,
    /// In an `Authorization` header: `client_secret_basic`.
    Basic,
    /// A secret in the form and an `Authorization` header too, which is an error.
    Both,
    /// An `Authorization` header of another scheme, which is an error.
    Other,
}

/// One request that the API judged.
#[derive(Clone)]
#[non_exhaustive]
pub struct ApiRecord {
    pub(super) at: Duration,
    pub(super) method: Method,
    pub(super) path: Arc<str>,
    pub(super) query: Option<Arc<str>>,
    pub(super) status: StatusCode,
    pub(super) has_authorization: bool,
    pub(super) token_number: Option<usize>,
    pub(super) scope: Option<Arc<str>>,
    pub(super) body_len: usize,
    pub(super) body: Option<Bytes>,
}

impl ApiRecord {
    /// When the request was received, counted from the server's start.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's path, without its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The request's query, if it had one.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The status it was answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether an `Authorization` header was there, whatever it held.
    pub fn has_authorization(&self) -> bool {
        self.has_authorization
    }

    /// The number of the token it carried, valid or not: 7 for `mock-access-token-7`.
    pub fn token_number(&self) -> Option<usize> {
        self.token_number
    }

    /// The scope that the token it carried was issued for, valid or not.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The body's length in bytes; of a body that was too long, the part that was read.
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// The body as it came, byte for byte.
    ///
    /// `None` if it was longer than 1 MiB, or if later records hold 64 MiB of bodies.
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }
}

impl fmt::Debug for ApiRecord {
    // Without query and body: a pre-signed URL is a secret, and so may a body be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiRecord")
            .field("at", &self.at)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("status", &self.status)
            .field("has_authorization", &self.has_authorization)
            .field("token_number", &self.token_number)
            .field("scope", &self.scope)
            .field("body_len", &self.body_len)
            .finish_non_exhaustive()
    }
}

/// How many records a log keeps; the oldest go first.
pub(super) const KEPT_RECORDS: usize = 100_000;

/// How many bytes of bodies the API's log keeps; the oldest go first, their records stay.
pub(super) const KEPT_BODIES: usize = 64 * 1024 * 1024;

#[derive(Default)]
pub(super) struct TokenLog {
    records: VecDeque<TokenRecord>,
}

impl TokenLog {
    pub(super) fn push(&mut self, record: TokenRecord) {
        if self.records.len() == KEPT_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn to_vec(&self) -> Vec<TokenRecord> {
        self.records.iter().cloned().collect()
    }
}

#[derive(Default)]
pub(super) struct ApiLog {
    records: VecDeque<ApiRecord>,
    /// Bytes of all bodies kept.
    body_bytes: usize,
    /// How many of the oldest records have given up their bodies.
    without_body: usize,
}

impl ApiLog {
    pub(super) fn push(&mut self, record: ApiRecord) {
        if self.records.len() == KEPT_RECORDS
            && let Some(oldest) = self.records.pop_front()
        {
            self.body_bytes -= kept_bytes(&oldest);
            self.without_body = self.without_body.saturating_sub(1);
        }
        self.body_bytes += kept_bytes(&record);
        self.records.push_back(record);
        while self.body_bytes > KEPT_BODIES
            && let Some(oldest) = self.records.get_mut(self.without_body)
        {
            self.body_bytes -= kept_bytes(oldest);
            oldest.body = None;
            self.without_body += 1;
        }
    }

    pub(super) fn to_vec(&self) -> Vec<ApiRecord> {
        self.records.iter().cloned().collect()
    }
}

fn kept_bytes(record: &ApiRecord) -> usize {
    record.body.as_ref().map_or(0, Bytes::len)
}
