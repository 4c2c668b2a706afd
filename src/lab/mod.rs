//! Experiments, statistics and tables.
//!
//! The question that the lab answers is: *a write was acknowledged here; when did everybody have
//! it, and what did that cost?* It answers it the same way for every strategy, kind of link and
//! cluster size, over real QUIC links or in virtual time.
//!
//! An experiment goes through these files, in this order:
//!
//! 1. [`config`]: what is compared, a product of axes, and the command that says it;
//! 2. [`workload`]: all writes of a run, decided before it begins, from a seed;
//! 3. [`cluster`] and [`simulated`]: the run itself, on real nodes or in virtual time; [`record`]: what happened to each write, and how the run is judged;
//! 4. [`statistics`]: percentiles that do not forget what never finished, and spread over runs;
//! 5. [`theory`]: what epidemics are known to need, beside what was measured;
//! 6. [`result`]: the numbers, as JSON holds them;
//! 7. [`threshold`] and [`baseline`]: when a comparison fails, and what changed since the last;
//! 8. [`report`]: the table, JSON and CSV.
//!
//! What must stay true: definitions are written once ([`report::DEFINITIONS`]) and stand under every
//! table; the load of a run follows from its parameters and seed alone; a write is never dropped
//! from the statistics because it was slow.
//!
//! Left out, so far: measuring peers that already run on a LAN, where there is no common clock.

pub mod baseline;
pub mod cluster;
pub mod config;
pub mod record;
pub mod report;
pub mod result;
pub mod simulated;
pub mod statistics;
pub mod theory;
pub mod threshold;
pub mod workload;
