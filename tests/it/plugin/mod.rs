//! `kubectl kairos`, run as people run it, against a cluster without an operator: what it shows, what it asks
//! for, what it changes, and its exit codes.

mod errors;
mod looking;
mod plan;
mod rest;
mod rights;
mod runs;
mod stage;
mod status;
mod steering;
