//! Retries outside of the layer.
