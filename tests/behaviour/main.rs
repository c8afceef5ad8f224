//! The rules of `docs/behaviour.md`, tested through the public API. One module per subject.

mod behaviour_table;
mod capacity;
mod connections;
mod early_rejections;
mod expiry;
mod late_tokens;
mod logs;
mod malformed_responses;
mod metrics;
mod mock_source;
mod observer;
mod origins;
mod outages;
mod public_api;
mod readiness;
mod redirected_requests;
mod redirects;
mod refresh_errors;
mod rejection_spacing;
mod rejections;
mod replayed_bodies;
mod request_events;
mod requests;
mod secrets;
mod server_quirks;
mod service_polls;
mod single_flight;
mod source_failures;
mod status;
mod subscribe;
mod task_local;
mod task_local_spawn;
mod tenant_scopes;
mod tenants;
mod token_files;
mod token_origins;
mod token_request;
mod undriven_runtimes;
mod waiting;

// Each test crate declares the parts of `tests/support` that it uses, so that none is dead code.
#[path = "../support"]
mod support {
    pub(crate) mod api;
    pub(crate) mod clock;
    pub(crate) mod events;
    pub(crate) mod stack;
}
