//! What users write and read: the two custom resources, and every name that we put on an object; and of a
//! Node and a VolumeAttachment what is read of them.

pub mod attempts;
pub mod child;
mod counts;
pub mod ended;
pub mod error_text;
pub mod hash;
pub mod image_content;
pub mod load_balancer;
pub mod names;
pub mod node;
pub mod node_status;
pub mod node_statuses;
pub mod nodeop;
pub mod owner;
pub mod pages;
pub mod pull_policy;
mod read_as;
mod rounds;
pub mod run;
mod schema;
pub mod text;
pub mod upgrade;
pub mod volume_attachment;
