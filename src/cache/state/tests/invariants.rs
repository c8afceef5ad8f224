//! Sequences of anything that can happen to a token, and what holds after every step.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Something that happens. An [`Index`] picks among what there is to pick from by then.
#[derive(Clone, Debug)]
enum Step {
    Advance(Duration),
    /// The wall clock is set, so many seconds ahead.
    SetWall(i64),
    Decide,
    /// A flight, perhaps one that was given up, brings a token.
    Complete(Index, Token),
    Fail(Index, Option<u64>, f64),
    Abandon(Index),
    Reject(Index),
    Invalidate(Index),
    Judge(Index, bool),
    Forgo(Index),
    FirstAnswer(Index, bool),
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

/// A flight that has not ended in the source.
#[derive(Clone, Copy, Debug)]
struct Flying {
    id: FlightId,
    /// When the token is asked for.
    started: Moment,
}

/// The machine, and what must be known to judge it.
struct Observed {
    state: State,
    now: Moment,
    /// The one whose permit is valid.
    valid: Option<FlightId>,
    flying: Vec<Flying>,
    /// Every generation and rejection so far.
    generations: Vec<u64>,
    rejections: Vec<RejectionId>,
    /// What is to be served, and when its life ends in full.
    current: Option<(Arc<CachedToken>, Moment)>,
    /// The value that was rejected last, and the last flight that began before.
    rejected: Option<(String, Option<FlightId>)>,
    brought_rejected: Option<FlightId>,
    last_flight: Option<FlightId>,
    /// The last success, unless a token was rejected since.
    landed: Option<Duration>,
    paused_until: Duration,
    failures: i32,
    rejected_at: Option<Duration>,
}

impl Observed {
    fn new() -> Self {
        Self {
            state: State::default(),
            now: BEGIN,
            valid: None,
            flying: Vec::new(),
            generations: vec![0],
            rejections: vec![RejectionId(0)],
            current: None,
            rejected: None,
            brought_rejected: None,
            last_flight: None,
            landed: None,
            paused_until: Duration::ZERO,
            failures: 0,
            rejected_at: None,
        }
    }

    fn take(&mut self, step: &Step) {
        let spacing = self.state.rejections.spacing;
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
                if let Some(flying) = pick(&self.flying, which) {
                    // Its task may be on its way to landing all the same.
                    self.state.abandon(flying.id);
                    self.valid.take_if(|valid| *valid == flying.id);
                }
            }
            Step::Reject(which) => self.reject(*which.get(&self.generations)),
            Step::Invalidate(which) => {
                let generation = *which.get(&self.generations);
                let is_current = self.is_current(generation);
                assert_eq!(self.state.invalidate(generation), is_current);
                if is_current {
                    self.withdrawn();
                }
            }
            Step::Judge(which, refused) => {
                self.state.judge(*which.get(&self.rejections), *refused);
            }
            Step::Forgo(which) => self.state.forgo(*which.get(&self.rejections)),
            Step::FirstAnswer(which, refused) => {
                self.state
                    .first_answer(*which.get(&self.generations), *refused);
            }
        }
        self.check_spacing(step, spacing);
        let ours = self
            .current
            .as_ref()
            .map(|(current, _)| Arc::as_ptr(current));
        assert_eq!(
            self.state.current().map(Arc::as_ptr),
            ours,
            "only these steps change it"
        );
        assert_eq!(self.state.flight(), self.valid);
        self.check_users();
        if matches!(step, Step::Decide | Step::Complete(..)) {
            self.decide();
            self.check_users();
        }
    }

    /// Users of the token are sent here if there is something to be done, and only then.
    fn check_users(&self) {
        let current = self.current.as_ref().map(|(current, _)| current);
        let is_due = current.is_some_and(|it| self.now.has_reached(it.lifespan.due));
        let is_seen_to = self.valid.is_some() || self.now.monotonic() < self.paused_until;
        assert_eq!(
            current.is_some_and(|it| it.is_in_order(self.now)),
            self.is_usable() && (!is_due || is_seen_to),
        );
    }

    fn decide(&mut self) {
        let now = self.now;
        match self.state.decide(now) {
            Decision::Serve(current) => self.served(&current),
            Decision::ServeAndFetch(current, permit) => {
                self.served(&current);
                assert!(
                    now.has_reached(current.lifespan.due),
                    "a fresh token is not renewed"
                );
                self.granted(permit);
            }
            Decision::Fetch(permit) => {
                assert!(!self.is_usable(), "a caller waits beside a usable token");
                self.granted(permit);
            }
            Decision::Wait => {
                assert!(!self.is_usable(), "a caller waits beside a usable token");
                assert!(self.valid.is_some(), "a caller waits for nothing");
            }
            Decision::Fail(error) => {
                assert!(!self.is_usable(), "a caller fails beside a usable token");
                assert!(self.valid.is_none(), "a flight is under way");
                let remaining = self.paused_until - now.monotonic();
                assert_eq!(error.retry_after(), Some(remaining));
                assert!(!remaining.is_zero());
            }
        }
    }

    /// What callers are given: the last that came, unexpired, not rejected.
    fn served(&self, given: &Arc<CachedToken>) {
        let Some((current, end)) = &self.current else {
            panic!("a rejected token is served");
        };
        assert!(Arc::ptr_eq(given, current));
        assert!(
            !self.now.has_reached(given.lifespan.expired),
            "it has expired"
        );
        assert!(!self.now.has_reached(*end), "it is dead");
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

    fn granted(&mut self, permit: Permit) {
        assert_eq!(self.valid, None, "a second permit");
        assert!(
            self.last_flight < Some(permit.flight),
            "flights are numbered in order"
        );
        assert!(
            self.now.monotonic() >= self.paused_until,
            "a fetch in a pause"
        );
        let started = self.now.plus(permit.delay);
        let soonest = self.landed.map(|landed| landed + Duration::from_secs(1));
        assert!(
            Some(started.monotonic()) >= soonest,
            "two fetches within a second"
        );
        assert!(
            permit.delay.is_zero() || Some(started.monotonic()) == soonest,
            "too long a wait"
        );
        self.valid = Some(permit.flight);
        self.last_flight = self.valid;
        self.flying.push(Flying {
            id: permit.flight,
            started,
        });
    }

    fn complete(&mut self, which: &Index, token: &Token) {
        let Some((flying, _)) = self.end(which) else {
            return;
        };
        let generation = self.generations.len() as u64;
        let jitter = token.jitter;
        let (token, end) = token.issued(flying.started);
        let fetched = Fetched {
            token: token.clone(),
            request: TokenRequest::default(),
            generation,
            started: flying.started,
            jitter,
        };
        let comes_back = self.rejected.as_ref().is_some_and(|(value, before)| {
            value == token.expose_secret() && *before >= Some(flying.id)
        });
        let newer = match &self.current {
            Some((current, _)) if self.is_usable() && current.flight > flying.id => {
                Some(Arc::clone(current))
            }
            _ => None,
        };
        let current = match self.state.complete(flying.id, fetched, self.now, TEMPO) {
            Landing::Rejected => {
                let is_older = self.brought_rejected > Some(flying.id);
                assert!(comes_back || is_older, "it was not rejected");
                return;
            }
            Landing::Current(current) => current,
        };
        assert!(!comes_back, "a rejected token is back");
        if let Some(newer) = newer {
            assert!(Arc::ptr_eq(&current, &newer), "a newer token was replaced");
            return;
        }
        self.landed = Some(self.now.monotonic());
        self.paused_until = Duration::ZERO;
        self.failures = 0;
        if !current.token().is_same_value(&token) {
            let life = end.monotonic() - flying.started.monotonic();
            let dead = Lifespan::new(life, flying.started, self.now, jitter).expired;
            assert!(
                self.is_usable() && self.now.has_reached(dead),
                "it was lost"
            );
            return;
        }
        assert!(current.lifespan.due.monotonic() <= current.lifespan.expired.monotonic());
        if let Some((before, _)) = &self.current {
            let same_value = before.token().is_same_value(&token);
            assert_eq!(before.generation == current.generation, same_value);
        }
        self.generations.push(generation);
        self.current = Some((current, end));
    }

    fn fail(&mut self, which: &Index, retry_after: Option<u64>, jitter: f64) {
        let Some((flying, was_valid)) = self.end(which) else {
            return;
        };
        let wait = retry_after.map(Duration::from_secs);
        let error = wait
            .into_iter()
            .fold(outage(), TokenError::with_retry_after);
        let error = self.state.fail(flying.id, error, self.now, TEMPO, jitter);
        if !was_valid {
            assert_eq!(
                error.retry_after(),
                wait,
                "a flight that was given up causes no pause"
            );
            return;
        }
        let pause = error.retry_after().unwrap();
        let backoff = Duration::from_secs(1 << self.failures.min(6)).min(TEMPO.longest_pause);
        match wait {
            Some(wait) => assert_eq!(pause, wait.min(span(3_600.0)).max(backoff)),
            None => assert!(pause >= backoff && pause <= backoff.mul_f64(1.25)),
        }
        self.failures += 1;
        self.paused_until = self.now.monotonic() + pause;
    }

    fn reject(&mut self, generation: u64) {
        let was_usable = self.is_current(generation) && self.is_usable();
        let since = self.rejected_at.map(|last| self.now.monotonic() - last);
        match self.state.reject(generation, self.now) {
            Rejection::Superseded => assert!(!was_usable, "a current token was refused"),
            Rejection::Spaced => {
                assert!(was_usable);
                assert!(
                    since < Some(self.state.rejections.spacing),
                    "it was long enough"
                );
            }
            Rejection::Effective(rejection) => {
                assert!(was_usable, "a late rejection removes a newer token");
                assert!(since.is_none_or(|since| since >= self.state.rejections.spacing));
                assert!(!self.rejections.contains(&rejection));
                self.rejections.push(rejection);
                self.rejected_at = Some(self.now.monotonic());
                self.withdrawn();
            }
        }
    }

    fn withdrawn(&mut self) {
        if let Some((current, _)) = self.current.take() {
            self.brought_rejected = Some(current.flight);
            self.rejected = Some((current.token().expose_secret().to_owned(), self.last_flight));
        }
        self.landed = None;
    }

    /// It doubles by a refusal, up to 10 s, and returns to 1 s by the last rejection's own request.
    fn check_spacing(&self, step: &Step, before: Duration) {
        let now = self.state.rejections.spacing;
        if now > before {
            assert!(matches!(
                step,
                Step::Judge(_, true) | Step::FirstAnswer(_, true)
            ));
            assert_eq!(now, (before * 2).min(span(10.0)));
        } else if now < before {
            assert_eq!(now, span(1.0));
            let Step::Judge(which, false) = step else {
                panic!("shortened by {step:?}")
            };
            assert_eq!(Some(which.get(&self.rejections)), self.rejections.last());
        }
    }

    /// Takes a flight out of the air, when it can have been answered; whether its permit was valid.
    fn end(&mut self, which: &Index) -> Option<(Flying, bool)> {
        let flying = *pick(&self.flying, which)?;
        self.flying.retain(|it| it.id != flying.id);
        let early = flying
            .started
            .monotonic()
            .saturating_sub(self.now.monotonic());
        self.now = self.now.plus(early);
        let was_valid = self.valid.take_if(|valid| *valid == flying.id).is_some();
        Some((flying, was_valid))
    }
}

impl Token {
    /// The token, and when its life ends in full.
    fn issued(&self, started: Moment) -> (AccessToken, Moment) {
        let token = AccessToken::new(self.value).unwrap();
        match self.life {
            Life::Limited(secs) => (token.with_lifetime(span(secs)), started.plus(span(secs))),
            Life::Default => (token, started.plus(TEMPO.default_lifetime)),
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
        4 => which().prop_map(Step::Reject),
        1 => which().prop_map(Step::Invalidate),
        3 => (which(), any::<bool>()).prop_map(|(which, refused)| Step::Judge(which, refused)),
        1 => which().prop_map(Step::Forgo),
        2 => (which(), any::<bool>())
            .prop_map(|(which, refused)| Step::FirstAnswer(which, refused)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn hold_after_every_step(steps in vec(any_step(), 0..100)) {
        let mut observed = Observed::new();
        for step in &steps {
            observed.take(step);
        }
    }
}
