//! Checks an implementation of the store.

use std::time::Duration;

use tokio::time::sleep;

use crate::store::{LeaseOwner, StoreError, StoreKey, StoreTime, TokenStore, random};

/// The short spans of the check. The store's answers may take as long.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// Checks that a store keeps the rules of [`TokenStore`].
///
/// It takes a second or two, uses random keys, and leaves what it stored to expire. It does not
/// check [`watch`](TokenStore::watch), which may do nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bearer_auth::StoreError> {
/// use bearer_auth::{InMemoryTokenStore, token_store_conformance};
///
/// token_store_conformance(InMemoryTokenStore::new()).await
/// # }
/// ```
///
/// # Errors
///
/// Returns an error that names the rule that is broken, or the error of the store. `Debug` shows
/// it.
///
/// # Cancel safety
///
/// Dropping the future leaves leases and records to expire.
pub async fn token_store_conformance(store: impl TokenStore) -> Result<(), StoreError> {
    records(&store).await?;
    expiry(&store).await?;
    leases(&store).await
}

fn check(holds: bool, rule: &'static str) -> Result<(), StoreError> {
    match holds {
        true => Ok(()),
        false => Err(StoreError::new(rule)),
    }
}

fn random_key() -> Result<StoreKey, StoreError> {
    Ok(StoreKey::new(random()?, random()?))
}

async fn record_of(store: &impl TokenStore, key: &StoreKey) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(store.load(key).await?.record)
}

async fn records(store: &impl TokenStore) -> Result<(), StoreError> {
    let (key, other) = (random_key()?, random_key()?);
    let absent = store.load(&key).await?;
    check(absent.record.is_none(), "a new key has no record")?;
    let end = absent.now.plus(LONG);
    let swap = |expected, record, end| store.compare_and_swap(&key, expected, record, end);

    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let stored = swap(Some(b"x"), &all_bytes, end).await?;
    check(!stored, "nothing is replaced where there is nothing")?;
    let stored = swap(None, &all_bytes, end).await?;
    check(
        stored,
        "a record is stored where none is expected and there is none",
    )?;
    let loaded = store.load(&key).await?;
    let is_same = loaded.record.as_ref() == Some(&all_bytes);
    check(is_same, "a record is returned byte for byte")?;
    check(
        loaded.expires_at == Some(end),
        "a record says when it expires",
    )?;
    check(
        loaded.now >= absent.now,
        "the time of the store does not go back",
    )?;

    let stored = swap(None, b"y", end).await?;
    check(!stored, "a record is not replaced where none is expected")?;
    let stored = swap(Some(&all_bytes[1..]), b"y", end).await?;
    check(
        !stored,
        "a record is not replaced where another is expected",
    )?;
    let is_same = record_of(store, &key).await? == Some(all_bytes.clone());
    check(is_same, "a record stays if it is not replaced")?;
    let long = vec![7; 64 * 1024];
    let stored = swap(Some(&all_bytes), &long, end).await?;
    check(stored, "a record is replaced where exactly it is expected")?;
    let is_same = record_of(store, &key).await? == Some(long.clone());
    check(is_same, "a record may have 64 KiB")?;
    check(
        record_of(store, &other).await?.is_none(),
        "keys have records of their own",
    )?;

    let past = StoreTime::from_millis(absent.now.as_millis().saturating_sub(1));
    let stored = swap(Some(&long), b"z", past).await?;
    check(stored, "a record may be stored that has expired")?;
    check(
        record_of(store, &key).await?.is_none(),
        "a record that has expired is gone",
    )
}

async fn expiry(store: &impl TokenStore) -> Result<(), StoreError> {
    let key = random_key()?;
    let start = store.load(&key).await?.now;
    store
        .compare_and_swap(&key, None, b"x", start.plus(SHORT))
        .await?;
    sleep(SHORT + Duration::from_millis(20)).await;
    let loaded = store.load(&key).await?;
    check(loaded.record.is_none(), "a record expires by itself")?;
    let passed = start.until(loaded.now);
    let is_right = passed >= SHORT && passed < SHORT + LONG;
    check(is_right, "the time of the store passes as everywhere")?;
    let end = loaded.now.plus(LONG);
    let stored = store.compare_and_swap(&key, None, b"y", end).await?;
    check(stored, "an expired record is no record")
}

async fn leases(store: &impl TokenStore) -> Result<(), StoreError> {
    let key = random_key()?;
    let (one, other) = (LeaseOwner::new(random()?), LeaseOwner::new(random()?));
    let first = store.acquire(&key, &one, LONG).await?;
    let first = first.ok_or_else(|| StoreError::new("a free lease is given"))?;
    let second = store.acquire(&key, &other, LONG).await?;
    check(second.is_none(), "a lease is given to one owner at a time")?;
    let second = store.acquire(&key, &one, LONG).await?;
    check(second.is_none(), "a lease is given once, also to its owner")?;
    let extended = store.extend(&key, &other, LONG).await?;
    check(!extended, "only its owner extends a lease")?;
    store.release(&key, &other).await?;
    let extended = store.extend(&key, &one, SHORT).await?;
    check(
        extended,
        "a lease is extended by its owner, and ended by no one else",
    )?;
    check(
        record_of(store, &key).await?.is_none(),
        "a lease is no record",
    )?;

    sleep(SHORT + Duration::from_millis(20)).await;
    let extended = store.extend(&key, &one, LONG).await?;
    check(
        !extended,
        "a lease ends by itself, and is not extended then",
    )?;
    let second = store.acquire(&key, &other, LONG).await?;
    let second = second.ok_or_else(|| StoreError::new("a lease that has ended is given"))?;
    check(second.epoch == first.epoch, "the epoch stays")?;
    check(second.fence > first.fence, "the fence rises")?;
    store.release(&key, &other).await?;
    let third = store.acquire(&key, &one, LONG).await?;
    let third = third.ok_or_else(|| StoreError::new("a lease that was released is given"))?;
    check(third.epoch == first.epoch, "the epoch stays")?;
    check(third.fence > second.fence, "the fence rises")?;
    let another = store.acquire(&random_key()?, &one, SHORT).await?;
    check(another.is_some(), "keys have leases of their own")?;
    store.release(&key, &one).await
}
