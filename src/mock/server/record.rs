//! The records that the server keeps of requests.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

/// A request that the token endpoint answered.
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
    /// Returns the time from the server's start to the receipt of the request.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the method by which the client authenticated or tried to.
    pub fn client_authentication(&self) -> ClientAuthenticationSeen {
        self.client_authentication
    }

    /// Returns the requested scope, exactly as written in the request.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the value of the first form field with this name, except `client_secret`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value)
    }

    /// Returns the names and values of the form's fields in order, without `client_secret`.
    ///
    /// Empty if the body was not a form.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the first `Accept` header.
    pub fn accept(&self) -> Option<&str> {
        self.accept.as_deref()
    }

    /// Returns the number of the token that was issued, such as 7 for `mock-access-token-7`.
    pub fn token_number(&self) -> Option<usize> {
        self.token_number
    }
}

impl fmt::Debug for TokenRecord {
    // The parameters are omitted because they may contain secrets.
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

/// The place of the client's credentials in a token request (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuthenticationSeen {
    /// The request has no credentials.
    None,
    /// The form has them (`client_secret_post`).
    Post,
    /// An `Authorization` header has them (`client_secret_basic`).
    Basic,
    /// Both the form and an `Authorization` header have credentials, which is an error.
    Both,
    /// An `Authorization` header of another scheme has them, which is an error.
    Other,
}

/// A request that the API answered.
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
    /// Returns the time from the server's start to the receipt of the request.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Returns the request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the request's path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the request's query, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns true if the request had an `Authorization` header of any kind.
    pub fn has_authorization(&self) -> bool {
        self.has_authorization
    }

    /// Returns the number of the request's token, such as 7 for `mock-access-token-7`.
    ///
    /// The token may be expired or revoked.
    pub fn token_number(&self) -> Option<usize> {
        self.token_number
    }

    /// Returns the scope of the request's token, which may be expired or revoked.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the body's length in bytes; for a body over 64 MiB, the length that was read.
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// Returns the body, unchanged.
    ///
    /// `None` if it was longer than 1 MiB, or if it was dropped because later bodies filled the
    /// 64 MiB that the log keeps.
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }
}

impl fmt::Debug for ApiRecord {
    // The query and body are omitted: a pre-signed URL is a secret, and a body may contain one.
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

/// The number of records that a log keeps; the oldest are dropped first.
pub(super) const KEPT_RECORDS: usize = 100_000;

/// The total size in bytes of the bodies that the API's log keeps.
///
/// The oldest bodies are dropped first; their records stay.
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
    /// The total size of the bodies kept.
    body_bytes: usize,
    /// The number of records, from the oldest, whose bodies were dropped.
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
