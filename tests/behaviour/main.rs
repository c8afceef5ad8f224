//! The rules of `docs/behaviour.md`, tested through the public API. One module per subject.

// Each test crate declares the parts of `tests/support` that it uses, so that none is dead code.
#[macro_use]
#[path = "../support"]
mod support {
    #[macro_use]
    mod reqwest_versions;
    pub(crate) mod api;
    pub(crate) mod blocking;
    pub(crate) mod clock;
    pub(crate) mod events;
    pub(crate) mod fleet;
    pub(crate) mod jwt;
    pub(crate) mod logs;
    pub(crate) mod rotation;
    pub(crate) mod stack;
}

mod assertion_files;
mod behaviour_table;
mod buffered_replays;
mod capacity;
mod client_assertions;
mod client_certificates;
mod client_proofs;
mod configuration;
mod connections;
mod discovery;
mod early_rejections;
mod expiry;
mod faults;
mod fetch_context;
mod fleet;
mod fleet_alone;
mod fleet_faults;
mod fleet_reports;
mod grants;
mod hostile_metadata;
mod late_tokens;
mod logs;
mod malformed_responses;
mod metrics;
mod mock_source;
mod observer;
mod operations;
mod origins;
mod outages;
mod private_key_files;
mod public_api;
mod readiness;
mod redirected_requests;
mod redirects;
mod refresh_errors;
mod refresh_rotation;
mod rejection_costs;
mod rejection_events;
mod rejection_spacing;
mod rejections;
mod replayed_bodies;
mod request_events;
mod requests;
mod retries;
mod secret_files;
mod secrets;
mod server_quirks;
mod service_polls;
mod single_flight;
mod source_failures;
mod stale_metadata;
mod status;
mod subscribe;
mod task_local;
mod task_local_spawn;
mod tenant_scopes;
mod tenants;
mod token_files;
mod token_origins;
mod token_request;
mod token_sources;
mod undriven_runtimes;
mod waiting;
mod warnings;
