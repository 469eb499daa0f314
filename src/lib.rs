//! Node operations for Kubernetes: observe the cluster, plan without touching it, render what the plan needs, act;
//! small applets on the node do the rest.

pub mod act;
pub mod api;
pub mod cli;
pub mod contract;
pub mod controllers;
pub mod manifests;
pub mod node;
pub mod observe;
pub mod plan;
pub mod render;
pub mod telemetry;
