//! What a tenant costs in memory, beside its token.
//!
//! Counted is what is still allocated once the tokens of 10,000 tenants have been fetched and the
//! flights are over: for each its key, its entry, its token's data and its share of the map. It is
//! what was asked of the allocator, not what that rounds it up to. The counter is the thread's own, so
//! all runs on one: the runtime is of the current thread, and flights are tasks on it. The runtime,
//! the cache and the first flight come before the count; what the runtime keeps for later is in it.

use allocation_counter::measure;
use bearer_auth::{AccessToken, TokenCache, TokenRequest, source_fn};

const TENANTS: usize = 10_000;
const TOKEN_LEN: usize = 1_000;
const MOST_BYTES: usize = 1_024;

fn tenant(n: usize) -> TokenRequest {
    TokenRequest::scope(format!("tenant/{n:08x}-0000-4000-8000-{n:012x}"))
}

/// A token of its own for each tenant.
async fn fetch(request: TokenRequest) -> Result<AccessToken, bearer_auth::TokenError> {
    let scope = request.scopes().unwrap_or_default();
    Ok(AccessToken::new(format!("{scope:x<TOKEN_LEN$}"))?.without_expiry())
}

#[test]
fn a_tenant_costs_at_most_a_kilobyte_beside_its_token() {
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
            // The last flight's task ends after it has told its waiters.
            tokio::task::yield_now().await;
        });
    });

    assert_eq!(token_bytes, TENANTS * ("Bearer ".len() + TOKEN_LEN));
    let all = usize::try_from(held.bytes_current).unwrap();
    // Nothing was evicted: each token is still held, and the count has seen them.
    assert!(all > token_bytes);
    let beside = (all - token_bytes) / TENANTS;
    println!(
        "per tenant: {} bytes, of which {beside} beside the token; {:.1} allocations",
        all / TENANTS,
        held.count_current as f64 / TENANTS as f64
    );
    assert!(beside <= MOST_BYTES, "{beside} bytes per tenant");
}
