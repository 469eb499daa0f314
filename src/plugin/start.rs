//! `upgrade` and `run`: create an operation, or print what would be created.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use k8s_openapi::api::core::v1::LocalObjectReference;

use super::{
    connection::Connection,
    failure::{Code, Result},
    follow::Scope,
    make::{New, RolloutArgs},
    operation::Operation,
    output::{Output, OutputArgs},
    screen::Screen,
    status::live,
    target::Target,
    time, wait,
};
use crate::api::{
    nodeop::{DrainOptions, NodeOpSpec},
    upgrade::NodeOpUpgradeSpec,
};

/// Who is asked, if nothing is to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nobody: the object is printed
    Client,
    /// The API server, which checks the object and stores nothing
    Server,
}

/// What is done with an operation that is made of flags.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Follow it to its end; the exit code is its result
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// With --wait: give up after this time, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Create nothing
    #[arg(long, value_enum, value_name = "WHO")]
    pub dry_run: Option<DryRun>,
    /// A Secret with which nodes pull the image; may be given more than once
    #[arg(long = "pull-secret", value_name = "NAME")]
    pub pull_secrets: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Upgrades Kairos on nodes to an image: drained one after the other, rebooted, and proved.
///
/// One node at a time, unless --concurrency says otherwise. See it first: kubectl kairos plan IMAGE.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The Kairos image, as quay.io/kairos/opensuse:leap-15.6-…
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub image: String,
    /// Upgrade nodes without comparing releases: also those that run the image's, or a newer one
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub create: CreateArgs,
}

/// Runs a command on nodes, as root, with the host's root mounted at /host.
///
/// One node at a time, unless --concurrency says otherwise.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The image in which the command runs; unset, the operator's default
    #[arg(long, value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    pub image: Option<String>,
    /// Cordon each node before, and uncordon it after a success
    #[arg(long)]
    pub cordon: bool,
    /// Evict each node's pods before; cordons it, too
    #[arg(long)]
    pub drain: bool,
    /// Reboot each node after a success
    #[arg(long)]
    pub reboot: bool,
    #[command(flatten)]
    pub create: CreateArgs,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs `upgrade`.
pub async fn upgrade(args: &UpgradeArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let spec = NodeOpUpgradeSpec {
        image: args.image.clone(),
        image_pull_secrets: pull_secrets(&args.create),
        force: args.force.then_some(true),
        ..NodeOpUpgradeSpec::default()
    };
    let new = New::upgrade(spec, &args.create.rollout, &connection.namespace);
    create(&new, &args.create, connection, screen).await
}

/// Runs `run`.
pub async fn run(args: &RunArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let drain = DrainOptions { enabled: Some(true), ..DrainOptions::default() };
    let spec = NodeOpSpec {
        command: Some(args.command.clone()),
        image: args.image.clone(),
        image_pull_secrets: pull_secrets(&args.create),
        cordon: (args.cordon || args.drain).then_some(true),
        drain_options: args.drain.then_some(drain),
        reboot_on_success: args.reboot.then_some(true),
        ..NodeOpSpec::default()
    };
    create(&New::op(spec, &args.create.rollout, &connection.namespace), &args.create, connection, screen)
        .await
}

fn pull_secrets(args: &CreateArgs) -> Vec<LocalObjectReference> {
    args.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
}

async fn create(new: &New, args: &CreateArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    if args.dry_run == Some(DryRun::Client) {
        match args.output.kind {
            Some(Output::Json | Output::Yaml | Output::Kyaml) => args.output.value(&new.value(), screen)?,
            None | Some(Output::Table | Output::Wide | Output::Name) => {
                let meta = new.meta();
                let name = meta.name.as_ref().or(meta.generate_name.as_ref()).cloned().unwrap_or_default();
                screen.line(&format!("{}/{name} created (dry run)", new.kind().resource()))?;
            }
        }
        return Ok(Code::Done);
    }
    let server = args.dry_run == Some(DryRun::Server);
    let made = new.create(connection, server).await.map_err(|error| new.refused(&error))?;
    match args.output.kind {
        Some(Output::Json | Output::Yaml | Output::Kyaml | Output::Name) => {
            args.output.objects(std::slice::from_ref(&made), true, screen)?;
        }
        None | Some(Output::Table | Output::Wide) => {
            let dry = if server { " (server dry run)" } else { "" };
            screen.line(&format!("{}/{} created{dry}", made.kind.resource(), made.name))?;
        }
    }
    if args.wait {
        return follow(made, args.timeout, connection, screen).await;
    }
    if !server {
        eprintln!("Follow it: kubectl kairos status {} -n {} -w", made.short(), made.namespace);
    }
    Ok(Code::Done)
}

async fn follow(
    made: Operation,
    limit: Option<Duration>,
    connection: &Connection,
    screen: &Screen,
) -> Result<Code> {
    let scope = Scope::of(&made);
    let shown = live::run(connection, screen, &scope, false);
    let Some(limit) = limit else { return shown.await };
    match tokio::time::timeout(limit, shown).await {
        Ok(ended) => ended,
        // It may have come to its end in this moment. Otherwise what it waits for is said as `wait` says it.
        Err(_) => {
            let now = Target { kind: Some(made.kind), name: made.name }.find(connection).await?;
            if now.is_over() { wait::over_now(&now, screen) } else { Err(wait::late(&now, limit)) }
        }
    }
}
