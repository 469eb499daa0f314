//! `kairos-demo`: an upgrade (or any command) on five nodes of an embedded cluster, watched live.
//! `scripts/demo` runs it.
//!
//! In reading order: [`stage`] is the cluster with its workload, [`operator`] the process that works on it,
//! [`story`] what its status tells, [`view`] how that is shown, [`summary`] what is said and checked at the
//! end.

mod operator;
mod stage;
mod story;
mod summary;
mod sweep;
mod view;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::{operator::Operator, stage::Stage, story::Story, sweep::Sweeper, view::View};

/// Longer than any of the stories takes, also on a machine that compiles beside it.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Runs the operator on an embedded cluster of five nodes and shows what happens.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Run manifests/samples/nodeop.yaml, a command with a reboot, instead of the upgrade.
    #[arg(long, conflicts_with = "failure")]
    nodeop: bool,
    /// Show an upgrade that fails: a node falls back to its old image, and the canary stops.
    #[arg(long)]
    failure: bool,
    /// Leave everything running until Ctrl-C, and say how to reach it with kubectl.
    #[arg(long)]
    keep: bool,
    /// The operator's binary.
    #[arg(long, default_value = "target/debug/kairos-operator")]
    operator: PathBuf,
    /// The binary that shows the rollout.
    #[arg(long, default_value = "target/debug/kubectl-kairos")]
    plugin: PathBuf,
    /// Where manifests/ is.
    #[arg(long, default_value = ".")]
    repository: PathBuf,
    /// Remove this directory when standard input is closed: what a demo starts for its own end.
    #[arg(long, hide = true)]
    sweep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match &arguments.sweep {
        Some(directory) => sweep::run(directory).map(|()| Ended::Well),
        None => show(&arguments),
    };
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(arguments: &Arguments) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("kairos-demo-").tempdir()?.keep();
    let sweeper = Sweeper::start(&directory)?;
    let ended = runtime.block_on(until_interrupted(arguments, &directory));
    // Processes are children of tasks and end with them; only then does nobody write any more.
    runtime.shutdown_timeout(Duration::from_secs(2));
    sweeper.finish();
    ended
}

enum Ended {
    Well,
    /// By a signal; the exit code by which a shell knows it.
    Interrupted(u8),
}

/// Signals that ask for the end: Ctrl-C, a terminal that is closed, Ctrl-\, and what a supervisor sends.
const ENDS: [SignalKind; 4] =
    [SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit(), SignalKind::terminate()];

async fn until_interrupted(arguments: &Arguments, directory: &Path) -> anyhow::Result<Ended> {
    let mut ends = Vec::new();
    for kind in ENDS {
        ends.push((kind, signal(kind)?));
    }
    let told = ends.iter_mut().map(|(kind, end)| Box::pin(async { (end.recv().await, *kind).1 }));
    tokio::select! {
        ended = run(arguments, directory) => ended.map(|()| Ended::Well),
        (kind, _, _) = futures::future::select_all(told) => {
            // Nobody reads this on a terminal that is gone.
            let _ = writeln!(
                std::io::stderr(),
                "{}\nInterrupted: everything that was started is being ended.",
                view::restore()
            );
            Ok(Ended::Interrupted(128 + u8::try_from(kind.as_raw_value()).unwrap_or(0)))
        }
    }
}

async fn run(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let binary = arguments
        .operator
        .canonicalize()
        .with_context(|| format!("looking for {}", arguments.operator.display()))?;
    let plugin = arguments.plugin.canonicalize();
    let plugin = plugin.with_context(|| format!("looking for {}", arguments.plugin.display()))?;
    println!("Starting an embedded cluster: five nodes, n1 is the control plane.");
    let stage = Stage::set(arguments, &binary, directory).await?;
    // Before the rollout: the interesting time is while it goes on.
    if arguments.keep {
        println!(
            "To look with kubectl, in another terminal:\n  export KUBECONFIG={}",
            kubeconfig(&stage).display()
        );
    }
    let mut operator = Operator::start(&stage.cluster, &binary)?;
    let played = play(&stage, &mut operator, &plugin).await;
    if let Err(error) = played {
        eprintln!("\n{}Last lines of the operator's log:\n{}", view::restore(), operator.log_tail());
        return Err(error);
    }
    if arguments.keep {
        println!("\nEverything is left running until Ctrl-C.");
        operator.ended().await?;
    }
    Ok(())
}

fn kubeconfig(stage: &Stage) -> PathBuf {
    stage.cluster.kubeconfig()
}

async fn play(stage: &Stage, operator: &mut Operator, plugin: &Path) -> anyhow::Result<()> {
    let play = async {
        println!(
            "Starting the operator, with the rights of its own ServiceAccount; it reads what the nodes run."
        );
        stage.until_labelled().await?;
        for line in stage.nodes() {
            println!("  {line}");
        }
        println!("\nkubectl apply -f {}", shown(&stage.sample_path));
        stage.cluster.apply(&stage.sample).await?;
        let view = View::start(plugin, &stage.cluster, &stage.target())?;
        watch(stage, view).await
    };
    let story = tokio::select! {
        story = tokio::time::timeout(TIMEOUT, play) => story.with_context(|| format!("it did not end in {} s", TIMEOUT.as_secs()))??,
        ended = operator.ended() => return ended.and_then(|()| bail!("the operator ended")),
    };
    println!("{}", summary::table(stage, &story));
    let broken = summary::broken_promises(stage, &story);
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    println!("{}", summary::moral(stage, &story));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// Follows the NodeOp to its end, while the view shows it.
async fn watch(stage: &Stage, view: View) -> anyhow::Result<Story> {
    let mut story = Story::default();
    let mut changes = story::follow(stage.cluster.client(), stage.name.clone());
    while !story.is_over() {
        story.see(&changes.recv().await.context("the watch of the NodeOp ended")?);
    }
    // The nodes are given back, and a NodeOpUpgrade shows the result, a moment after the NodeOp's own status.
    stage.until_settled().await?;
    let status = view.close().await?;
    let wanted = i32::from(story.phase == "Failed");
    if status.is_some_and(|status| status.code() != Some(wanted)) {
        bail!("kubectl kairos status -w did not end as the operation did, with exit code {wanted}");
    }
    Ok(story)
}
