//! What users write and read: the two custom resources, and every name that we put on an object.

pub mod child;
pub mod image_content;
pub mod names;
pub mod nodeop;
pub mod owner;
mod schema;
pub mod text;
pub mod upgrade;
