//! Servers that others made, each in a folder here: how they are installed and run, and the stacks
//! that the tests send through.

pub(crate) mod installation;
pub(crate) mod process;
pub(crate) mod stack;
