//! What users write and read: the two custom resources, and every name that we put on an object; and of
//! objects of other kinds what is read of them.
//!
//! In reading order:
//!
//! - `nodeop`, `upgrade`: the two kinds; `node_status`: the entry of a node, `node_statuses`: all of them;
//!   `schema` and `not_null`: their rules;
//! - `child`, `run`, `rounds`, `attempts`: what a NodeOpUpgrade makes, and what it remembers of it;
//! - `names`: every label, annotation, finalizer and condition;
//! - `node`, `pod`, `job`, `event`, `role`, `volume_*`, `owner`, `metadata`: as much of others' objects as is
//!   read, and `bounded`, `labels`, `read_as`, `times`: how;
//! - the rest are small types and texts that several of these use.

pub mod attempts;
mod bounded;
pub mod child;
mod counts;
mod custom;
pub mod ended;
pub mod error_text;
pub mod event;
pub mod event_reason;
pub mod hash;
pub mod image_content;
pub mod job;
pub mod labels;
pub mod load_balancer;
pub mod metadata;
pub mod names;
pub mod node;
pub mod node_status;
pub mod node_statuses;
pub mod nodeop;
mod not_null;
pub mod owner;
pub mod pages;
pub mod pod;
pub mod pull_policy;
mod read_as;
pub mod role;
mod rounds;
pub mod run;
mod schema;
pub mod text;
mod times;
pub mod upgrade;
pub mod volume_attachment;
pub mod volume_claim;
pub mod webhooks;
