//! The operations that threads perform on one entry at the same time, under every interleaving that
//! loom finds: publish, read, reject, take over. Run with `--cfg bearer_auth_model`
//! (CONTRIBUTING.md).

use std::sync::atomic::AtomicUsize;
use std::time::SystemTime;

use async_trait::async_trait;
use loom::thread;

use super::*;
use crate::cache::entry::{Entry, Joined};
use crate::cache::state::{Rejection, Severity};
use crate::clock::Clock;

const TIMING: Timing = Timing {
    default_lifetime: Duration::from_secs(300),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
};
const LIFE: Duration = Duration::from_secs(900);

/// Returns the time `secs` seconds after the first token was fetched.
fn at(secs: u64) -> Moment {
    let begin = Moment::new(Duration::from_secs(50), Duration::from_secs(1_700_000_000));
    begin.plus(Duration::from_secs(secs))
}

struct Fixed;

impl Clock for Fixed {
    fn monotonic(&self) -> Duration {
        at(0).monotonic()
    }

    fn wall(&self) -> SystemTime {
        at(0).wall_time().unwrap()
    }
}

#[async_trait]
impl TokenSource for Fixed {
    async fn fetch(&self, _: &TokenRequest) -> Result<AccessToken, TokenError> {
        unreachable!("the model finishes its fetches itself")
    }
}

/// One entry and the parts that its threads share.
#[derive(Clone)]
struct Model {
    entry: Arc<Entry>,
    fetcher: Arc<Fetcher>,
    /// The number of fetches that callers were to start.
    started: Arc<AtomicUsize>,
}

/// The result of joining the entry.
#[derive(Default)]
struct Caller {
    /// The generation of the token that the caller got.
    token: Option<u64>,
    waiter: Option<Waiter>,
    task: Option<FetchTask>,
}

impl Model {
    fn empty() -> Self {
        let fetcher = Fetcher {
            source: Arc::new(Fixed),
            timeline: Timeline::new(Some(Arc::new(Fixed))),
            timing: TIMING,
            fetch_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(30),
            runtime: None,
            is_closed: AtomicBool::new(false),
            limiter: FetchLimiter::new(1),
            observers: Observers::default(),
        };
        Self {
            entry: Arc::new(Entry::new(TokenRequest::default(), None)),
            fetcher: Arc::new(fetcher),
            started: Arc::default(),
        }
    }

    /// Returns a model with the token `a` of generation 1.
    fn holding() -> Self {
        let model = Self::empty();
        let task = model.join(at(0)).task.unwrap();
        task.finish(fetched("a", 1));
        model.started.store(0, Ordering::Relaxed);
        model
    }

    fn join(&self, now: Moment) -> Caller {
        let (joined, task) = self.entry.join(now, None, &self.fetcher).unwrap();
        if task.is_some() {
            self.started.fetch_add(1, Ordering::Relaxed);
        }
        match joined {
            Joined::Token(token) => Caller {
                token: Some(token.generation()),
                waiter: None,
                task,
            },
            Joined::Waiter(waiter) => Caller {
                token: None,
                waiter: Some(waiter),
                task,
            },
        }
    }

    /// Returns the generation that a reader gets without a lock.
    fn read(&self, now: Moment) -> Option<u64> {
        self.entry.if_usable(now, |token| token.generation())
    }

    fn reject(&self, generation: u64) -> Rejection {
        self.entry
            .report(|state| state.reject(generation, Severity::Invalid, at(0)))
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }
}

fn fetched(value: &str, generation: u64) -> Result<Fetched, TokenError> {
    Ok(Fetched {
        token: AccessToken::new(value).unwrap().with_lifetime(LIFE),
        generation,
        started: at(0),
        jitter: 0.0,
    })
}

/// Runs `first` on a thread of its own beside `second`.
fn both(first: impl FnOnce() + 'static, second: impl FnOnce()) {
    let first = thread::spawn(first);
    second();
    first.join().unwrap();
}

/// Readers of a due token are kept from starting a refresh only while one is in progress.
#[test]
fn an_abandoned_refresh_is_started_again() {
    loom::model(|| {
        let model = Model::holding();
        let due = at(850);
        let call = |model: Model| {
            move || {
                // Dropping the task abandons the refresh.
                let token = model.read(due).or_else(|| model.join(due).token);
                assert_eq!(token, Some(1));
            }
        };
        both(call(model.clone()), call(model.clone()));
        assert!(model.read(due).is_none());
        assert!(model.join(due).task.is_some());
    });
}

#[test]
fn callers_share_one_fetch_and_its_token_is_stored_before_they_wake() {
    loom::model(|| {
        let model = Model::empty();
        let call = |model: Model| {
            move || {
                let caller = model.join(at(0));
                if let Some(task) = caller.task {
                    task.finish(fetched("a", 1));
                } else if let Some(waiter) = caller.waiter {
                    if let FetchStatus::Finished(result) = waiter.status() {
                        assert_eq!(result.unwrap().generation(), 1);
                        assert_eq!(model.read(at(0)), Some(1), "woken before it was stored");
                    }
                } else {
                    assert_eq!(caller.token, Some(1));
                }
            }
        };
        both(call(model.clone()), call(model.clone()));
        assert_eq!((model.started(), model.read(at(0))), (1, Some(1)));
    });
}

#[test]
fn a_token_rejected_by_two_is_fetched_once_and_not_used_again() {
    loom::model(|| {
        let model = Model::holding();
        let recover = |model: Model| {
            move || {
                let Some(attached) = model.read(at(0)) else {
                    return;
                };
                let rejection = model.reject(attached);
                let caller = model.join(at(0));
                if rejection != Rejection::Spaced {
                    assert_ne!(caller.token, Some(attached), "used after its rejection");
                    assert_ne!(
                        model.read(at(0)),
                        Some(attached),
                        "read after its rejection"
                    );
                }
                if let Some(task) = caller.task {
                    task.finish(fetched("b", 2));
                }
            }
        };
        both(recover(model.clone()), recover(model.clone()));
        assert_eq!((model.started(), model.read(at(0))), (1, Some(2)));
    });
}

#[test]
fn a_fetch_from_before_the_rejection_does_not_restore_the_token() {
    loom::model(|| {
        let model = Model::holding();
        let task = model.join(at(850)).task.unwrap();
        let reader = model.clone();
        both(
            move || task.finish(fetched("a", 2)),
            move || {
                assert!(matches!(reader.reject(1), Rejection::Effective(_)));
                assert_eq!(reader.read(at(0)), None, "read after its rejection");
            },
        );
        assert_eq!(model.read(at(0)), None, "a fetch restored it");
        assert!(model.join(at(0)).task.is_some(), "no fetch can start");
    });
}

#[test]
fn a_fetch_whose_task_is_dropped_is_started_again_once() {
    loom::model(|| {
        let model = Model::empty();
        let caller = model.join(at(0));
        let (task, waiter) = (caller.task.unwrap(), caller.waiter.unwrap());
        let other = thread::spawn(move || drop(task));
        let take_over = |model: Model, lost: FetchId| {
            move || {
                // Overdue or lost: the same to a waiter.
                Arc::clone(&model.entry).abandon(lost);
                if let Some(task) = model.join(at(0)).task {
                    task.finish(fetched("b", 2));
                }
            }
        };
        both(
            take_over(model.clone(), waiter.fetch()),
            take_over(model.clone(), waiter.fetch()),
        );
        other.join().unwrap();
        assert_eq!((model.started(), model.read(at(0))), (2, Some(2)));
    });
}

#[test]
fn an_abandoned_fetch_that_finishes_does_not_affect_another() {
    loom::model(|| {
        let model = Model::empty();
        let first = model.join(at(0));
        let (late, waiter) = (first.task.unwrap(), first.waiter.unwrap());
        let other = model.clone();
        both(
            move || late.finish(fetched("late", 1)),
            move || {
                waiter.abandon();
                let caller = other.join(at(0));
                assert!(caller.task.is_some() || caller.token == Some(1));
                if let Some(task) = caller.task {
                    task.finish(fetched("b", 2));
                    let status = caller.waiter.unwrap().status();
                    assert!(matches!(status, FetchStatus::Finished(Ok(_))));
                }
            },
        );
        assert!(model.read(at(0)).is_some());
        assert!(model.join(at(0)).token.is_some(), "a fetch was left behind");
    });
}

#[test]
fn an_entry_with_a_fetch_that_a_caller_waits_for_is_not_evicted() {
    loom::model(|| {
        let model = Model::empty();
        let caller = model.clone();
        both(
            move || {
                let joined = caller.join(at(0));
                assert!(
                    !caller.entry.prepare_eviction(at(0), false),
                    "a caller waits"
                );
                joined.task.unwrap().finish(fetched("a", 1));
                assert_eq!(caller.read(at(0)), Some(1));
            },
            || {
                model.entry.prepare_eviction(at(0), false);
            },
        );
        assert!(model.entry.prepare_eviction(at(0), false));
    });
}

/// The wall clock has jumped: a thread that sees the time of a reading also sees its result.
#[test]
fn the_time_of_a_reading_is_not_seen_before_its_result() {
    struct Jumped(AtomicUsize);

    impl Clock for Jumped {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(2 * self.0.load(Ordering::Relaxed) as u64)
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
                + Duration::from_secs(1_000 + 3_600 * self.0.load(Ordering::Relaxed) as u64)
        }
    }

    loom::model(|| {
        let clock = Arc::new(Jumped(AtomicUsize::new(0)));
        let timeline = Arc::new(Timeline::new(Some(Arc::clone(&clock) as Arc<dyn Clock>)));
        clock.0.store(1, Ordering::Relaxed);
        let other = Arc::clone(&timeline);
        both(
            move || assert_eq!(other.now().wall(), Duration::from_secs(4_600)),
            move || assert_eq!(timeline.now().wall(), Duration::from_secs(4_600)),
        );
    });
}
