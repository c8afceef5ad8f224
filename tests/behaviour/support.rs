//! What the tests share: a scripted API on loopback, and the three stacks.

pub(crate) mod api;
pub(crate) mod stack;
