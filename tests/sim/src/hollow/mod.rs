//! Hollow nodes: clients of the API that play a node, its kubelet and its reboots, with a directory for a
//! disk.
//!
//! They use nothing of the server but its API, so they would work against a real one.

mod containers;
pub mod etcd;
pub mod fleet;
pub mod kairos;
mod kubelet;
mod model;
pub mod node;
mod register;
pub mod registry;
mod root;
mod run;
pub mod script;
mod worker;
