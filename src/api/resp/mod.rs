//! The Redis protocol.

pub mod buffers;
pub mod parse;
pub mod reply;
mod words;
