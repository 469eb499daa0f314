//! `status`: operations, their nodes, and what each waits for.

pub mod live;
pub mod tree;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use self::tree::Look;
use super::{
    connection::Connection,
    failure::{Code, Result},
    follow::Scope,
    nodes_seen,
    operation::{self, Operation},
    output::{self, Output},
    screen::Screen,
    table::Table,
    target::Target,
    time,
};

/// Shows operations: their nodes, and what each waits for.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One operation: NAME, nou/NAME or nop/NAME; unset, all of the namespace
    pub target: Option<Target>,
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with = "target")]
    pub all_namespaces: bool,
    /// Only operations with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "target")]
    pub selector: Option<String>,
    /// Show changes until it is over; the exit code is its result
    #[arg(short = 'w', long, conflicts_with = "output")]
    pub watch: bool,
    #[command(flatten)]
    pub output: output::OutputArgs,
}

/// Runs the verb.
pub async fn run(args: &StatusArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let namespace = (!args.all_namespaces).then(|| connection.namespace.clone());
    let found = match &args.target {
        Some(target) => {
            let mut operation = target.find(connection).await?;
            operation::complete(connection, &mut operation).await;
            vec![operation]
        }
        None => operation::list(connection, namespace.as_deref(), args.selector.as_deref()).await?,
    };
    let one = args.target.is_some();
    if found.is_empty() && !args.output.is_object() {
        let place = namespace
            .as_deref()
            .map_or_else(|| "any namespace".to_owned(), |name| format!("namespace {name}"));
        eprintln!("No operations found in {place}.");
        return Ok(Code::Done);
    }
    if args.watch {
        let labels = args.selector.clone();
        let scope = found.first().filter(|_| one).map_or(Scope::All { namespace, labels }, Scope::of);
        return live::run(connection, screen, &scope, args.all_namespaces).await;
    }
    let code = if one && found.iter().any(Operation::has_failed) { Code::Failed } else { Code::Done };
    let look = Look {
        now: Timestamp::now(),
        control_planes: nodes_seen::control_planes(connection).await,
        namespaces: args.all_namespaces,
        whole: one,
        rows: (args.output.kind != Some(Output::Wide)).then_some(tree::MOST),
    };
    match args.output.kind {
        None => tree::lines(&found, &look, screen).iter().try_for_each(|line| screen.line(line))?,
        Some(Output::Table | Output::Wide) if one => {
            nodes_table(&found[0], &look, args.output.is_wide()).print(screen, !args.output.no_headers)?;
        }
        Some(Output::Table | Output::Wide) => {
            let table = operations_table(&found, look.now, args.all_namespaces, args.output.is_wide());
            table.print(screen, !args.output.no_headers)?;
        }
        Some(Output::Json | Output::Yaml | Output::Kyaml | Output::Name) => {
            args.output.objects(&found, one, screen)?;
        }
    }
    Ok(code)
}

/// A row for each operation.
pub fn operations_table(all: &[Operation], now: Timestamp, namespaces: bool, wide: bool) -> Table {
    let mut table = if namespaces {
        let mut table = Table::new(&["NAMESPACE"]);
        all.iter().for_each(|operation| table.row([operation.namespace.clone()]));
        table
    } else {
        let mut table = Table::new(&[]);
        all.iter().for_each(|_| table.row([]));
        table
    };
    let age = |operation: &Operation| operation.created.map_or_else(String::new, |time| time::age(now, time));
    table.column("NAME", all.iter().map(Operation::short));
    table.column("PHASE", all.iter().map(Operation::phase_word));
    table.column("DONE", all.iter().map(|operation| operation.counts.done.clone()));
    table.column("FAILED", all.iter().map(|operation| operation.counts.failed.to_string()));
    table.column("CURRENT", all.iter().map(|operation| operation.counts.current.clone()));
    table.column("AGE", all.iter().map(age));
    if wide {
        table.column("WHAT", all.iter().map(|operation| operation.what.clone()));
        table.column("MESSAGE", all.iter().map(|operation| time::relative(now, &operation.message)));
    }
    table
}

/// A row for each node of an operation.
fn nodes_table(operation: &Operation, look: &Look, wide: bool) -> Table {
    let mut table = Table::new(&["NODE", "PHASE", "STEP", "SINCE", "MESSAGE"]);
    let nodes = tree::in_order(operation, &look.control_planes);
    for (name, node) in &nodes {
        table.row([
            (*name).clone(),
            format!("{:?}", node.phase),
            node.step.map_or_else(String::new, |step| format!("{step:?}")),
            node.last_updated.as_ref().map_or_else(String::new, |time| time::age(look.now, time.0)),
            time::relative(look.now, node.message.as_deref().unwrap_or_default()),
        ]);
    }
    if wide {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        table.column("BEFORE", nodes.iter().map(|(_, node)| text(&node.before)));
        table.column("TARGET", nodes.iter().map(|(_, node)| text(&node.target)));
        table.column("JOB", nodes.iter().map(|(_, node)| text(&node.job_name)));
    }
    table
}
