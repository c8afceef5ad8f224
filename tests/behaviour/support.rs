//! What the tests share: a scripted API on loopback, the three stacks, a clock.

pub(crate) mod api;
pub(crate) mod clock;
pub(crate) mod stack;
