//! What goes into a plan and what comes out of it. Nothing here decides.
//!
//! - `snapshot`, `question`, `silence`: what is known of the cluster, and what has to be asked live;
//! - `action`, `failing`: what is to be done, and what of it keeps failing;
//! - `intent`, `selector`, `object_name`: a spec read once, the nodes that it means, what we call things;
//! - `id`, `time`: identities and deadlines.

pub mod action;
pub mod failing;
pub mod id;
pub mod identity;
pub mod intent;
pub mod object_name;
pub mod question;
pub mod selector;
pub mod silence;
pub mod snapshot;
pub mod time;
