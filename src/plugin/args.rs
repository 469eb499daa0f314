//! What is typed: verbs and flags, spelled as kubectl spells them.

use clap::{Parser, Subcommand};

use super::{
    check, completion, connection::ConnectionArgs, explain, history, logs, nodes, plan, report,
    screen::Color, start, status, steer, version, wait,
};

/// The name in help texts. kubectl calls the binary kubectl-kairos.
pub const NAME: &str = "kubectl kairos";

/// Node operations of the Kairos operator: see them, plan them, start them, hold them, end them.
///
/// Exit codes: 0 done or healthy, 1 an error or an operation that failed, 2 blocked or refused, 124 time is
/// up.
#[derive(Debug, Parser)]
#[command(name = NAME, bin_name = NAME, version, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Colours: auto is on a terminal, unless NO_COLOR or TERM=dumb says otherwise
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Shows operations: their nodes, and what each waits for
    Status(status::StatusArgs),
    /// Shows what an operation would do, and writes nothing
    Plan(plan::PlanArgs),
    /// Waits until an operation is over
    Wait(wait::WaitArgs),
    /// Says why a node is worked on, or is not
    Explain(explain::ExplainArgs),
    /// Shows nodes: release, boot state, whose each is
    Nodes(nodes::NodesArgs),
    /// Prints what an operation has printed, failed tries included
    Logs(logs::LogsArgs),
    /// Upgrades Kairos on nodes to an image
    Upgrade(Box<start::UpgradeArgs>),
    /// Runs a command on nodes
    Run(Box<start::RunArgs>),
    /// Starts no further node; those under way go on to their end
    Pause(steer::SteerArgs),
    /// Goes on with what was paused
    Resume(steer::SteerArgs),
    /// Ends an operation, after it has said what that ends
    Cancel(steer::CancelArgs),
    /// Shows operations that are over
    History(history::HistoryArgs),
    /// Checks that the operator is installed and leads, and what you may do
    Check(check::CheckArgs),
    /// Collects what helps to find a fault, without secrets
    Report(report::ReportArgs),
    /// Shows versions
    Version(version::VersionArgs),
    /// Makes kubectl complete these words
    Completion(completion::CompletionArgs),
}
