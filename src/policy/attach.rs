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
    /// Any origin that the policy admits: the one that the request's URI names.
    Named,
    /// An origin that the request's URI does not name, only the path.
    PathOnly,
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
        if matches!(target, Target::PathOnly) {
            return self.admits_path().then_some(Destination::PathOnly);
        }
        // Most URIs contain the text of an origin that was allowed.
        self.find(|origin| origin.matches_text(target))
            .or_else(|| self.admit_named(target.parsed()))
    }

    /// Returns true if `target` is the allowed origin with this index.
    pub(crate) fn is_allowed_origin(&self, index: u16, target: Target<'_>) -> bool {
        self.allowed
            .get(usize::from(index))
            .is_some_and(|origin| origin.matches(target))
    }

    /// Returns the origin of a destination, unless only the request's URI names it.
    pub(crate) fn origin_of(&self, destination: Destination) -> Option<Target<'_>> {
        let origin = match destination {
            Destination::Allowed(index) => self.allowed.get(usize::from(index)),
            Destination::PathOnly => self.assumed.as_ref(),
            Destination::Named => None,
        };
        origin.map(Origin::as_target)
    }

    #[inline]
    fn admits_path(&self) -> bool {
        match &self.assumed {
            Some(assumed) => self.admit_named(assumed.as_target()).is_some(),
            None => self.allowed.is_empty(),
        }
    }

    fn admit_named(&self, target: Target<'_>) -> Option<Destination> {
        if !self.allowed.is_empty() {
            return self.find(|origin| origin.matches(target));
        }
        let is_admitted = match target {
            Target::Origin { https, host, .. } => https || self.allow_http || is_loopback(host),
            Target::PathOnly | Target::Unparsed { .. } | Target::Other => false,
        };
        is_admitted.then_some(Destination::Named)
    }

    #[inline]
    fn find(&self, matches: impl Fn(&Origin) -> bool) -> Option<Destination> {
        let index = self.allowed.iter().position(matches)?;
        Some(u16::try_from(index).map_or(Destination::Named, Destination::Allowed))
    }
}

#[cfg(test)]
mod tests;
