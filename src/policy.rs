//! What a user can say about which requests get a token, which answers reject one, and which
//! requests are sent again.

pub(crate) mod attach;
pub(crate) mod challenge;
pub(crate) mod origin;
pub(crate) mod rejection;
pub(crate) mod replay;
