//! `nodes`: what each node runs, and who has it.

use clap::Args;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::{
    connection::Connection,
    failure::{Code, Doing, Result},
    output::{Output, OutputArgs},
    screen::Screen,
    table::Table,
};
use crate::{
    api::{names, node::Node},
    observe::view,
    plan::model::{id::OpRef, snapshot::NodeView},
};

/// Shows nodes: the release and boot state of each, whose it is, and whose its cordon is.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Only nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the verb.
pub async fn run(args: &NodesArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    let nodes = Api::<Node>::all(connection.client.clone()).list(&params).await;
    let nodes: Vec<NodeView> =
        nodes.doing(|| "listing nodes".into())?.items.into_iter().map(view::node).collect();
    match args.output.kind {
        Some(Output::Json | Output::Yaml | Output::Kyaml) => {
            args.output.value(&nodes.iter().map(value).collect(), screen)?;
        }
        Some(Output::Name) => {
            screen.raw(&nodes.iter().map(|node| format!("node/{}\n", node.name)).collect::<String>())?;
        }
        None | Some(Output::Table | Output::Wide) if nodes.is_empty() => eprintln!("No nodes found."),
        None | Some(Output::Table | Output::Wide) => {
            table(&nodes, args.output.is_wide()).print(screen, !args.output.no_headers)?;
        }
    }
    Ok(Code::Done)
}

fn table(nodes: &[NodeView], wide: bool) -> Table {
    let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    let mut table = Table::new(&["NODE", "READY"]);
    for node in nodes {
        table.row([node.name.clone(), if node.ready { "True" } else { "False" }.to_owned()]);
    }
    if wide {
        let role = |node: &NodeView| {
            if node.has_control_plane_label() { "control plane" } else { "worker" }.to_owned()
        };
        table.column("ROLE", nodes.iter().map(role));
    }
    table.column("RELEASE", nodes.iter().map(|node| or_none(release(node))));
    table.column("BOOT", nodes.iter().map(|node| or_none(boot_state(node))));
    table.column("CLAIMED-BY", nodes.iter().map(|node| or_none(node.claimed_by.as_ref().map(path))));
    table.column("CORDONED-BY", nodes.iter().map(|node| or_none(cordon(node))));
    if wide {
        table.column("BOOT-ID", nodes.iter().map(|node| or_none(Some(node.boot_id.clone()))));
    }
    table
}

/// The release that a node runs, as upgrades compare it.
pub fn release(node: &NodeView) -> Option<String> {
    node.annotations.get(names::RELEASE).cloned()
}

/// Which image the node has booted.
pub fn boot_state(node: &NodeView) -> Option<String> {
    let label = || node.labels.get(names::BOOT_STATE).map(str::to_owned);
    node.annotations.get(names::BOOT_STATE_OF).cloned().or_else(label)
}

/// Whose the cordon is, if there is one.
fn cordon(node: &NodeView) -> Option<String> {
    if !node.unschedulable {
        return None;
    }
    let kept = node.kept_cordon.as_ref();
    let ours = node.cordoned_by.as_ref().map(path);
    Some(
        ours.or_else(|| kept.map(|kept| format!("{} (failed)", path(&kept.by))))
            .unwrap_or_else(|| "others".into()),
    )
}

/// Namespace and name of a NodeOp.
pub fn path(op: &OpRef) -> String {
    format!("{}/{}", op.namespace, op.name)
}

/// A node for programs.
pub fn value(node: &NodeView) -> Value {
    json!({
        "name": node.name,
        "ready": node.ready,
        "controlPlane": node.has_control_plane_label(),
        "release": release(node),
        "bootState": boot_state(node),
        "bootId": node.boot_id,
        "claimedBy": node.claimed_by.as_ref().map(path),
        "unschedulable": node.unschedulable,
        "cordonedBy": cordon(node),
    })
}
