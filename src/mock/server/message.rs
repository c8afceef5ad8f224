//! Request bodies and responses, for both endpoints.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

/// The body of a request.
pub(super) struct Body {
    /// The length in bytes. If it exceeds the maximum, reading stopped there.
    pub(super) len: usize,
    /// `None` if the body is longer than the limit for keeping it.
    pub(super) bytes: Option<Bytes>,
}

impl Body {
    /// Reads until the end of the body or until it exceeds `max` bytes.
    ///
    /// Keeps the bytes if there are at most `keep`. Returns `None` if the client disconnects.
    pub(super) async fn read(mut incoming: Incoming, keep: usize, max: usize) -> Option<Self> {
        let mut len = 0;
        // Copy the data: a slice of the connection's buffer would keep the whole buffer alive.
        let mut kept = Some(Vec::new());
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                len += data.len();
                if len > keep {
                    kept = None;
                }
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(&data);
                }
                if len > max {
                    break;
                }
            }
        }
        Some(Self {
            len,
            bytes: kept.map(Bytes::from),
        })
    }
}

/// Creates a response with a JSON body.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Creates a response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Waits for the configured latency, without yielding if it is zero.
pub(super) async fn wait(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}
