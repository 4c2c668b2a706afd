//! Whole clusters in virtual time.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]
