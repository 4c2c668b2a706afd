//! QUIC links between peers.
