//! The Redis protocol.

pub mod buffers;
pub mod command;
pub mod describe;
pub mod glob;
pub mod parse;
pub mod reply;
mod table;
mod words;
