//! Capturing log lines while other tests run.

/// Makes the lines of the crate reach the subscribers of threads. Call it before one is set.
///
/// If a thread without a subscriber is the first to reach a line, `tracing` disables that line for
/// all threads while there is only one subscriber. With this one there are two, and no thread is
/// without.
pub(crate) fn enable() {
    // Fails if it is set already.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
}
