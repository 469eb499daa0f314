//! What is typed: verbs and flags, spelled as kubectl spells them.

use clap::{Parser, Subcommand};

use super::{connection::ConnectionArgs, screen::Color, status};

/// The name in help texts. kubectl calls the binary kubectl-kairos.
pub const NAME: &str = "kubectl kairos";

/// Node operations of the Kairos operator: see them, plan them, start them, hold them, end them.
///
/// Exit codes: 0 done or healthy, 1 an error or an operation that failed, 2 blocked or refused, 124 time is up.
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
}
