//! The cluster's nodes, where the user may read them.

use std::collections::BTreeSet;

use kube::{Api, api::ListParams};

use super::{
    connection::Connection,
    failure::{self, Doing, Result},
};
use crate::{api::node::Node, observe::view, plan::model::snapshot::NodeView};

/// All nodes as the planner sees them; none if the user may not read them.
pub async fn readable(connection: &Connection) -> Result<Option<Vec<NodeView>>> {
    match Api::<Node>::all(connection.client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => Ok(Some(nodes.items.into_iter().map(view::node).collect())),
        Err(error) if failure::is_forbidden(&error) => Ok(None),
        Err(error) => Err(error).doing(|| "listing nodes".into()),
    }
}

/// The names of the control plane's nodes, which go first. Without the right to read nodes there are none.
pub async fn control_planes(connection: &Connection) -> BTreeSet<String> {
    let nodes = readable(connection).await.ok().flatten().unwrap_or_default();
    nodes.into_iter().filter(NodeView::has_control_plane_label).map(|node| node.name).collect()
}

/// A number of nodes, as a sentence says it.
pub fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}
