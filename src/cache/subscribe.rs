//! A stream of tokens, for connections that outlive a token.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;

use crate::cache::TokenCache;
use crate::cache::cached_token::CachedToken;
use crate::cache::entry::Entry;
use crate::cache::fetch::waiter::timer;
use crate::cache::state::State;
use crate::clock::Moment;
use crate::error::TokenError;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token::windows::FETCH_SPACING;

/// The longest time between two looks at the token, so that a jump of the clock is noticed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A stream of the tokens for one request, see [`TokenCache::subscribe`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct TokenSubscription {
    cache: TokenCache,
    /// Keeps the entry from being evicted.
    entry: Arc<Entry>,
    /// The generation of the last token that the stream returned.
    last: Option<u64>,
    next: Option<Next>,
    has_ended: bool,
}

type Next = Pin<Box<dyn Future<Output = Option<Arc<CachedToken>>> + Send>>;

impl TokenCache {
    /// Returns a stream of the tokens for this request: the current one, then each new one.
    ///
    /// It is for connections that outlive a token (AMQP, WebSocket). While the stream is polled,
    /// the token is refreshed ahead of its expiry, also if nobody else asks for it, and replaced
    /// when it is rejected or invalidated. A token that is replaced before the stream is polled
    /// again is left out.
    ///
    /// If a fetch fails, the stream tries again when the pause has ended. The error is visible in
    /// [`status_of`](Self::status_of). The stream ends only when the cache is
    /// [closed](Self::close).
    ///
    /// The stream is a handle of the cache, like a clone, and keeps the entry of the request from
    /// being evicted. Poll it on a tokio runtime with timers, or set a
    /// [`runtime`](crate::TokenCacheBuilder::runtime).
    ///
    /// ```
    /// use bearer_auth::{StaticTokenSource, TokenCache, TokenRequest};
    /// use futures_util::StreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = TokenCache::new(StaticTokenSource::new("opaque")?);
    /// let mut tokens = cache.subscribe(&TokenRequest::default());
    /// while let Some(token) = tokens.next().await {
    ///     // Send `token` to the server on the open connection.
    ///     # let _ = token;
    ///     # cache.close().await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, request: &TokenRequest) -> TokenSubscription {
        TokenSubscription {
            cache: self.clone(),
            entry: self.entry(request),
            last: None,
            next: None,
            has_ended: false,
        }
    }
}

impl Stream for TokenSubscription {
    type Item = AccessToken;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AccessToken>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        let (cache, entry, last) = (&this.cache, &this.entry, this.last);
        let next = this
            .next
            .get_or_insert_with(|| Box::pin(next(cache.clone(), Arc::clone(entry), last)));
        let token = ready!(next.as_mut().poll(cx));
        this.next = None;
        this.last = token.as_ref().map(|token| token.generation());
        this.has_ended = token.is_none();
        Poll::Ready(token.map(AccessToken::held_by))
    }
}

/// Returns the next token after the one of the generation `last`, or `None` if the cache is closed.
async fn next(cache: TokenCache, entry: Arc<Entry>, last: Option<u64>) -> Option<Arc<CachedToken>> {
    let fetcher = &cache.shared.fetcher;
    let is_closed = || fetcher.is_closed.load(Ordering::Acquire);
    while !is_closed() {
        let has_failed = match cache.acquire(&entry.request, None).await {
            Ok(token) if Some(token.generation()) != last => return Some(token),
            Ok(_) => false,
            Err(_) => true,
        };
        // From here on no change is missed. What changed before is seen by the looks that follow.
        let mut change = pin!(entry.changes().notified());
        change.as_mut().enable();
        if is_closed() {
            break;
        }
        let now = cache.now();
        let wait = entry.inspect(|state| time_to_next_look(state, last, has_failed, now));
        match timer(fetcher, Instant::now() + wait, change.as_mut()) {
            Ok(change) => drop(change.await),
            // Without timers, the token changes only if others change it.
            Err(_) => change.await,
        }
    }
    None
}

/// Returns the time after which to look at the token again, unless it changes before.
fn time_to_next_look(state: &State, last: Option<u64>, has_failed: bool, now: Moment) -> Duration {
    let life = state
        .current()
        .filter(|token| !now.has_reached(token.lifespan.expired));
    let wait = match (life, state.paused(now)) {
        (Some(token), _) if Some(token.generation) != last => Duration::ZERO,
        (Some(token), _) if !now.has_reached(token.lifespan.due) => now.until(token.lifespan.due),
        (_, Some(error)) => retry_after(&error),
        (Some(token), None) if state.is_fetching() => match now.has_reached(token.lifespan.late) {
            true => now.until(token.lifespan.expired),
            false => now.until(token.lifespan.late),
        },
        (None, None) if !has_failed => Duration::ZERO,
        (_, None) => FETCH_SPACING,
    };
    wait.min(MAX_WAIT)
}

fn retry_after(error: &TokenError) -> Duration {
    error.retry_after().unwrap_or(FETCH_SPACING)
}

impl fmt::Debug for TokenSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSubscription")
            .field("request", &self.entry.request)
            .finish_non_exhaustive()
    }
}
