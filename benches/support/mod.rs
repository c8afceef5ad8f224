//! The stacks that the benches compare, and the instruction counter that several benches use.

pub(crate) mod callgrind;
pub(crate) mod middleware_stacks;
pub(crate) mod references;
pub(crate) mod tower_stacks;
