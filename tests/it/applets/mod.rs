//! The applets as real processes, on a directory that stands for a node and against a scripted API server.

mod api;
mod cloud_config;
mod disk;
mod image_check;
mod kernel;
mod lock;
mod log_level;
mod machine;
mod node;
mod preflight;
mod upgrade;
mod waiter;
