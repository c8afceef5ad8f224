//! The memory that a cached tenant takes besides its token.
//!
//! The test counts what is still allocated after the tokens of 10,000 tenants have been fetched:
//! the key, the entry, the token's data and the share of the map. The counter counts requested
//! bytes, without the allocator's rounding, and only those of its own thread. So the runtime is a
//! current-thread one, which also runs the fetches. The runtime, the cache and the first fetch are
//! created before the count starts; memory that the runtime retains later is included.

use allocation_counter::measure;
use bearer_auth::{AccessToken, TokenCache, TokenRequest, source_fn};

const TENANTS: usize = 10_000;
const TOKEN_LEN: usize = 1_000;
const MAX_OVERHEAD: usize = 1_024;

fn tenant(n: usize) -> TokenRequest {
    TokenRequest::scope(format!("tenant/{n:08x}-0000-4000-8000-{n:012x}"))
}

/// Returns a different token for each tenant.
async fn fetch(request: TokenRequest) -> Result<AccessToken, bearer_auth::TokenError> {
    let scope = request.scopes().unwrap_or_default();
    Ok(AccessToken::new(format!("{scope:x<TOKEN_LEN$}"))?.without_expiry())
}

#[test]
fn a_tenant_takes_at_most_a_kilobyte_besides_its_token() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let cache = TokenCache::builder(source_fn(fetch))
        .max_entries(TENANTS)
        .build()
        .unwrap();
    runtime.block_on(cache.token()).unwrap();

    let mut token_bytes = 0;
    let held = measure(|| {
        runtime.block_on(async {
            for n in 0..TENANTS {
                let token = cache.token_for(&tenant(n)).await.unwrap();
                token_bytes += token.authorization().len();
            }
            // Lets the task of the last fetch end, which happens after it has woken its callers.
            tokio::task::yield_now().await;
        });
    });

    assert_eq!(token_bytes, TENANTS * ("Bearer ".len() + TOKEN_LEN));
    let all = usize::try_from(held.bytes_current).unwrap();
    // No tenant was evicted, and the tokens themselves were counted.
    assert!(all > token_bytes);
    let overhead = (all - token_bytes) / TENANTS;
    println!(
        "per tenant: {} bytes, {overhead} of them besides the token; {:.1} allocations",
        all / TENANTS,
        held.count_current as f64 / TENANTS as f64
    );
    assert!(overhead <= MAX_OVERHEAD, "{overhead} bytes per tenant");
}
