//! `kairos-sim`: a cluster on this machine, until Ctrl-C.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use kairos_sim::Cluster;

/// Starts an embedded Kubernetes API server with hollow nodes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many nodes, control planes included.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many of them are control planes.
    #[arg(long, default_value_t = 1)]
    control_planes: usize,
    /// Port of the API on the loopback; 0: any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The operator's binary, which containers named kairos-operator run.
    #[arg(long)]
    operator: Option<PathBuf>,
    /// Where to write the administrator's kubeconfig as well.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// How long a reboot takes.
    #[arg(long, default_value_t = 3.0)]
    boot_seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kairos-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let boot = Duration::try_from_secs_f64(arguments.boot_seconds).context("--boot-seconds")?;
    let mut builder = Cluster::builder()
        .nodes(arguments.nodes)
        .control_planes(arguments.control_planes)
        .port(arguments.port)
        .boot(boot);
    if let Some(operator) = arguments.operator {
        builder = builder.operator(operator.canonicalize().context("--operator")?);
    }
    let cluster = builder.start().await?;
    let mut kubeconfig = cluster.kubeconfig();
    if let Some(path) = arguments.kubeconfig {
        std::fs::copy(&kubeconfig, &path).with_context(|| format!("writing {}", path.display()))?;
        kubeconfig = path;
    }
    println!("{} nodes at {}\nexport KUBECONFIG={}", arguments.nodes, cluster.server(), kubeconfig.display());
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
    cluster.stop();
    Ok(())
}
