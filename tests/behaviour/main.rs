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
mod readiness;
mod redirected_requests;
mod redirects;
mod refresh_errors;
mod replayed_bodies;
mod room;
mod secrets;
mod spacing;
mod support;
mod table;
mod task_local;
mod tenants;
mod token_request;
mod undriven;
