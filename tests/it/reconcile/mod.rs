//! The operator's own process against an embedded cluster: NodeOps to their end, with everything that may go
//! wrong between.
//!
//! What is checked is what the cluster shows: requests, versions of objects, boots of nodes, and what is left
//! at the end.

mod accounts;
mod admission;
mod blocked;
mod continuous;
mod deletion;
mod drains;
mod edits;
mod facts;
mod failures;
mod faults;
mod flood;
mod held;
mod injected;
mod killed_drains;
mod leaders;
mod metrics;
mod node_conditions;
mod preflight;
mod reboots;
mod rig;
mod rights;
mod rivals;
mod rollout;
mod samples;
mod silent;
mod strangers;
mod takeover;
mod upgrades;

pub use rig::OPERATOR;
