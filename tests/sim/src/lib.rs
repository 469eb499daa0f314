//! An embedded Kubernetes API server with hollow nodes.

pub mod audit;
pub mod auth;
mod control;
pub mod faults;
pub mod json;
pub mod kinds;
pub mod server;
pub mod show;
pub mod store;
