//! Completion the way kubectl asks plugins for it: it calls `kubectl_complete-kairos` with the words typed so
//! far, of which the last is to be completed, and reads `value<TAB>description` lines and a directive.
//!
//! That other name is a link to this binary, which looks at its own; `completion install` makes it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use tokio::time::timeout;

use super::{
    args::{self, NAME},
    connection::{Connection, ConnectionArgs},
    failure::{Code, Failure, Result},
    nodes_seen, operation,
    screen::Screen,
};

/// The name under which kubectl looks for completion.
pub const LINK: &str = "kubectl_complete-kairos";
/// Nobody waits longer than that for a suggestion.
const PATIENCE: Duration = Duration::from_secs(1);
/// cobra's directive: no file names are offered.
const NO_FILES: &str = ":4";
/// cobra's directive: the shell offers file names.
const FILES: &str = ":0";

/// Makes kubectl complete the words of `kubectl kairos`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    #[command(subcommand)]
    pub what: What,
}

/// What is to be done about completion.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Links kubectl_complete-kairos, which kubectl looks for on PATH, to this program
    Install {
        /// Where; unset, where this program is
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

/// Runs the verb.
pub fn run(args: &CompletionArgs, screen: &Screen) -> Result<Code> {
    let What::Install { directory } = &args.what;
    let program =
        env::current_exe().map_err(|error| Failure::new(format!("finding this program: {error}")))?;
    let here = program.parent().unwrap_or_else(|| Path::new("."));
    let link = directory.as_deref().unwrap_or(here).join(LINK);
    // A link of ours, to where this program was before it was moved, is made anew.
    if fs::read_link(&link).is_ok_and(|to| to.file_name() == program.file_name()) {
        fs::remove_file(&link)
            .map_err(|error| Failure::new(format!("removing {}: {error}", link.display())))?;
    }
    if let Err(error) = std::os::unix::fs::symlink(&program, &link) {
        let link = link.display();
        return Err(if error.kind() == io::ErrorKind::AlreadyExists {
            Failure::new(format!("{link} is something else, and stays"))
                .hint("Remove it, or choose another directory of your PATH with --directory.")
        } else {
            Failure::new(format!("linking {link}: {error}"))
                .hint("Choose a directory of your PATH with --directory.")
        });
    }
    screen.line(&format!(
        "{} installed; kubectl's own completion does the rest: kubectl completion --help",
        link.display()
    ))?;
    Ok(Code::Done)
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Operations,
    Nodes,
    Namespaces,
    Files,
    Nothing,
}

/// Prints what the last word may become. What goes wrong here is nobody's business: nothing is offered.
pub async fn complete(words: &[String], screen: &Screen) -> Result<Code> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let root = args::Args::command();
    let (fixed, wanted) = suggest(&root, before, last);
    let mut lines = fixed;
    if let Ok(Some(found)) = timeout(PATIENCE, names(wanted, before)).await {
        lines.extend(found.into_iter().filter(|line| line.starts_with(last)));
    }
    for line in lines {
        screen.raw(&format!("{line}\n"))?;
    }
    screen.raw(&format!("{}\n", if wanted == Wanted::Files { FILES } else { NO_FILES }))?;
    Ok(Code::Done)
}

/// What the verbs and flags offer, and what has to be asked of the cluster.
fn suggest(root: &Command, before: &[String], last: &str) -> (Vec<String>, Wanted) {
    let Typed { verb, given, open } = Typed::read(root, before);
    let verb_or_root = verb.unwrap_or(root);
    if let Some(flag) = open {
        let values = flag.get_possible_values();
        let values =
            values.iter().map(|value| value.get_name().to_owned()).filter(|value| value.starts_with(last));
        return (values.collect(), value_of(flag.get_id().as_str()));
    }
    if last.starts_with('-') {
        let longs = flags(root, verb).filter(|arg| !arg.is_hide_set()).filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some(format!("--{}\t{help}", arg.get_long()?))
        });
        return (longs.filter(|line| line.starts_with(last)).collect(), Wanted::Nothing);
    }
    let subcommands = verb_or_root.get_subcommands().filter(|verb| !verb.is_hide_set());
    let about = |verb: &Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
    let lines = subcommands.map(|verb| format!("{}\t{}", verb.get_name(), about(verb)));
    let wanted = verb.map_or(Wanted::Nothing, |verb| positional(verb.get_name(), given));
    (lines.filter(|line| line.starts_with(last)).collect(), wanted)
}

/// What was typed so far.
struct Typed<'a> {
    verb: Option<&'a Command>,
    /// Arguments of the verb that are no flags, nor their values.
    given: usize,
    /// The flag whose value comes next.
    open: Option<&'a clap::Arg>,
}

impl<'a> Typed<'a> {
    fn read(root: &'a Command, before: &[String]) -> Self {
        let mut typed = Self { verb: None, given: 0, open: None };
        for word in before {
            if typed.open.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                typed.open = flags(root, typed.verb).find(|arg| takes_next(arg, word));
            } else if typed.verb.is_some() {
                typed.given += 1;
            } else {
                typed.verb = root.get_subcommands().find(|verb| verb.get_name() == word);
            }
        }
        typed
    }
}

/// The flags that may come next: those of all verbs, and those of the one.
fn flags<'a>(root: &'a Command, verb: Option<&'a Command>) -> impl Iterator<Item = &'a clap::Arg> {
    root.get_arguments().chain(verb.into_iter().flat_map(Command::get_arguments))
}

/// Whether the word is this flag, and its value the next word; that of `--flag=value` is in it.
fn takes_next(arg: &clap::Arg, word: &str) -> bool {
    let is_named = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
        || arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()));
    is_named && arg.get_action().takes_values()
}

fn value_of(flag: &str) -> Wanted {
    match flag {
        "namespace" | "operator_namespace" => Wanted::Namespaces,
        "kubeconfig" | "file" | "directory" => Wanted::Files,
        _ => Wanted::Nothing,
    }
}

/// What a verb's next argument is.
fn positional(verb: &str, given: usize) -> Wanted {
    match (verb, given) {
        ("status" | "wait" | "plan" | "pause" | "resume" | "cancel" | "logs", 0) => Wanted::Operations,
        ("explain" | "history", 0) | ("logs", 1) => Wanted::Nodes,
        _ => Wanted::Nothing,
    }
}

/// The cluster's names. Flags that choose the cluster are taken from what was typed.
async fn names(wanted: Wanted, before: &[String]) -> Option<Vec<String>> {
    /// The flags alone, whatever else was typed.
    #[derive(Parser)]
    #[command(ignore_errors = true, disable_help_flag = true)]
    struct Flags {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[arg(trailing_var_arg = false)]
        _rest: Vec<String>,
    }
    if matches!(wanted, Wanted::Files | Wanted::Nothing) {
        return None;
    }
    let typed = Flags::try_parse_from([NAME.to_owned()].into_iter().chain(before.iter().cloned())).ok()?;
    let connection = Connection::open(&typed.connection).await.ok()?;
    Some(match wanted {
        Wanted::Operations => {
            let found = operation::list(&connection, Some(&connection.namespace), None).await.ok()?;
            found
                .iter()
                .map(|operation| format!("{}\t{} {}", operation.name, operation.kind, operation.phase_word()))
                .collect()
        }
        Wanted::Nodes => {
            nodes_seen::readable(&connection).await.ok()??.into_iter().map(|node| node.name).collect()
        }
        Wanted::Namespaces => {
            let api = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(connection.client.clone());
            let found = api.list(&kube::api::ListParams::default()).await.ok()?;
            found.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect()
        }
        Wanted::Files | Wanted::Nothing => return None,
    })
}
