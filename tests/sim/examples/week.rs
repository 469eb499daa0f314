//! What the operator holds in memory while it carries out as many NodeOps as a busy cluster has in a week.
//!
//! A hundred an hour are 2,400 a day. They come as fast as hollow nodes are done with them, so a day takes
//! minutes, and after each the operator's memory is printed as a row of a table. It measures and judges
//! nothing.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use kairos_sim::{Cluster, Outcome, install};
use serde_json::json;
use tokio::process::{Child, Command};

const OPS: &str = "nodeops.operator.kairos.io";
/// A NodeOp is about one of these nodes, each in its turn. A node that dozens of them take within minutes is
/// patched so often that the operator pauses, as if somebody undid its patches.
const NODES: usize = 400;
/// NodeOps under way at once: not more than there are nodes, or they would wait for each other.
const AT_ONCE: usize = 40;
/// Changes that the server keeps for watches.
const HISTORY: usize = 5_000;

/// Measures the operator's memory over as many NodeOps as a week has.
#[derive(Parser)]
struct Arguments {
    /// The operator's binary.
    #[arg(long)]
    operator: PathBuf,
    /// Days of the week.
    #[arg(long, default_value_t = 7)]
    days: usize,
    /// NodeOps in a day.
    #[arg(long, default_value_t = 2_400)]
    a_day: usize,
    /// Their `ttlSecondsAfterFinished`; without it they stay.
    #[arg(long)]
    ttl: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cluster = Cluster::builder()
        .nodes(NODES)
        .control_planes(1)
        .operator(&arguments.operator)
        .history(HISTORY)
        .script_time(Duration::from_millis(10))
        .script(|run| (run.container.name == "install").then(|| Outcome::code(0)))
        .start()
        .await?;
    cluster.apply(&install::printed_by(&arguments.operator).await?).await?;
    let mut operator = operator(&cluster, &arguments.operator)?;
    println!("| NodeOps carried out | of them stored | operator, MiB |\n|---|---|---|");
    // The first few warm it up: what it holds then is where the others begin.
    let mut done = 0;
    for count in std::iter::once(AT_ONCE).chain(std::iter::repeat_n(arguments.a_day, arguments.days)) {
        tokio::select! {
            ended = operator.wait() => anyhow::bail!("the operator ended: {:?}", ended?),
            carried_out = carry_out(&cluster, arguments.ttl, done..done + count) => carried_out?,
        }
        done += count;
        row(&cluster, &operator, done)?;
    }
    Ok(())
}

fn operator(cluster: &Cluster, binary: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(cluster.dir().join("operator.log"))?;
    Command::new(binary)
        .args(["controller", "--health-probe-bind-address=0", "--kubeconfig"])
        .arg(cluster.kubeconfig_for(install::NAMESPACE, install::ACCOUNT)?)
        .env("CONTROLLER_POD_NAMESPACE", install::NAMESPACE)
        // As the Deployment does.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting the operator")
}

/// The NodeOps of these numbers, until all are over.
async fn carry_out(cluster: &Cluster, ttl: Option<u32>, mut numbers: Range<usize>) -> anyhow::Result<()> {
    let mut open = BTreeSet::new();
    while !numbers.is_empty() || !open.is_empty() {
        while open.len() < AT_ONCE
            && let Some(next) = numbers.next()
        {
            let name = format!("op-{next:06}");
            let on = json!({"matchLabels": {"kubernetes.io/hostname": format!("n{}", next % NODES + 1)}});
            let mut spec =
                json!({"image": "busybox:1", "command": ["true"], "nodeSelector": on, "concurrency": 1});
            if let Some(ttl) = ttl {
                spec["ttlSecondsAfterFinished"] = ttl.into();
            }
            let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
                "metadata": {"name": name, "namespace": "default"}, "spec": spec});
            cluster.apply(&op.to_string()).await?;
            open.insert(name);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut still = BTreeSet::new();
        for name in open {
            // One that is gone was over for as long as it was to be kept.
            let Some(op) = cluster.get(OPS, "default", &name) else { continue };
            match op["status"]["phase"].as_str() {
                Some("Completed") => {}
                Some("Failed") => anyhow::bail!("{name} failed: {}", op["status"]),
                _ => drop(still.insert(name)),
            }
        }
        open = still;
        cluster.clear_requests();
    }
    Ok(())
}

fn row(cluster: &Cluster, operator: &Child, done: usize) -> anyhow::Result<()> {
    let id = operator.id().context("the operator runs")?;
    // Without the pages of the binary, of which a debug build has many.
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let held = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("its memory")?;
    let kilobytes: u32 = held.trim().trim_end_matches(" kB").parse()?;
    let stored = cluster.list(OPS).len();
    println!("| {done} | {stored} | {:.1} |", f64::from(kilobytes) / 1024.0);
    Ok(())
}
