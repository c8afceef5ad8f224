//! The crate's rules, held through its public face; one module per theme.

mod exchange;
mod failure;
mod flight;
mod life;
mod support;
