//! The stacks that the benches compare, and the instruction counter that several benches use.

pub(crate) mod callgrind;
pub(crate) mod middleware_stacks;
// Only some benches use them.
#[allow(dead_code)]
pub(crate) mod references;
pub(crate) mod tower_stacks;
