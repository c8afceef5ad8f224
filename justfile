# The checks of this repository. `just` lists them, `just check` runs the ones to run before a
# commit, `bash .ci/run` runs all in a fresh clone. The tools: `pip install -r .ci/requirements.txt`.

python := if os_family() == "windows" { "python" } else { "python3" }
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# One target directory for all recipes, so that the TLS libraries are built once.
export CARGO_TARGET_DIR := target
# Windows prints in another encoding by default.
export PYTHONUTF8 := "1"

# The crate itself counted: tower-layer, tower-service, http, tokio, async-trait and little else.
max_core_crates := "22"

# All features but those that compile TLS or signatures in C, which takes minutes and is not ours.
without_c := "client-credentials,follow-redirect,metrics,mock-server,private-key-jwt-rust-crypto,redis,reqwest-middleware,reqwest-middleware-0-4,secrecy,serde,stream,task-local,token-file,tracing"

# A limit for examples, which hang if something is wrong.
example_seconds := "120"

# Lists the recipes.
default:
    @just --list --unsorted

# Runs the checks that are quick once dependencies are built.
check: style fmt typos clippy test

# Runs the tests by the README's command; three of them need Node and npm.
test:
    {{python}} .ci/expect.py --readme "cargo test" \
        --expect "^test result: ok" --expect "^test .*README\.md .*ok$"

# Lints all targets, with all features; `features` lints the library with none.
clippy:
    cargo clippy --locked --quiet --all-targets --all-features -- -D warnings

# Lints the library without features, with each feature alone, and with native TLS.
features:
    cargo hack clippy --locked --quiet --lib --each-feature -- -D warnings
    cargo clippy --locked --quiet --lib --no-default-features \
        --features client-credentials,reqwest-middleware,native-tls -- -D warnings

# Checks the formatting of all packages here.
fmt:
    cargo fmt --check
    cargo fmt --check --manifest-path fuzz/Cargo.toml
    cargo fmt --check --manifest-path benches/peers/Cargo.toml
    cargo fmt --check --manifest-path benches/counted/Cargo.toml
    cargo fmt --check --manifest-path examples/hosts/Cargo.toml

# Checks the wording and line length of the comments in src.
style:
    {{python}} .ci/style.py

# Checks the spelling of everything.
typos:
    typos

# Builds the documentation, without warnings.
docs $RUSTDOCFLAGS="-D warnings":
    cargo doc --locked --quiet --no-deps --all-features

# Builds the documentation as docs.rs does; needs a nightly toolchain.
docs-rs $RUSTDOCFLAGS="-D warnings --cfg docsrs":
    cargo +nightly doc --locked --quiet --no-deps --all-features

# Fetches all crates; fails if Cargo.lock does not fit Cargo.toml.
lockfile:
    cargo fetch --locked --quiet

# Checks that no file names a directory of one machine or a package host.
machine-paths:
    {{python}} .ci/machine_paths.py

# Checks licenses, duplicate dependencies and where crates come from.
deny:
    cargo deny --locked check bans licenses sources
    cargo deny --locked --manifest-path fuzz/Cargo.toml --config deny.toml check sources
    cargo deny --locked --manifest-path benches/peers/Cargo.toml --config deny.toml check sources
    cargo deny --locked --manifest-path benches/counted/Cargo.toml --config deny.toml check sources
    cargo deny --locked --manifest-path examples/hosts/Cargo.toml --config deny.toml check sources

# Checks dependencies against the advisory database, which is fetched from GitHub.
advisories:
    cargo deny --locked check advisories

# Checks that the library without features needs few crates.
core-size:
    {{python}} .ci/core_size.py {{max_core_crates}}

# Builds the library for WebAssembly, where it has neither a transport nor a clock.
wasm:
    rustup target add wasm32-unknown-unknown
    cargo check --locked --quiet --lib --target wasm32-unknown-unknown --no-default-features
    cargo check --locked --quiet --lib --target wasm32-unknown-unknown --no-default-features \
        --features client-credentials

# Builds the library with the minimum Rust version, which must be the one in the README.
rust-version:
    {{python}} .ci/rust_version.py
    cargo hack check --locked --quiet --rust-version --lib --no-default-features \
        --features {{without_c}} --target-dir {{quote(target / "rust-version")}}

# Builds the library with the oldest dependencies that Cargo.toml allows.
minimal-versions:
    {{python}} .ci/minimal_versions.py {{without_c}}

# Checks the state that threads share under every interleaving, with loom.
model:
    {{python}} .ci/model.py

# Injects faults according to a seed, which repeats a run.
chaos $CHAOS_SEED="1":
    cargo test --locked --quiet --test chaos -- --nocapture

# Measures 20 processes with faults, over Redis; takes three minutes and most of two cores.
fleet:
    cargo test --locked --quiet --release --test fleet

# Counts the instructions of a request with valgrind; fails above the limits in the benchmark.
instructions:
    cargo bench --locked --quiet --manifest-path benches/counted/Cargo.toml \
        --target-dir {{quote(target / "counted")}} --bench instructions

# Runs the quickstart by the README's command.
quickstart:
    cargo build --locked --quiet --example quickstart
    {{python}} .ci/expect.py --readme "cargo run --example quickstart" \
        --seconds {{example_seconds}}

# Runs all other examples.
examples:
    {{python}} .ci/examples.py --seconds {{example_seconds}} --except quickstart

# Builds the fuzz targets; `fuzz/run` runs them.
fuzz $RUSTFLAGS="--cfg fuzzing":
    cargo clippy --locked --quiet --lib --no-default-features \
        --features client-credentials,reqwest \
        --target-dir {{quote(target / "fuzzing")}} -- -D warnings
    cargo check --locked --quiet --manifest-path fuzz/Cargo.toml \
        --target-dir {{quote(target / "fuzzing")}}

# Builds the comparison with other crates.
peers:
    cargo clippy --locked --quiet --all-targets --manifest-path benches/peers/Cargo.toml \
        --target-dir {{quote(target / "peers")}} -- -D warnings

# Builds and tests the recipes for hosts: kube, object_store and others.
hosts:
    cargo test --locked --quiet --manifest-path examples/hosts/Cargo.toml

# After the first release, `cargo semver-checks` goes here, and into `.ci/run` before `test`.
