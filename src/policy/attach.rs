//! The origins that a token may go to.

use crate::error::InvalidSetting;
use crate::policy::origin::{Origin, Target, is_loopback};

/// The rules for where a token may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachPolicy {
    /// Empty: every https origin, and loopback.
    allowed: Vec<Origin>,
    /// The origin of URIs without authority.
    assumed: Option<Origin>,
    allow_http: bool,
}

/// The destination of a request that gets a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The allowed origin with this index, which is small so that futures are.
    Allowed(u16),
    /// The origin that the request's URI names, if it names one.
    Any,
}

impl AttachPolicy {
    pub(crate) fn allow_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        let origin = Origin::parse("allow_origin", origin)?;
        self.allowed.push(origin);
        Ok(())
    }

    pub(crate) fn allow_origin_of(&mut self, url: &str) -> Result<(), InvalidSetting> {
        let origin = Origin::of_url("allow_origin_of", url)?;
        self.allowed.push(origin);
        Ok(())
    }

    pub(crate) fn assume_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        self.assumed = Some(Origin::parse("assume_origin", origin)?);
        Ok(())
    }

    pub(crate) fn allow_http(&mut self) {
        self.allow_http = true;
    }

    /// Returns the destination if a request to this target gets a token.
    #[inline]
    pub(crate) fn admit(&self, target: Target<'_>) -> Option<Destination> {
        // Most URIs contain the text of an origin that was allowed.
        self.find(|origin| origin.matches_text(target))
            .or_else(|| self.admit_parsed(target.parsed()))
    }

    /// Returns true if `target` is the allowed origin with this index.
    pub(crate) fn is_allowed_origin(&self, index: u16, target: Target<'_>) -> bool {
        self.allowed
            .get(usize::from(index))
            .is_some_and(|origin| origin.matches(target))
    }

    fn admit_parsed(&self, target: Target<'_>) -> Option<Destination> {
        match (target, &self.assumed) {
            // A response cannot name the assumed origin, only the path.
            (Target::PathOnly, Some(assumed)) => self
                .admit_target(assumed.as_target())
                .map(|_| Destination::Any),
            _ => self.admit_target(target),
        }
    }

    fn admit_target(&self, target: Target<'_>) -> Option<Destination> {
        if !self.allowed.is_empty() {
            return self.find(|origin| origin.matches(target));
        }
        let is_admitted = match target {
            Target::Origin { https, host, .. } => https || self.allow_http || is_loopback(host),
            Target::PathOnly => true,
            Target::Unparsed { .. } | Target::Other => false,
        };
        is_admitted.then_some(Destination::Any)
    }

    #[inline]
    fn find(&self, matches: impl Fn(&Origin) -> bool) -> Option<Destination> {
        let index = self.allowed.iter().position(matches)?;
        Some(u16::try_from(index).map_or(Destination::Any, Destination::Allowed))
    }
}

#[cfg(test)]
mod tests;
