//! The Redis protocol.
