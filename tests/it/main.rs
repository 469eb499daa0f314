//! The one integration-test binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects by failing")]

mod drain_and_cordon;
mod golden;
mod simulation;
