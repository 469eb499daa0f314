//! Nodes in progress for which nothing can be made, since a quota is used up or the API server does not admit
//! it yet. What the operation has made ahead of other nodes' turns gives way to them: a node that is drained
//! must not wait for its Job because three others look for an image that is not there.

use crate::plan::{
    model::snapshot::{Admission, Snapshot},
    node::context::Op,
};

/// What the API server says of what a quota has no place for.
const QUOTA: &str = "exceeded quota";

/// Whether the node, which is in progress, is one. `error`: what keeps failing for it.
pub fn is(snapshot: &Snapshot, op: &Op, node: &str, error: Option<&str>) -> bool {
    let not_yet = matches!(snapshot.admission(&op.id, node), Some(Admission::NotYet(_)));
    not_yet || error.is_some_and(|error| error.contains(QUOTA))
}
