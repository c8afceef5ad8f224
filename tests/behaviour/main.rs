//! The crate's rules, held through its public face; one module per theme.

mod api;
mod early;
mod exchange;
mod failure;
mod flight;
mod life;
mod lying;
mod origins;
mod outage;
mod poll;
mod redirects;
mod room;
mod secrets;
mod spacing;
mod support;
mod table;
mod task_local;
mod task_local_spawn;
mod tenant_scopes;
mod tenants;
mod token_origins;
mod token_request;
mod undriven;
