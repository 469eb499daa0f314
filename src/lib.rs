//! Node operations for Kubernetes: observe the cluster, plan without touching it, render what the plan needs,
//! act; small applets on the node do the rest.
//!
//! ```text
//!              watch                Snapshot           Plan{actions, questions, waiting}            objects
//!  Kubernetes ───────▶ observe ───────────────▶ plan ──────────────────────────────────▶ act ◀──── render
//!      ▲                                          │                                       │
//!      └──────────── status (messages, phases) ◀──┴────────────── creates, patches ◀──────┘
//!                                                                                         │ Job or pod: the same binary,
//!                                                                                         ▼ another applet
//!                             on the node:  install ─▶ upgrade ─▶ sentinel ─▶ reboot-waiter      node-labeler
//! ```
//!
//! Read in this order: what users write ([`api`]); what controller and applets agree on ([`contract`]); the
//! decisions ([`plan`], a pure function); where they come from and what becomes of them ([`observe`],
//! [`render`], [`act`]); the loop around it ([`controllers`]); the other end of the contract ([`node`]).
//! `tests/it/tidy.rs` holds the walls.

pub mod api;
pub mod contract;
pub mod plan;

pub mod observe;

pub mod render;

pub mod act;

pub mod controllers;

pub mod node;

pub mod cli;
pub mod manifests;
pub mod telemetry;
