//! Experiments, statistics and tables.
