//! The response to a replay.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;

use crate::exchange::message::{RequestView, ResponseView};
use crate::exchange::{Replay, Settings};
use crate::observe::{ReplayObstacle, ReplayOutcome};
use crate::policy::replay::Kept;

impl<S: Deref<Target = Settings>> Replay<S> {
    /// Waits for the response to the replay, records it and returns it.
    ///
    /// Returns `rejection` instead if the first poll of `response` returns an error: an inner layer
    /// sheds load, and the replay was not sent. When the first poll is pending, `rejection` is
    /// dropped, because the inner service may wait for its connection.
    pub(crate) async fn receive<Q, R, E>(
        mut self,
        response: impl Future<Output = Result<R, E>>,
        kept: Kept<Q>,
        rejection: R,
    ) -> Result<R, E>
    where
        Q: RequestView,
        R: ResponseView,
    {
        let mut response = pin!(response);
        let mut rejection = Some(rejection);
        let result = poll_fn(|cx| {
            let poll = response.as_mut().poll(cx);
            if poll.is_pending() {
                rejection = None;
            }
            poll
        });
        match (result.await, rejection) {
            (Ok(response), _) => {
                self.finish(&response, &kept);
                Ok(response)
            }
            (Err(_), Some(rejection)) => {
                self.give_up(ReplayObstacle::NotReady);
                Ok(rejection)
            }
            (Err(error), None) => {
                self.report(ReplayOutcome::Failed);
                Err(error)
            }
        }
    }

    fn finish<Q: RequestView>(&mut self, response: &impl ResponseView, kept: &Kept<Q>) {
        let (settings, plan) = (&*self.settings, &self.plan);
        let rejected = settings.is_rejected(plan, self.attached, response, kept);
        if let Some(rejection) = self.pending_verdict.take() {
            let cache = &settings.cache;
            let change = cache.record_replay(&plan.token_request, rejection, rejected);
            settings.report_new_tokens(change, plan, response, kept);
        }
        self.report(match rejected {
            true => ReplayOutcome::Refused,
            false => ReplayOutcome::Accepted,
        });
    }
}
