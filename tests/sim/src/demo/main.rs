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
mod view;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::{operator::Operator, stage::Stage, story::Story, view::View};

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
    /// Where manifests/ is.
    #[arg(long, default_value = ".")]
    repository: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut files = None;
    let ended = runtime.block_on(until_interrupted(&arguments, &mut files));
    // Processes are children of tasks and end with them; only then does nobody write any more.
    runtime.shutdown_timeout(Duration::from_secs(2));
    if let Some(files) = files {
        let _ = std::fs::remove_dir_all(files);
    }
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Ended {
    Well,
    Interrupted,
}

async fn until_interrupted(arguments: &Arguments, files: &mut Option<PathBuf>) -> anyhow::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = run(arguments, files) => ended.map(|()| Ended::Well),
        _ = tokio::signal::ctrl_c() => {
            eprintln!("{}\nInterrupted: everything that was started is being ended.", view::restore());
            Ok(Ended::Interrupted)
        }
        _ = terminate.recv() => Ok(Ended::Interrupted),
    }
}

async fn run(arguments: &Arguments, files: &mut Option<PathBuf>) -> anyhow::Result<()> {
    let binary = arguments
        .operator
        .canonicalize()
        .with_context(|| format!("looking for {}", arguments.operator.display()))?;
    println!("Starting an embedded cluster: five nodes, n1 is the control plane.");
    let stage = Stage::set(arguments, &binary).await?;
    *files = Some(stage.cluster.dir().to_owned());
    let mut operator = Operator::start(&stage.cluster, &binary)?;
    let played = play(&stage, &mut operator).await;
    if let Err(error) = played {
        eprintln!("\n{}Last lines of the operator's log:\n{}", view::restore(), operator.log_tail());
        return Err(error);
    }
    if arguments.keep {
        println!(
            "\nEverything is left running until Ctrl-C. In another terminal:\n\n  export KUBECONFIG={}",
            kubeconfig(&stage).display()
        );
        println!("  kubectl get nodeops,nodeopupgrades,nodes,pods -A");
        operator.ended().await?;
    }
    Ok(())
}

fn kubeconfig(stage: &Stage) -> PathBuf {
    stage.cluster.kubeconfig()
}

async fn play(stage: &Stage, operator: &mut Operator) -> anyhow::Result<()> {
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
        watch(stage).await
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

/// Follows the NodeOp to its end.
async fn watch(stage: &Stage) -> anyhow::Result<Story> {
    let mut story = Story::new(
        stage.cluster.nodes().filter(|n| n.is_control_plane()).map(|n| n.name().to_owned()).collect(),
    );
    let mut view = View::new();
    let mut changes = story::follow(stage.cluster.client(), stage.name.clone());
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            changed = changes.recv() => {
                let lines = story.see(&changed.context("the watch of the NodeOp ended")?);
                view.changed(&story, &lines);
            }
            _ = tick.tick() => view.tick(&story),
        }
        if story.is_over() {
            view.close(&story);
            // The nodes are given back, and a NodeOpUpgrade shows the result, a moment after the NodeOp's own
            // status.
            stage.until_settled().await?;
            return Ok(story);
        }
    }
}
