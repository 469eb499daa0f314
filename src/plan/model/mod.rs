//! What goes into a plan and what comes out of it. Nothing here decides about an operation.
//!
//! - `snapshot`, `question`: what is known of the cluster, and what has to be asked live;
//! - `action`, `node_change`, `notice`, `effects`, `identity`, `failing`: what is to be done and said, what
//!   one decision wants of that and what all do, what makes two of them the same thing, and which of them
//!   keep failing;
//! - `intent`, `selector`, `object_name`: a spec read once, the nodes that it means, what we call things;
//! - `why`, `manual`: why a node is not moving, and where the manual explains a failure;
//! - `id`, `time`, `age`, `stamp`: names and UIDs, deadlines, which of two objects is the older one, and
//!   moments that stand in a status by whichever clock;
//! - `kept_cordon`, `hints`, `lifecycle`: what stands on a node that failed, for autoscalers on one that is
//!   claimed, and for everybody on one that is drained.

pub mod action;
pub mod age;
pub mod effects;
pub mod failing;
pub mod hints;
pub mod id;
pub mod identity;
pub mod intent;
pub mod kept_cordon;
pub mod lifecycle;
pub mod manual;
pub mod node_change;
pub mod notice;
pub mod object_name;
pub mod question;
pub mod selector;
pub mod snapshot;
pub mod stamp;
pub mod time;
pub mod why;
