//! Random sequences of events in the life of a token, and the invariants after every step.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// An event. An [`Index`] selects one of the values that exist by then.
#[derive(Clone, Debug)]
enum Step {
    Advance(Duration),
    /// Sets the wall clock this many seconds ahead.
    SetWall(i64),
    Decide,
    /// A fetch, perhaps an abandoned one, returns a token.
    Complete(Index, Token),
    Fail(Index, Option<u64>, f64),
    Abandon(Index),
    /// The token request of the fetch in progress is sent.
    Send,
    Reject(Index, Severity),
    Invalidate(Index),
    RecordReplay(Index, bool),
    AbandonReplay(Index),
    RecordResponse(Index, bool),
}

#[derive(Clone, Debug)]
struct Token {
    value: &'static str,
    life: Life,
    jitter: f64,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Limited(f64),
    Default,
    Unlimited,
}

/// A fetch that the source has not answered.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: FetchId,
    /// The time just before the source is called.
    started: Moment,
}

/// The state machine, and a model of it to compare with.
struct Observed {
    state: State,
    now: Moment,
    /// The fetch in progress.
    in_progress: Option<FetchId>,
    /// True if the fetch in progress waits for the spacing; and the time at which it was sent.
    delayed_or_sent: (bool, Option<Moment>),
    running: Vec<Running>,
    /// All generations and rejections so far.
    generations: Vec<u64>,
    rejections: Vec<RejectionId>,
    /// The token that must be current, and the end of its life.
    current: Option<(CurrentToken, Moment)>,
    /// The value that was rejected last, and the last fetch that started before the rejection.
    rejected: Option<(String, Option<FetchId>)>,
    /// The fetch that returned it.
    returned_rejected: Option<FetchId>,
    last_fetch: Option<FetchId>,
    /// The time of the last success, unless a token was rejected since.
    last_success: Option<Duration>,
    paused_until: Moment,
    /// The generation that was rejected and stays in use.
    pending: Option<u64>,
    failures: i32,
    rejected_at: Option<Duration>,
}

impl Observed {
    fn new() -> Self {
        Self {
            state: State::default(),
            now: BEGIN,
            in_progress: None,
            delayed_or_sent: (false, None),
            running: Vec::new(),
            generations: vec![0],
            rejections: vec![RejectionId(0)],
            current: None,
            rejected: None,
            returned_rejected: None,
            last_fetch: None,
            last_success: None,
            paused_until: Moment::PAST,
            pending: None,
            failures: 0,
            rejected_at: None,
        }
    }

    fn take(&mut self, step: &Step) {
        let spacing = self.state.spacing.spacing;
        match step {
            Step::Advance(span) => self.now = self.now.plus(*span),
            Step::SetWall(ahead) => {
                let span = Duration::from_secs(ahead.unsigned_abs());
                let wall = self.now.wall();
                self.now = self.now.with_wall(if *ahead < 0 {
                    wall.saturating_sub(span)
                } else {
                    wall + span
                });
            }
            Step::Decide => {}
            Step::Complete(which, token) => self.complete(which, token),
            Step::Fail(which, retry_after, jitter) => self.fail(which, *retry_after, *jitter),
            Step::Abandon(which) => {
                if let Some(running) = pick(&self.running, which) {
                    // Its task may still return a token.
                    self.state.abandon(running.id);
                    self.in_progress.take_if(|fetch| *fetch == running.id);
                }
            }
            Step::Send => {
                if let Some(fetch) = self.in_progress {
                    self.state.record_sent(fetch, self.now);
                    self.delayed_or_sent = (false, self.delayed_or_sent.1.or(Some(self.now)));
                }
            }
            Step::Reject(which, severity) => {
                self.reject(*which.get(&self.generations), *severity);
            }
            Step::Invalidate(which) => {
                let generation = *which.get(&self.generations);
                let is_current = self.is_current(generation);
                assert_eq!(self.state.invalidate(generation), is_current);
                if is_current {
                    self.withdraw();
                }
            }
            Step::RecordReplay(which, rejected) => {
                self.state
                    .record_replay(*which.get(&self.rejections), *rejected);
            }
            Step::AbandonReplay(which) => self.state.abandon_replay(*which.get(&self.rejections)),
            Step::RecordResponse(which, rejected) => {
                self.state
                    .record_response(*which.get(&self.generations), *rejected);
            }
        }
        self.check_spacing(step, spacing);
        let expected = self.current.as_ref().map(|(current, _)| current.fetch);
        let current = self.state.current().map(|current| current.fetch);
        assert_eq!(current, expected, "another step changed the current token");
        assert_eq!(self.state.fetch(), self.in_progress);
        self.check_readers();
        if matches!(step, Step::Decide | Step::Complete(..)) {
            self.decide();
            self.check_readers();
        }
    }

    /// Checks that readers are sent to make a decision only if there is one to make.
    fn check_readers(&self) {
        let is_usable_now = self.current.as_ref().is_some_and(|(current, _)| {
            let reached = |moment| self.now.has_reached(moment);
            let lifespan = current.lifespan;
            !reached(lifespan.due)
                || (self.is_blocked() && !reached(lifespan.late))
                || (self.is_blocked() && self.nobody_waits() && !reached(lifespan.expired))
        });
        assert_eq!(is_usable(&self.state, self.now), is_usable_now);
    }

    /// Returns true if no refresh can start.
    fn is_blocked(&self) -> bool {
        self.in_progress.is_some() || !self.now.has_reached(self.paused_until)
    }

    /// Returns true if no caller waits for the refresh of a late token.
    fn nobody_waits(&self) -> bool {
        match (self.in_progress, self.delayed_or_sent) {
            (None, _) => true,
            (Some(_), (is_delayed, None)) => is_delayed,
            (Some(_), (_, Some(sent))) => self.now.has_reached(sent.plus(LATE_WAIT)),
        }
    }

    fn decide(&mut self) {
        let now = self.now;
        match self.state.decide(now, None) {
            Decision::Use => self.check_used(),
            Decision::Refresh { fetch, delay } => {
                self.check_used();
                let due = self.state.current().unwrap().lifespan.due;
                assert!(now.has_reached(due), "a fresh token was refreshed");
                self.start(fetch, delay);
            }
            Decision::FetchLate { fetch } => {
                self.check_late();
                self.start(fetch, Duration::ZERO);
            }
            Decision::WaitLate { limit } => {
                self.check_late();
                assert!(self.in_progress.is_some(), "a caller waits without a fetch");
                assert!(!limit.is_zero() && limit <= LATE_WAIT);
            }
            Decision::Fetch { fetch, delay } => {
                assert!(!self.is_usable(), "a caller waits despite a usable token");
                self.start(fetch, delay);
            }
            Decision::Wait => {
                assert!(!self.is_usable(), "a caller waits despite a usable token");
                assert!(self.in_progress.is_some(), "a caller waits without a fetch");
            }
            Decision::Fail(error) => {
                assert!(!self.is_usable(), "a caller fails despite a usable token");
                assert!(self.in_progress.is_none(), "a fetch is in progress");
                let remaining = now.until(self.paused_until);
                assert_eq!(error.retry_after(), Some(remaining));
                assert!(!remaining.is_zero());
            }
        }
    }

    /// Checks that a caller that may wait a moment has a late token to fall back to.
    fn check_late(&self) {
        self.check_used();
        let late = self.state.current().unwrap().lifespan.late;
        assert!(
            self.now.has_reached(late),
            "a caller waits despite a token that is not late"
        );
    }

    /// Checks that callers get the last token, unexpired and not rejected.
    fn check_used(&self) {
        let Some((current, end)) = &self.current else {
            panic!("a rejected token is used");
        };
        assert_eq!(self.state.current().unwrap().fetch, current.fetch);
        assert!(
            !self.now.has_reached(current.lifespan.expired),
            "it has expired"
        );
        assert!(!self.now.has_reached(*end), "its life has ended");
    }

    fn is_usable(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|(current, _)| !self.now.has_reached(current.lifespan.expired))
    }

    fn is_current(&self, generation: u64) -> bool {
        self.current
            .as_ref()
            .is_some_and(|(current, _)| current.generation == generation)
    }

    fn start(&mut self, fetch: FetchId, delay: Duration) {
        assert_eq!(self.in_progress, None, "a second fetch");
        assert!(
            self.last_fetch < Some(fetch),
            "fetches are numbered in order"
        );
        assert!(
            self.now.has_reached(self.paused_until),
            "a fetch in a pause"
        );
        let started = self.now.plus(delay);
        let earliest = self
            .last_success
            .map(|success| success + Duration::from_secs(1));
        assert!(
            Some(started.monotonic()) >= earliest,
            "two fetches within a second"
        );
        assert!(
            delay.is_zero() || Some(started.monotonic()) == earliest,
            "the delay is too long"
        );
        self.in_progress = Some(fetch);
        self.delayed_or_sent = (!delay.is_zero(), None);
        self.last_fetch = self.in_progress;
        self.running.push(Running { id: fetch, started });
    }

    fn complete(&mut self, which: &Index, token: &Token) {
        let Some((running, _)) = self.end(which) else {
            return;
        };
        let generation = self.generations.len() as u64;
        let jitter = token.jitter;
        let (token, end) = token.issued(running.started);
        let fetched = Fetched {
            token: token.clone(),
            generation,
            started: running.started,
            jitter,
        };
        let is_restored = self.rejected.as_ref().is_some_and(|(value, before)| {
            value == token.expose_secret() && *before >= Some(running.id)
        });
        let newer = match &self.current {
            Some((current, _)) if self.is_usable() && current.fetch > running.id => {
                Some(current.fetch)
            }
            _ => None,
        };
        match self.state.complete(running.id, fetched, self.now, TIMING) {
            Completed::Stored => {}
            Completed::Discarded => {
                let is_older = self.returned_rejected > Some(running.id);
                assert!(
                    is_restored || is_older,
                    "a token that was not rejected was discarded"
                );
                return;
            }
            Completed::Failed(_) => panic!("every token has a life"),
        }
        let current = self.state.current().unwrap().clone();
        assert!(!is_restored, "a rejected token was restored");
        if let Some(newer) = newer {
            assert_eq!(current.fetch, newer, "a newer token was replaced");
            return;
        }
        self.last_success = Some(self.now.monotonic());
        self.paused_until = Moment::PAST;
        if self
            .rejected
            .as_ref()
            .is_some_and(|(_, before)| *before < Some(running.id))
        {
            self.pending = None;
        }
        self.failures = 0;
        if !current.token.is_same_value(&token) {
            let life = end.monotonic() - running.started.monotonic();
            let late = Lifespan::new(life, running.started, self.now, jitter).late;
            assert!(
                self.is_usable() && self.now.has_reached(late),
                "a token was lost"
            );
            return;
        }
        assert!(current.lifespan.due.monotonic() <= current.lifespan.expired.monotonic());
        if let Some((before, _)) = &self.current {
            let same_value = before.token.is_same_value(&token);
            assert_eq!(before.generation == current.generation, same_value);
        }
        self.generations.push(generation);
        self.current = Some((current, end));
    }

    fn fail(&mut self, which: &Index, retry_after: Option<u64>, jitter: f64) {
        let Some((running, was_in_progress)) = self.end(which) else {
            return;
        };
        let wait = retry_after.map(Duration::from_secs);
        let error = wait
            .into_iter()
            .fold(outage(), TokenError::with_retry_after);
        let error = self.state.fail(running.id, error, self.now, TIMING, jitter);
        if !was_in_progress {
            assert_eq!(
                error.retry_after(),
                wait,
                "an abandoned fetch began a pause"
            );
            return;
        }
        let pause = error.retry_after().unwrap();
        let backoff = Duration::from_secs(1 << self.failures.min(6)).min(TIMING.longest_pause);
        match wait {
            Some(wait) => assert_eq!(pause, wait.min(span(3_600.0)).max(backoff)),
            None => assert!(pause >= backoff && pause <= backoff.mul_f64(1.25)),
        }
        self.failures += 1;
        self.paused_until = self.now.plus(pause);
    }

    fn reject(&mut self, generation: u64, severity: Severity) {
        let was_usable = self.is_current(generation) && self.is_usable();
        let was_late = self
            .current
            .as_ref()
            .is_some_and(|(current, _)| self.now.has_reached(current.lifespan.late));
        let was_pending = self.pending == Some(generation);
        let since = self.rejected_at.map(|last| self.now.monotonic() - last);
        match self.state.reject(generation, severity, self.now) {
            Rejection::Superseded if was_usable => {
                assert!(was_late || was_pending, "a usable token was not rejected");
                if was_late || severity == Severity::Invalid {
                    self.withdraw();
                }
            }
            Rejection::Superseded => {}
            Rejection::Spaced => {
                assert!(was_usable && !was_late && !was_pending);
                assert!(
                    since < Some(self.state.spacing.spacing),
                    "the last rejection was long enough ago"
                );
            }
            Rejection::Effective(rejection) => {
                assert!(was_usable, "a late rejection removed a newer token");
                assert!(!was_late && !was_pending, "it was counted twice");
                assert!(since.is_none_or(|since| since >= self.state.spacing.spacing));
                assert!(!self.rejections.contains(&rejection));
                self.rejections.push(rejection);
                self.rejected_at = Some(self.now.monotonic());
                match severity {
                    Severity::Invalid => self.withdraw(),
                    Severity::Refused => {
                        self.note_rejected();
                        self.pending = Some(generation);
                    }
                }
            }
        }
    }

    fn withdraw(&mut self) {
        self.note_rejected();
        self.pending = None;
        self.current = None;
    }

    fn note_rejected(&mut self) {
        if let Some((current, _)) = &self.current {
            self.returned_rejected = Some(current.fetch);
            let value = current.token.expose_secret().to_owned();
            self.rejected = Some((value, self.last_fetch));
        }
        self.last_success = None;
    }

    /// Checks that the spacing doubles when a new token is rejected, up to 10 s, and returns to 1 s
    /// only by the replay of the request that caused the last rejection.
    fn check_spacing(&self, step: &Step, before: Duration) {
        let now = self.state.spacing.spacing;
        if now > before {
            assert!(matches!(
                step,
                Step::RecordReplay(_, true) | Step::RecordResponse(_, true)
            ));
            assert_eq!(now, (before * 2).min(span(10.0)));
        } else if now < before {
            assert_eq!(now, span(1.0));
            let Step::RecordReplay(which, false) = step else {
                panic!("shortened by {step:?}")
            };
            assert_eq!(Some(which.get(&self.rejections)), self.rejections.last());
        }
    }

    /// Ends a fetch, no earlier than it can have been answered. Returns true with it if it was in
    /// progress.
    fn end(&mut self, which: &Index) -> Option<(Running, bool)> {
        let running = *pick(&self.running, which)?;
        self.running.retain(|it| it.id != running.id);
        let early = running
            .started
            .monotonic()
            .saturating_sub(self.now.monotonic());
        self.now = self.now.plus(early);
        let was_in_progress = self
            .in_progress
            .take_if(|fetch| *fetch == running.id)
            .is_some();
        Some((running, was_in_progress))
    }
}

impl Token {
    /// Returns the token and the end of its life.
    fn issued(&self, started: Moment) -> (AccessToken, Moment) {
        let token = AccessToken::new(self.value).unwrap();
        match self.life {
            Life::Limited(secs) => (token.with_lifetime(span(secs)), started.plus(span(secs))),
            Life::Default => (token, started.plus(TIMING.default_lifetime)),
            Life::Unlimited => (token.without_expiry(), Moment::NEVER),
        }
    }
}

fn pick<'a, T>(from: &'a [T], which: &Index) -> Option<&'a T> {
    (!from.is_empty()).then(|| which.get(from))
}

fn any_token() -> impl Strategy<Value = Token> {
    let value = prop::sample::select(vec!["a", "b", "c"]);
    let life = prop_oneof![
        8 => prop::sample::select(vec![0.5, 1.0, 2.0, 5.0, 60.0, 900.0]).prop_map(Life::Limited),
        1 => Just(Life::Default),
        1 => Just(Life::Unlimited),
    ];
    (value, life, 0.0..=1.0).prop_map(|(value, life, jitter)| Token {
        value,
        life,
        jitter,
    })
}

fn any_severity() -> impl Strategy<Value = Severity> {
    prop::sample::select(vec![Severity::Invalid, Severity::Refused])
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = any::<Index>;
    let millis = prop_oneof![4 => 0..1_500_u64, 1 => 0..12_000_u64, 1 => 0..400_000_u64];
    let retry_after = prop::option::of(prop::sample::select(vec![0, 3, 90, 5_000, u64::MAX]));
    prop_oneof![
        6 => millis.prop_map(|millis| Step::Advance(Duration::from_millis(millis))),
        1 => (-4_000..4_000_i64).prop_map(Step::SetWall),
        6 => Just(Step::Decide),
        6 => (which(), any_token()).prop_map(|(which, token)| Step::Complete(which, token)),
        2 => (which(), retry_after, 0.0..=1.0)
            .prop_map(|(which, retry_after, jitter)| Step::Fail(which, retry_after, jitter)),
        2 => which().prop_map(Step::Abandon),
        1 => Just(Step::Send),
        4 => (which(), any_severity())
            .prop_map(|(which, severity)| Step::Reject(which, severity)),
        1 => which().prop_map(Step::Invalidate),
        3 => (which(), any::<bool>()).prop_map(|(which, rejected)| Step::RecordReplay(which, rejected)),
        1 => which().prop_map(Step::AbandonReplay),
        2 => (which(), any::<bool>())
            .prop_map(|(which, rejected)| Step::RecordResponse(which, rejected)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_hold_after_every_step(steps in vec(any_step(), 0..100)) {
        let mut observed = Observed::new();
        for step in &steps {
            observed.take(step);
        }
    }
}
