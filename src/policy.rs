//! The policies: which requests get a token, which responses reject it, and which requests are
//! replayed.

pub(crate) mod attach;
pub(crate) mod challenge;
pub(crate) mod origin;
pub(crate) mod rejection;
pub(crate) mod replay;
