//! Where a token may go.

use crate::error::InvalidSetting;
use crate::policy::origin::{Fingerprint, Origin, Target, is_loopback};

/// The rules for where a token may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachPolicy {
    /// Empty means: every https origin, and loopback.
    allowed: Vec<Origin>,
    /// What a URI without authority is judged as.
    assumed: Option<Origin>,
    allow_http: bool,
}

impl AttachPolicy {
    pub(crate) fn allow_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        let origin = Origin::parse("allow_origin", origin)?;
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

    /// Where a request to this target takes its token, if it gets one.
    #[inline]
    pub(crate) fn admit(&self, target: Target<'_>) -> Option<Fingerprint> {
        // Most URIs name their origin letter by letter as it was allowed.
        match self.allowed.iter().find(|it| it.is_literally(target)) {
            Some(origin) => Some(origin.fingerprint()),
            None => self.judge(target),
        }
    }

    /// As [`admit`](Self::admit), by what the letters mean.
    fn judge(&self, target: Target<'_>) -> Option<Fingerprint> {
        let target = target.taken_apart();
        let judged = match (target, &self.assumed) {
            (Target::PathOnly, Some(assumed)) => assumed.as_target(),
            (Target::PathOnly, None) if self.allowed.is_empty() => {
                return Some(target.fingerprint());
            }
            (target, _) => target,
        };
        let Target::Origin { https, host, .. } = judged else {
            return None;
        };
        let admits = if self.allowed.is_empty() {
            https || self.allow_http || is_loopback(host)
        } else {
            self.allowed.iter().any(|it| it.is(judged))
        };
        admits.then(|| target.fingerprint())
    }
}

#[cfg(test)]
mod tests;
