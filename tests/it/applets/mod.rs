//! The applets as real processes, on a directory that stands for a node and against a scripted API server.

mod api;
mod kernel;
mod node;
mod waiter;
