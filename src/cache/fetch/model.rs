//! What threads do to one entry at the same time, under every interleaving that loom finds:
//! publish, read, reject, hand over. Run with `--cfg bearer_auth_model` (CONTRIBUTING.md).

use std::sync::atomic::AtomicUsize;
use std::time::SystemTime;

use async_trait::async_trait;
use loom::thread;

use super::*;
use crate::cache::entry::Boarding;
use crate::cache::state::Rejection;
use crate::clock::Clock;

const TEMPO: Tempo = Tempo {
    default_lifetime: Duration::from_secs(300),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(60),
};
const LIFE: Duration = Duration::from_secs(900);

/// So many seconds after the first token was had.
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
        unreachable!("the model lands its flights itself")
    }
}

/// One entry, and what its threads have in common.
#[derive(Clone)]
struct Model {
    entry: Arc<Entry>,
    fetcher: Arc<Fetcher>,
    /// Flights that callers were told to launch.
    launched: Arc<AtomicUsize>,
}

impl Model {
    fn empty() -> Self {
        let fetcher = Fetcher {
            source: Arc::new(Fixed),
            timeline: Timeline::new(Some(Arc::new(Fixed))),
            tempo: TEMPO,
            fetch_timeout: Duration::from_secs(30),
            slots: Slots::new(1),
        };
        Self {
            entry: Arc::new(Entry::new()),
            fetcher: Arc::new(fetcher),
            launched: Arc::default(),
        }
    }

    /// With the token `a` of generation 1.
    fn holding() -> Self {
        let model = Self::empty();
        let (pilot, _) = model.board(at(0)).pilot.unwrap();
        pilot.land(fetched("a", 1));
        model.launched.store(0, Ordering::Relaxed);
        model
    }

    fn board(&self, now: Moment) -> Boarded {
        let mut boarded = Boarded::default();
        let launch = match self.entry.board(now) {
            Boarding::Serve(current) => {
                boarded.served = Some(current.generation);
                return boarded;
            }
            Boarding::ServeAndLaunch(current, launch) => {
                boarded.served = Some(current.generation);
                let phase = launch.phase.subscribe();
                let flight = launch.flight();
                let awaited = Arc::default();
                (
                    launch,
                    Ticket {
                        flight,
                        phase,
                        awaited,
                    },
                )
            }
            Boarding::Launch(launch, ticket) => (launch, ticket),
            Boarding::Wait(ticket) => {
                boarded.ticket = Some(ticket);
                return boarded;
            }
            Boarding::Fail(error) => panic!("{error}"),
            Boarding::Retired => {
                boarded.is_retired = true;
                return boarded;
            }
        };
        self.launched.fetch_add(1, Ordering::Relaxed);
        let (Launch { permit, phase }, ticket) = launch;
        let pilot = Pilot {
            entry: Arc::downgrade(&self.entry),
            fetcher: Arc::clone(&self.fetcher),
            request: TokenRequest::default(),
            flight: permit.flight,
            phase,
        };
        boarded.pilot = Some((pilot, ticket));
        boarded
    }

    /// The generation that a reader is given without a lock.
    fn fresh(&self) -> Option<u64> {
        self.entry.if_in_order(at(0), |current| current.generation)
    }

    fn reject(&self, generation: u64) -> Rejection {
        self.entry.report(|state| state.reject(generation, at(0)))
    }

    fn launched(&self) -> usize {
        self.launched.load(Ordering::Relaxed)
    }
}

/// What a caller was told.
#[derive(Default)]
struct Boarded {
    served: Option<u64>,
    pilot: Option<(Pilot, Ticket)>,
    ticket: Option<Ticket>,
    is_retired: bool,
}

fn fetched(value: &str, generation: u64) -> Result<Fetched, TokenError> {
    Ok(Fetched {
        token: AccessToken::new(value).unwrap().with_lifetime(LIFE),
        request: TokenRequest::default(),
        generation,
        started: at(0),
        jitter: 0.0,
    })
}

/// Runs `first` beside `second`, and `second` on this thread.
fn both(first: impl FnOnce() + 'static, second: impl FnOnce()) {
    let first = thread::spawn(first);
    second();
    first.join().unwrap();
}

/// Users of a due token are kept away from its renewal only as long as there is one.
#[test]
fn a_renewal_that_was_given_up_is_begun_again() {
    loom::model(|| {
        let model = Model::holding();
        let due = at(850);
        let call = |model: Model| {
            move || {
                let used = model.entry.if_in_order(due, |current| current.generation);
                // Whoever is to renew the token gives up.
                assert_eq!(used.or_else(|| model.board(due).served), Some(1));
            }
        };
        both(call(model.clone()), call(model.clone()));
        assert!(model.entry.if_in_order(due, |_| {}).is_none());
        assert!(model.board(due).pilot.is_some());
    });
}

#[test]
fn one_flight_and_its_token_is_there_before_anyone_is_woken() {
    loom::model(|| {
        let model = Model::empty();
        let call = |model: Model| {
            move || {
                let boarded = model.board(at(0));
                if let Some((pilot, _)) = boarded.pilot {
                    pilot.land(fetched("a", 1));
                } else if let Some(ticket) = boarded.ticket {
                    if let Phase::Landed(landed) = &*ticket.phase.borrow() {
                        assert_eq!(landed.as_ref().unwrap().generation, 1);
                        assert_eq!(model.fresh(), Some(1), "woken before it was stored");
                    }
                } else {
                    assert_eq!(boarded.served, Some(1));
                }
            }
        };
        both(call(model.clone()), call(model.clone()));
        assert_eq!((model.launched(), model.fresh()), (1, Some(1)));
    });
}

#[test]
fn a_token_that_two_reject_is_renewed_once_and_not_served_again() {
    loom::model(|| {
        let model = Model::holding();
        let recover = |model: Model| {
            move || {
                let Some(carried) = model.fresh() else { return };
                let rejection = model.reject(carried);
                let boarded = model.board(at(0));
                if rejection != Rejection::Spaced {
                    assert_ne!(boarded.served, Some(carried), "served after its rejection");
                    assert_ne!(model.fresh(), Some(carried), "read after its rejection");
                }
                if let Some((pilot, _)) = boarded.pilot {
                    pilot.land(fetched("b", 2));
                }
            }
        };
        both(recover(model.clone()), recover(model.clone()));
        assert_eq!((model.launched(), model.fresh()), (1, Some(2)));
    });
}

#[test]
fn a_flight_from_before_the_rejection_brings_nothing_back() {
    loom::model(|| {
        let model = Model::holding();
        let (pilot, _) = model.board(at(850)).pilot.unwrap();
        let reader = model.clone();
        both(
            move || pilot.land(fetched("a", 2)),
            move || {
                assert!(matches!(reader.reject(1), Rejection::Effective(_)));
                assert_eq!(reader.fresh(), None, "read after its rejection");
            },
        );
        assert_eq!(model.fresh(), None, "a flight brought it back");
        assert!(model.board(at(0)).pilot.is_some(), "no way on");
    });
}

#[test]
fn a_flight_whose_task_is_dropped_is_taken_over_once() {
    loom::model(|| {
        let model = Model::empty();
        let (pilot, ticket) = model.board(at(0)).pilot.unwrap();
        let other = thread::spawn(move || drop(pilot));
        let take_over = |model: Model, lost: FlightId| {
            move || {
                // Overdue, or its channel is closed: the same to a waiter.
                model.entry.abandon(lost);
                if let Some((pilot, _)) = model.board(at(0)).pilot {
                    pilot.land(fetched("b", 2));
                }
            }
        };
        both(
            take_over(model.clone(), ticket.flight),
            take_over(model.clone(), ticket.flight),
        );
        other.join().unwrap();
        assert_eq!((model.launched(), model.fresh()), (2, Some(2)));
    });
}

#[test]
fn a_flight_that_lands_when_it_was_given_up_harms_no_other() {
    loom::model(|| {
        let model = Model::empty();
        let (late, ticket) = model.board(at(0)).pilot.unwrap();
        let caller = model.clone();
        both(
            move || late.land(fetched("late", 1)),
            move || {
                caller.entry.abandon(ticket.flight);
                let boarded = caller.board(at(0));
                assert!(boarded.pilot.is_some() || boarded.served == Some(1));
                if let Some((pilot, ticket)) = boarded.pilot {
                    pilot.land(fetched("b", 2));
                    assert!(matches!(&*ticket.phase.borrow(), Phase::Landed(Ok(_))));
                }
            },
        );
        assert!(model.fresh().is_some());
        assert!(
            model.board(at(0)).served.is_some(),
            "a flight was left behind"
        );
    });
}

#[test]
fn an_entry_with_a_flight_under_way_is_not_put_out_of_use() {
    loom::model(|| {
        let model = Model::empty();
        let caller = model.clone();
        both(
            move || {
                let boarded = caller.board(at(0));
                if let Some((pilot, _)) = boarded.pilot {
                    assert!(!caller.entry.retire(), "its flight is under way");
                    pilot.land(fetched("a", 1));
                    assert_eq!(caller.fresh(), Some(1));
                } else {
                    assert!(boarded.is_retired);
                }
            },
            || {
                if model.entry.retire() {
                    assert!(model.board(at(0)).is_retired);
                }
            },
        );
    });
}

/// The wall clock has jumped: whoever sees that it was read again sees what was read.
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
