//! Experiments, statistics and tables.

pub mod config;
pub mod record;
pub mod statistics;
pub mod theory;
pub mod workload;
