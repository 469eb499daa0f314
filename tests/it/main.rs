//! One binary for all integration tests: one link instead of many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are no tests to clippy; a test that cannot go on panics"
)]

mod api;
mod applets;
mod bad_input;
mod chaos;
mod command_line;
mod contract;
mod docs;
mod drain_and_cordon;
mod elections;
mod exposition;
mod fuzz;
mod gitops;
mod golden;
mod image;
mod install;
mod manifests;
mod monitoring;
#[cfg(feature = "plugin")]
mod plugin;
mod policies;
mod preflight;
mod reconcile;
mod removal;
mod rendered;
mod rollouts;
mod simulation;
mod takeover;
mod tidy;
mod validation;
