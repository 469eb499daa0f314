//! `kubectl kairos`: see operations, plan them, start them, hold them, end them, with the user's own rights.
//!
//! A verb is a file. Each gets a [`Connection`] and a [`Screen`] and ends with a [`Code`] or a [`Failure`].
//! What they share: `args` (flags), `target` (how an object is named), `operation` (both kinds as one),
//! `table`, `time`, and `follow` (what changes, as it changes).
//!
//! It is built with the feature `plugin` alone, so that the operator's image holds none of it.

mod args;
mod connection;
mod explain;
mod failure;
mod follow;
mod logs;
mod make;
mod nodes;
mod nodes_seen;
mod operation;
mod output;
mod plan;
mod screen;
mod selector;
mod start;
mod status;
mod steer;
mod table;
mod target;
mod time;
mod wait;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use self::{
    args::{Args, Verb},
    connection::Connection,
    failure::{Code, Failure, Result},
    screen::Screen,
};

/// The binary: what was typed, carried out; its exit code.
pub fn main() -> ExitCode {
    let args = match parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            // 2 is "blocked or refused"; kubectl ends with 1, too.
            return ExitCode::from(u8::from(error.exit_code() != 0));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&args)),
        Err(error) => Err(Failure::new(format!("starting: {error}"))),
    };
    let code = ended.unwrap_or_else(|failure| {
        if !failure.is_silent() {
            eprintln!("error: {failure}");
        }
        failure.code
    });
    ExitCode::from(code as u8)
}

fn parse(argv: impl IntoIterator<Item = OsString>) -> std::result::Result<Args, clap::Error> {
    Args::try_parse_from(argv)
}

async fn run(args: &Args) -> Result<Code> {
    let screen = Screen::stdout(args.color);
    let connection = Connection::open(&args.connection).await?;
    match &args.verb {
        Verb::Status(of) => status::run(of, &connection, &screen).await,
        Verb::Plan(of) => plan::run(of, &connection, &screen).await,
        Verb::Wait(of) => wait::run(of, &connection, &screen).await,
        Verb::Explain(of) => explain::run(of, &connection, &screen).await,
        Verb::Nodes(of) => nodes::run(of, &connection, &screen).await,
        Verb::Logs(of) => logs::run(of, &connection, &screen).await,
        Verb::Upgrade(of) => start::upgrade(of, &connection, &screen).await,
        Verb::Run(of) => start::run(of, &connection, &screen).await,
        Verb::Pause(of) => steer::pause(of, true, &connection, &screen).await,
        Verb::Resume(of) => steer::pause(of, false, &connection, &screen).await,
        Verb::Cancel(of) => steer::cancel(of, &connection, &screen).await,
    }
}
