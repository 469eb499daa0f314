//! `history`: what is over, the latest first; of an upgrade also its earlier runs, as far as their NodeOps are
//! kept.

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::{
    connection::Connection,
    failure::{Code, Result},
    operation::{self, Operation},
    output::OutputArgs,
    screen::Screen,
    table::Table,
    target, time,
};
use crate::api::nodeop::Phase;

/// Shows operations that are over, the latest first.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only what was about this node: NAME or node/NAME
    #[arg(value_parser = target::node)]
    pub node: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs the verb.
pub async fn run(args: &HistoryArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    let mut over = operation::list_with_earlier_runs(connection, namespace).await?;
    over.retain(Operation::is_over);
    if let Some(node) = &args.node {
        for operation in &mut over {
            operation::complete(connection, operation).await;
        }
        over.retain(|operation| operation.nodes.contains_key(node));
    }
    over.sort_by_key(|operation| std::cmp::Reverse(operation.ended()));
    if args.output.is_object() {
        args.output.objects(&over, false, screen)?;
        return Ok(Code::Done);
    }
    if over.is_empty() {
        eprintln!("No operation is over.");
        return Ok(Code::Done);
    }
    table(&over, args).print(screen, !args.output.no_headers)?;
    Ok(Code::Done)
}

fn table(over: &[Operation], args: &HistoryArgs) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&[]);
    over.iter().for_each(|_| table.row([]));
    if args.all_namespaces {
        table.column("NAMESPACE", over.iter().map(|operation| operation.namespace.clone()));
    }
    table.column("NAME", over.iter().map(Operation::short));
    match &args.node {
        Some(node) => {
            let phase =
                |operation: &Operation| operation.nodes.get(node).map_or(Phase::Pending, |entry| entry.phase);
            table.column("NODE-PHASE", over.iter().map(|operation| format!("{:?}", phase(operation))));
        }
        None => {
            table.column("PHASE", over.iter().map(Operation::phase_word));
            table.column("DONE", over.iter().map(|operation| operation.counts.done.clone()));
            table.column("FAILED", over.iter().map(|operation| operation.counts.failed.to_string()));
        }
    }
    let ago = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time::age(now, time));
    let took = |operation: &Operation| match (operation.created, operation.ended()) {
        (Some(begin), Some(end)) => time::age(end, begin),
        _ => String::new(),
    };
    table.column("TOOK", over.iter().map(took));
    table.column("ENDED", over.iter().map(|operation| ago(operation.ended())));
    if args.output.is_wide() {
        table.column("WHAT", over.iter().map(|operation| operation.what.clone()));
    }
    let said = |operation: &Operation| {
        let of_node = args.node.as_ref().and_then(|node| operation.nodes.get(node)?.message.clone());
        time::relative(now, &of_node.unwrap_or_else(|| operation.message.clone()))
    };
    table.column("MESSAGE", over.iter().map(said));
    table
}
