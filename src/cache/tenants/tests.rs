use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::*;
use crate::cache::entry::Joined;
use crate::cache::fetch::limiter::FetchLimiter;
use crate::cache::fetch::{FetchOwner, FetchTask, Fetcher};
use crate::cache::state::{Fetched, Timing};
use crate::clock::{Clock, Timeline};
use crate::error::{TokenError, TokenErrorKind};
use crate::source::static_token::StaticTokenSource;
use crate::source::{TokenSource, source_fn};
use crate::token::AccessToken;

const SECOND: Duration = Duration::from_secs(1);

/// Returns a time in seconds after a fixed moment.
fn at(secs: u64) -> Moment {
    Moment::new(Duration::from_secs(secs), Duration::from_secs(secs))
}

fn tenants(max_entries: usize) -> Arc<Tenants> {
    Tenants::new(max_entries, Observers::default())
}

fn request(name: &str) -> TokenRequest {
    TokenRequest::scope(name)
}

/// Returns true if there is an entry, without counting as a use.
fn contains(tenants: &Tenants, name: &str) -> bool {
    tenants.look_up(&request(name), |_| {}).is_some()
}

struct Stopped;

impl Clock for Stopped {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

fn fetcher() -> Arc<Fetcher> {
    fetcher_of(StaticTokenSource::new("unused").unwrap())
}

fn fetcher_of(source: impl TokenSource) -> Arc<Fetcher> {
    Arc::new(Fetcher {
        source: Arc::new(source),
        timeline: Timeline::new(Some(Arc::new(Stopped))),
        timing: Timing {
            default_lifetime: SECOND,
            first_pause: SECOND,
            longest_pause: SECOND,
        },
        fetch_timeout: SECOND,
        wait_timeout: SECOND,
        runtime: None,
        is_closed: AtomicBool::new(false),
        limiter: FetchLimiter::new(1),
        observers: Observers::default(),
    })
}

/// Joins the entry, which must decide on a fetch.
fn start(entry: &Arc<Entry>, now: Moment) -> FetchTask {
    let (_, task) = entry.join(now, None, &fetcher()).unwrap();
    task.expect("a token or a fetch is there")
}

/// Completes a fetch with a token.
fn land(entry: &Arc<Entry>, task: &FetchTask, token: AccessToken, now: Moment) {
    let fetched = Fetched {
        token,
        generation: now.monotonic().as_secs() + 1,
        started: now,
        jitter: 0.0,
    };
    Arc::clone(entry).finish(task.id(), Ok(fetched), now, fetcher().timing);
}

fn unlimited() -> AccessToken {
    AccessToken::new("token").unwrap().without_expiry()
}

#[test]
fn the_least_recently_used_is_evicted_first() {
    let tenants = tenants(3);
    for name in ["a", "b", "c", "b", "a"] {
        tenants.entry(&request(name), at(0));
    }
    tenants.entry(&request("d"), at(0));
    assert!(!contains(&tenants, "c"));
    tenants.entry(&request("a"), at(0));
    tenants.entry(&request("e"), at(0));
    assert!(!contains(&tenants, "b"));
    tenants.entry(&request("f"), at(0));
    assert!(!contains(&tenants, "d"), "not used since it was added");
    assert!(["a", "e", "f"].iter().all(|name| contains(&tenants, name)));
    assert_eq!(tenants.len(), 3);
}

#[test]
fn uses_are_ordered_by_the_second_without_new_entries() {
    let tenants = tenants(3);
    for name in ["a", "b", "c"] {
        tenants.entry(&request(name), at(0));
    }
    for (second, name) in [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (2, "a"), (3, "c")] {
        tenants.get(&request(name), at(second));
    }
    tenants.entry(&request("d"), at(3));
    assert!(!contains(&tenants, "b"));
    tenants.entry(&request("e"), at(3));
    assert!(!contains(&tenants, "a"));
    assert!(["c", "d", "e"].iter().all(|name| contains(&tenants, name)));
}

#[test]
fn the_length_stays_at_the_bound() {
    let tenants = tenants(64);
    for number in 0..1_000 {
        tenants.entry(&request(&number.to_string()), at(0));
        assert!(tenants.len() <= 64);
    }
    assert!((936..1_000).all(|number| contains(&tenants, &number.to_string())));
}

#[test]
fn removed_entries_leave_nothing_behind() {
    let tenants = tenants(10_000);
    let add = |name: &str| _ = tenants.entry(&request(name), at(0));
    let remove = |name: &str| assert!(tenants.take(&request(name)).is_some());
    for number in 0..1_000 {
        let name = number.to_string();
        add(&name);
        remove(&name);
        assert!(tenants.by_use().len() <= 65);
    }
    // All but one are there again whenever one is removed.
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    names.iter().for_each(|name| add(name));
    for _ in 0..20 {
        for name in &names {
            remove(name);
            add(name);
            assert!(tenants.by_use().len() <= 300);
        }
    }
    assert_eq!(tenants.len(), 100);
}

/// Also if the last removal has begun to sort the candidates out, and none follows.
#[test]
fn the_candidates_of_removed_entries_hold_up_no_eviction() {
    for removed in (0..200).step_by(3) {
        let tenants = tenants(101);
        for number in 0..100 {
            tenants.entry(&request(&number.to_string()), at(0));
        }
        for _ in 0..removed {
            tenants.entry(&request("again"), at(0));
            tenants.take(&request("again"));
        }
        for number in 100..300 {
            tenants.entry(&request(&number.to_string()), at(0));
        }
        assert_eq!(tenants.len(), 101, "{removed}");
        assert!((0..100).all(|number| !contains(&tenants, &number.to_string())));
    }
}

#[test]
fn a_pause_and_a_rejection_are_kept_up_to_twice_the_bound() {
    let tenants = tenants(2);
    let paused = tenants.entry(&request("paused"), at(0));
    let error = TokenError::new(TokenErrorKind::Unavailable, true);
    let task = start(&paused, at(0));
    Arc::clone(&paused).finish(task.id(), Err(error), at(0), fetcher().timing);
    let rejected = tenants.entry(&request("rejected"), at(0));
    land(&rejected, &start(&rejected, at(0)), unlimited(), at(0));
    rejected.report(|state| state.invalidate(1));
    drop((paused, rejected));
    for name in ["a", "b"] {
        tenants.entry(&request(name), at(0));
    }
    assert!(
        ["paused", "rejected"]
            .iter()
            .all(|name| contains(&tenants, name))
    );
    assert_eq!(tenants.len(), 3, "one of the others was evicted");

    // The pause of 1 s has ended.
    tenants.entry(&request("c"), at(5));
    tenants.entry(&request("d"), at(5));
    assert!(!contains(&tenants, "paused"));
    assert!(contains(&tenants, "rejected"));
}

/// Uses of a token are counted while it is refreshed, and kept when its successor lands.
#[test]
fn uses_during_a_refresh_count_after_it() {
    let tenants = tenants(2);
    let use_at = |name, second| tenants.if_usable(&request(name), at(second), |_| {});
    let life = Duration::from_secs(900);
    let refreshed = tenants.entry(&request("refreshed"), at(0));
    let first = start(&refreshed, at(0));
    let token = AccessToken::new("first").unwrap().with_lifetime(life);
    land(&refreshed, &first, token, at(0));
    let other = tenants.entry(&request("other"), at(0));
    land(&other, &start(&other, at(0)), unlimited(), at(0));
    drop(other);

    tenants.get(&request("refreshed"), at(850));
    let refresh = start(&refreshed, at(850));
    assert!(use_at("other", 860).is_some());
    assert!(use_at("refreshed", 870).is_some(), "the last use of all");
    let token = AccessToken::new("second").unwrap().with_lifetime(life);
    land(&refreshed, &refresh, token, at(880));
    drop(refreshed);
    tenants.entry(&request("new"), at(880));
    assert!(contains(&tenants, "refreshed") && !contains(&tenants, "other"));
}

/// Between its first look at the entry and the start of its task.
#[tokio::test]
async fn a_fetch_that_is_abandoned_while_it_starts_sends_nothing() {
    let close = |entry: Arc<Entry>| _ = entry.close();
    let forget = |entry: Arc<Entry>| _ = entry.forget();
    for abandon in [close as fn(Arc<Entry>), forget] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let fetcher = fetcher_of(source_fn(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Ok(unlimited()) }
        }));
        let entry = tenants(1).entry(&request("a"), at(0));
        let (_, fetch) = entry.join(at(0), None, &fetcher).unwrap();
        let fetch = fetch.unwrap();
        assert!(entry.begin(fetch.id(), None));
        abandon(Arc::clone(&entry));
        let task = tokio::spawn(std::future::pending::<()>());
        entry.attach(fetch.id(), task.abort_handle());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(task.is_finished());
        // The task may have been polled before it is aborted.
        fetch.run_here().await;
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn an_entry_in_use_or_with_a_fetch_is_not_evicted() {
    let tenants = tenants(1);
    let used = tenants.entry(&request("used"), at(0));
    tenants.entry(&request("b"), at(1));
    assert!(contains(&tenants, "used"), "a caller holds it");

    let (joined, task) = used.join(at(1), None, &fetcher()).unwrap();
    drop(used);
    tenants.entry(&request("c"), at(2));
    assert!(contains(&tenants, "used"), "a caller waits for its fetch");

    drop(joined);
    tenants.entry(&request("d"), at(3));
    assert!(!contains(&tenants, "used"), "queued, and no caller waits");
    assert!(contains(&tenants, "d"));
    drop(task);
}

#[test]
fn the_end_of_a_fetch_makes_room() {
    let tenants = tenants(1);
    let first = tenants.entry(&request("first"), at(0));
    let (joined, task) = first.join(at(0), None, &fetcher()).unwrap();
    assert!(matches!(joined, Joined::Waiter(_)));
    drop(first);
    let second = tenants.entry(&request("second"), at(1));
    let (waiter, _task) = second.join(at(1), None, &fetcher()).unwrap();
    drop(second);
    assert_eq!(
        tenants.len(),
        2,
        "both have a fetch that a caller waits for"
    );
    drop((joined, task));
    assert_eq!(tenants.len(), 1);
    assert!(contains(&tenants, "second"));
    drop(waiter);
}

#[test]
fn an_evicted_entry_does_not_affect_its_successor() {
    let tenants = tenants(1);
    let is_usable = |name| tenants.if_usable(&request(name), at(0), |_| {}).is_some();
    let evicted = tenants.entry(&request("a"), at(0));
    let task = start(&evicted, at(0));
    land(&evicted, &task, unlimited(), at(0));
    assert!(is_usable("a"));
    let weak = Arc::downgrade(&evicted);
    drop((evicted, task));
    tenants.entry(&request("b"), at(0));
    assert!(weak.upgrade().is_none(), "it was evicted");
    let successor = tenants.entry(&request("a"), at(0));
    assert!(!is_usable("a"));
    let task = start(&successor, at(0));
    land(&successor, &task, unlimited(), at(0));
    assert!(is_usable("a"));
    assert!(!is_usable("b"));
}

#[test]
fn a_token_knows_its_entry() {
    let tenants = tenants(1);
    let entry = tenants.entry(&request("tenant"), at(0));
    land(&entry, &start(&entry, at(6)), unlimited(), at(6));
    let token = entry.if_usable(at(6), |token| token.token()).unwrap();
    let issued = token.issued().unwrap();
    assert_eq!(
        (issued.request.scopes(), issued.generation),
        (Some("tenant"), 7)
    );
}

#[test]
fn one_entry_per_request() {
    let tenants = tenants(10);
    let first = tenants.entry(&request("b a"), at(0));
    assert!(Arc::ptr_eq(&first, &tenants.entry(&request("a  b"), at(0))));
    assert_eq!(tenants.len(), 1);
}

#[test]
fn a_bound_of_one_keeps_the_newest() {
    let tenants = tenants(1);
    for name in ["a", "b", "c"] {
        tenants.entry(&request(name), at(0));
        assert!(contains(&tenants, name));
        assert_eq!(tenants.len(), 1);
    }
}

/// A fetch that was abandoned may still return a token, which ends the pause of a later fetch.
#[test]
fn a_pause_that_a_late_token_ends_is_reported_once() {
    let tenants = tenants(1);
    let entry = tenants.entry(&request("a"), at(0));
    let late = start(&entry, at(0));
    Arc::clone(&entry).abandon(late.id());
    let failed = start(&entry, at(0));
    let error = TokenError::new(TokenErrorKind::Unavailable, true);
    let timing = fetcher().timing;
    let finished = Arc::clone(&entry).finish(failed.id(), Err(error), at(0), timing);
    assert!(finished.pause.is_some());
    assert_eq!((finished.failures, finished.has_ended_pause), (1, false));
    let fetched = Fetched {
        token: unlimited(),
        generation: 1,
        started: at(0),
        jitter: 0.0,
    };
    let finished = Arc::clone(&entry).finish(late.id(), Ok(fetched), at(0), timing);
    assert!(finished.pause.is_none());
    assert_eq!((finished.failures, finished.has_ended_pause), (1, true));
    assert!(!entry.end_pause(failed.id()), "it was reported");
}
