//! QUIC links between peers.

pub mod emulation;
pub mod identity;
mod socket;
