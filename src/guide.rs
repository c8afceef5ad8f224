//! The guide: what to know before you use the crate in production.
//!
//! | page | what it covers |
//! |---|---|
//! | [`settings`] | every default, its setting, and the reason for it |
//! | [`failures`] | what the caller and the token endpoint see when something fails; `TokenError`; cancel safety |
//! | [`origins`] | where a token may go |
//! | [`replay`] | which responses reject a token, and which requests are replayed |
//! | [`tenants`] | a token per request or per task |
//! | [`layers`] | the order of timeouts, retries, redirects and limits |
//! | [`sources`] | the sources, configuration, your own source of tokens; the cache on its own |
//! | [`fleet`] | one token for many processes, through Redis |
//! | [`testing`] | tests without a server, or against one on loopback |
//! | [`secrets`] | what is wiped from memory, and what is not |
//! | [`troubleshooting`] | compiler errors, requests without a token, hanging tests |
//!
//! The pages use the features `client-credentials`, `fleet`, `reqwest-middleware`, `serde`,
//! `task-local`, `token-file`, `mock` and `mock-server`.

pub mod settings {
    #![doc = include_str!("guide/settings.md")]
}

pub mod failures {
    #![doc = include_str!("guide/failures.md")]
}

pub mod origins {
    #![doc = include_str!("guide/origins.md")]
}

pub mod replay {
    #![doc = include_str!("guide/replay.md")]
}

pub mod tenants {
    #![doc = include_str!("guide/tenants.md")]
}

pub mod layers {
    #![doc = include_str!("guide/layers.md")]
}

pub mod sources {
    #![doc = include_str!("guide/sources.md")]
}

pub mod fleet {
    #![doc = include_str!("guide/fleet.md")]
}

pub mod testing {
    #![doc = include_str!("guide/testing.md")]
}

pub mod secrets {
    #![doc = include_str!("guide/secrets.md")]
}

pub mod troubleshooting {
    #![doc = include_str!("guide/troubleshooting.md")]
}
