//! The integration tests, one binary.

#![allow(clippy::unwrap_used, reason = "a test says no by panicking")]

mod applets;
mod contract;
