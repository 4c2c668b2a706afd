//! The doors: the Redis protocol and HTTP.

pub mod http;
pub mod resp;
