//! `kubectl kairos`: see operations, plan them, start them, hold them, end them, with the user's own rights.
//!
//! A verb is a file. Each gets a [`Connection`] and a [`Screen`] and ends with a [`Code`] or a [`Failure`].
//! What they share: `args` (flags), `target` (how an object is named), `operation` (both kinds as one),
//! `table`, `time`, and `follow` (what changes, as it changes).
//!
//! It is built with the feature `plugin` alone, so that the operator's image holds none of it.

mod adopted;
mod args;
mod check;
mod completion;
mod connection;
mod explain;
mod failure;
mod fields;
mod follow;
mod history;
mod installed;
mod logs;
mod make;
mod nodes;
mod nodes_seen;
mod operation;
mod output;
mod plan;
mod report;
mod rights;
mod screen;
mod selector;
mod start;
mod status;
mod steer;
mod table;
mod target;
mod time;
mod version;
mod wait;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::Parser;

use self::{
    args::{Args, Verb},
    connection::Connection,
    failure::{Code, Failure, Result},
    screen::{Color, Screen},
};

/// The binary: what was typed, carried out; its exit code.
pub fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let called = argv.first().map(Path::new).and_then(Path::file_name);
    let work = if called.is_some_and(|name| name == completion::LINK) {
        let words = argv[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Work::Complete(words)
    } else {
        match Args::try_parse_from(argv) {
            Ok(args) => Work::Verb(Box::new(args)),
            Err(error) => {
                let _ = error.print();
                // 2 is "blocked or refused"; kubectl ends with 1, too.
                return ExitCode::from(u8::from(error.exit_code() != 0));
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&work)),
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

/// What the binary was called for.
enum Work {
    Verb(Box<Args>),
    /// The words that kubectl wants completed.
    Complete(Vec<String>),
}

async fn run(work: &Work) -> Result<Code> {
    let args = match work {
        Work::Complete(words) => return completion::complete(words, &Screen::stdout(Color::Never)).await,
        Work::Verb(args) => args,
    };
    let screen = Screen::stdout(args.color);
    match &args.verb {
        Verb::Completion(of) => return completion::run(of, &screen),
        Verb::Version(of) if of.client => return version::client(&screen),
        _ => {}
    }
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
        Verb::History(of) => history::run(of, &connection, &screen).await,
        Verb::Check(of) => check::run(of, &connection, &screen).await,
        Verb::Report(of) => report::run(of, &connection, &screen).await,
        Verb::Version(of) => version::run(of, &connection, &screen).await,
        Verb::Completion(of) => completion::run(of, &screen),
    }
}
