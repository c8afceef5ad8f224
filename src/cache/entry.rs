//! One token's place in the cache: its state behind a lock, its current token in front of it.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cache::cached_token::CachedToken;
use crate::cache::fetch::limiter::Slot;
use crate::cache::fetch::{Launch, Phase, Ticket};
use crate::cache::last_used::LastUsed;
use crate::cache::published::Published;
use crate::cache::state::{Decision, Fetched, FlightId, Landing, Permit, State, Tempo};
use crate::cache::tenants::Tenants;
use crate::clock::Moment;
use crate::error::TokenError;
use crate::sync::{Mutex, MutexGuard};
use crate::token::request::TokenRequest;

pub(crate) struct Entry {
    pub(crate) request: TokenRequest,
    place: Place,
    /// When somebody came here; users of a token that is in order don't.
    pub(crate) last_used: LastUsed,
    /// Held for a few instructions at a time, never across an await.
    core: Mutex<Core>,
}

/// Where those who only use a token find what `core.state` has as current.
enum Place {
    /// The default entry's: here.
    Own(Published),
    /// A tenant's: beside its key, where a lookup comes by anyway.
    AmongTenants(Weak<Tenants>),
}

#[derive(Default)]
struct Core {
    state: State,
    flight: Option<Flight>,
    /// Out of the map: whoever still holds the entry looks for its successor.
    retired: bool,
}

/// The flight that is under way, while `state` has its permit out.
struct Flight {
    id: FlightId,
    phase: watch::Receiver<Phase>,
    task: Option<AbortHandle>,
    /// Kept here rather than in the task: a task that nobody drives would hold it for ever. Without one
    /// the flight is in the queue.
    slot: Option<Slot>,
    /// Shared with its waiters' tickets.
    awaited: Arc<()>,
}

/// What a caller is to do, with what it takes to do it.
pub(crate) enum Boarding {
    Serve(Arc<CachedToken>),
    ServeAndLaunch(Arc<CachedToken>, Launch),
    Launch(Launch, Ticket),
    Wait(Ticket),
    Fail(TokenError),
    Retired,
}

impl Entry {
    /// The default token request's.
    pub(crate) fn new() -> Self {
        Self {
            request: TokenRequest::default(),
            place: Place::Own(Published::empty()),
            last_used: LastUsed::never(),
            core: Mutex::default(),
        }
    }

    pub(crate) fn among(tenants: &Arc<Tenants>, request: TokenRequest) -> Self {
        Self {
            request,
            place: Place::AmongTenants(Arc::downgrade(tenants)),
            last_used: LastUsed::never(),
            core: Mutex::default(),
        }
    }

    /// Calls `with` on the current token if nothing but using it is to be done. Takes no lock.
    #[inline]
    pub(crate) fn if_in_order<R>(
        &self,
        now: Moment,
        with: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        match &self.place {
            Place::Own(published) => published.if_in_order(now, with),
            Place::AmongTenants(_) => None,
        }
    }

    /// Decides, and reserves the flight if there is to be one.
    pub(crate) fn board(&self, now: Moment) -> Boarding {
        let mut core = self.lock();
        if core.retired {
            return Boarding::Retired;
        }
        match core.state.decide(now) {
            Decision::Serve(current) => Boarding::Serve(current),
            Decision::Fail(error) => Boarding::Fail(error),
            Decision::Wait => match &core.flight {
                Some(flight) => Boarding::Wait(Ticket {
                    flight: flight.id,
                    phase: flight.phase.clone(),
                    awaited: Arc::clone(&flight.awaited),
                }),
                // Can't be: both are set and unset together. If it could, this would mend it.
                None => {
                    core.state
                        .flight()
                        .into_iter()
                        .for_each(|id| core.state.abandon(id));
                    Boarding::Retired
                }
            },
            Decision::ServeAndFetch(current, permit) => {
                Boarding::ServeAndLaunch(current, core.reserve(permit).0)
            }
            Decision::Fetch(permit) => {
                let (launch, ticket) = core.reserve(permit);
                Boarding::Launch(launch, ticket)
            }
        }
    }

    /// Remembers the task, so that it ends with the entry.
    pub(crate) fn attach(&self, id: FlightId, task: AbortHandle) {
        if let Some(flight) = self.lock().flight.as_mut().filter(|flight| flight.id == id) {
            flight.task = Some(task);
        }
    }

    /// Hands the flight its slot; whether the flight is still the one under way.
    pub(crate) fn admit(&self, id: FlightId, slot: Slot) -> bool {
        let mut core = self.lock();
        let flight = core.flight.as_mut().filter(|flight| flight.id == id);
        flight.map(|flight| flight.slot = Some(slot)).is_some()
    }

    /// Stores what the flight brought, and says what to tell those who wait.
    pub(crate) fn land(
        &self,
        id: FlightId,
        fetched: Result<Fetched, TokenError>,
        now: Moment,
        tempo: Tempo,
    ) -> Phase {
        self.change(|core| {
            let phase = match fetched {
                Ok(fetched) => match core.state.complete(id, fetched, now, tempo) {
                    Landing::Current(current) => Phase::Landed(Ok(current)),
                    Landing::Rejected => Phase::Rejected,
                },
                Err(error) => {
                    let jitter = fastrand::f64();
                    Phase::Landed(Err(core.state.fail(id, error, now, tempo, jitter)))
                }
            };
            // The task is about to end by itself.
            let ended = core.end(id).map(|mut flight| {
                flight.task = None;
                flight
            });
            (phase, ended)
        })
    }

    /// The flight is no more. Its task, if there still is one, ends.
    pub(crate) fn abandon(&self, id: FlightId) {
        self.change(|core| {
            core.state.abandon(id);
            ((), core.end(id))
        });
    }

    /// Changes the state by something that a user of the token found out.
    pub(crate) fn report<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.change(|core| (change(&mut core.state), None))
    }

    /// Takes the entry out of use, unless a flight is under way. One that is still in the queue, and that
    /// nobody waits for, is given up.
    pub(crate) fn retire(&self) -> bool {
        let mut core = self.lock();
        let idle = core
            .flight
            .take_if(|flight| flight.slot.is_none() && Arc::strong_count(&flight.awaited) == 1);
        if let Some(flight) = &idle {
            core.state.abandon(flight.id);
        }
        core.retired = core.state.flight().is_none();
        core.retired
    }

    /// Changes the core and publishes what has become current, before anyone can be woken.
    fn change<R>(&self, change: impl FnOnce(&mut Core) -> (R, Option<Flight>)) -> R {
        // Held longer than the lock: with the last hold on them, tenants end each other's flights.
        let tenants = match &self.place {
            Place::Own(_) => None,
            Place::AmongTenants(tenants) => tenants.upgrade(),
        };
        let mut core = self.lock();
        let (result, ended) = change(&mut core);
        let current = core.state.current();
        match (&self.place, &tenants) {
            (Place::Own(published), _) => published.publish(current),
            (Place::AmongTenants(_), Some(tenants)) => tenants.publish(self, current),
            (Place::AmongTenants(_), None) => {}
        }
        drop(core);
        let has_ended = ended.is_some();
        // Wakes whoever is next in the queue, so not under the lock.
        drop(ended);
        if let Some(tenants) = tenants.filter(|_| has_ended) {
            tenants.make_room();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing panics while it is held, and no state in between is ever left behind.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn reserve(&mut self, permit: Permit) -> (Launch, Ticket) {
        let (launch, ticket) = Launch::new(permit);
        let phase = ticket.phase.clone();
        self.flight = Some(Flight {
            id: permit.flight,
            phase,
            task: None,
            slot: None,
            awaited: Arc::clone(&ticket.awaited),
        });
        (launch, ticket)
    }

    fn end(&mut self, id: FlightId) -> Option<Flight> {
        self.flight.take_if(|flight| flight.id == id)
    }
}

/// A flight that ends early, or whose cache is gone, ends its task.
impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
