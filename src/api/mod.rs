//! The doors: the Redis protocol and HTTP.

pub mod resp;
