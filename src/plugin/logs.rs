//! `logs`: what an operation's pods have printed, also those of failed tries, the command first.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::{
    adopted,
    connection::Connection,
    failure::{self, Code, Doing, Failure, Result},
    operation::Operation,
    screen::{Screen, Tone},
    target::{self, Target},
};
use crate::api::{
    error_text::error_message,
    names::{self, container},
};

/// Between two looks for pods that have come since.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Lines that wait to be printed.
const LINES: usize = 1024;

/// Prints what an operation's pods have printed, those of failed tries included.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// NAME, nou/NAME or nop/NAME
    pub target: Target,
    /// One node: NAME or node/NAME; unset, all
    #[arg(value_parser = target::node)]
    pub node: Option<String>,
    /// Go on until the operation is over
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only the last lines of each container's log
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    pub tail: Option<i64>,
}

/// A container that has run, or runs.
#[derive(Clone, Debug)]
struct Source {
    node: String,
    /// A Job's pods before a preflight's and a waiter's.
    of: usize,
    created: String,
    pod: String,
    /// The command before what we run around it.
    rank: usize,
    container: String,
    /// The run before the present one.
    previous: bool,
    /// How it ended, if it has.
    end: String,
    runs: bool,
}

impl Source {
    /// By node, the command's tries first, and the earlier before the later.
    fn order(&self) -> impl Ord + use<> {
        let Self { node, of, created, pod, rank, previous, .. } = self.clone();
        (node, of, created, pod, rank, !previous)
    }
}

/// Runs the verb.
pub async fn run(args: &LogsArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let operation = args.target.find(connection).await?;
    if let Some(node) = &args.node
        && !operation.nodes.contains_key(node)
        && operation.nodes.len() == usize::try_from(operation.counts.total).unwrap_or(0)
    {
        return Err(Failure::new(format!("{} is not about node {node}", operation.full()))
            .hint(format!("Why: kubectl kairos explain {node}")));
    }
    let reader = Reader { args, connection, namespace: &operation.namespace };
    let sources = reader.sources(&operation).await?;
    if sources.is_empty() && !args.follow {
        eprintln!("{}", nothing(&operation, args.node.as_deref()));
        return Ok(Code::Done);
    }
    if args.follow {
        reader.follow(screen).await?
    } else {
        reader.print(&sources, screen).await?
    }
    Ok(Code::Done)
}

/// Why there is nothing to print.
fn nothing(operation: &Operation, node: Option<&str>) -> String {
    let entry = node.and_then(|node| operation.nodes.get(node));
    let message = entry.and_then(|entry| entry.message.clone()).unwrap_or_else(|| operation.message.clone());
    let place = node.map_or_else(String::new, |node| format!(" on node {node}"));
    format!("Nothing of {} has run{place}, or its pods are gone: {message}", operation.full())
}

struct Reader<'a> {
    args: &'a LogsArgs,
    connection: &'a Connection,
    namespace: &'a str,
}

impl Reader<'_> {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.connection.client.clone(), self.namespace)
    }

    async fn list(&self, operation: &Operation, labels: &str) -> Result<Vec<Pod>> {
        let pods = self.pods().list(&ListParams::default().labels(labels)).await;
        Ok(pods.doing(|| format!("listing the pods of {}", operation.full()))?.items)
    }

    /// All containers that have run, by node and in their order.
    async fn sources(&self, operation: &Operation) -> Result<Vec<Source>> {
        let label = format!("{}={}", names::NODEOP, names::label_value(&operation.node_op));
        let mut pods = self.list(operation, &label).await?;
        let known = pods.iter().filter_map(|pod| pod.labels().get(names::JOB_NAME_LABEL).cloned()).collect();
        let entries = operation.nodes.iter().filter(|(node, entry)| {
            let is_meant = self.args.node.as_ref().is_none_or(|wanted| wanted == *node);
            // What is followed is looked for each second, and what has ended prints nothing more.
            is_meant && (!self.args.follow || !entry.phase.is_final())
        });
        let jobs = entries.filter_map(|(_, entry)| entry.job_name.as_ref());
        for labels in adopted::selectors(jobs, &known) {
            pods.extend(self.list(operation, &labels).await?);
        }
        let mut sources: Vec<Source> = pods.iter().flat_map(sources_of).collect();
        sources.retain(|source| self.args.node.as_ref().is_none_or(|node| *node == source.node));
        sources.sort_by_key(Source::order);
        Ok(sources)
    }

    fn params(&self, source: &Source, follow: bool) -> LogParams {
        LogParams {
            container: Some(source.container.clone()),
            previous: source.previous,
            follow: follow && source.runs,
            // To kubectl -1 is all lines; the API server refuses it.
            tail_lines: self.args.tail.filter(|lines| *lines >= 0),
            ..LogParams::default()
        }
    }

    /// One container after the other.
    async fn print(&self, sources: &[Source], screen: &Screen) -> Result<()> {
        let nodes: BTreeSet<&String> = sources.iter().map(|source| &source.node).collect();
        for source in sources {
            let prefix = if nodes.len() > 1 { format!("{} | ", source.node) } else { String::new() };
            screen.line(&screen.tint(Tone::Faint, &format!("{prefix}{}", heading(source))))?;
            match self.pods().logs(&source.pod, &self.params(source, false)).await {
                Ok(text) => text.lines().try_for_each(|line| screen.raw(&format!("{prefix}{line}\n")))?,
                // A run whose log the kubelet has let go is no reason not to show the others.
                Err(error) if !failure::lacks_right(&error) && matches!(error, kube::Error::Api(_)) => {
                    screen.line(&format!("{prefix}({})", error_message(&error)))?;
                }
                Err(error) => {
                    return Err(failure::of_request(
                        &format!("reading the log of pod {}", source.pod),
                        &error,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the operation is over, and what of it there is to follow.
    async fn look(&self) -> Result<(bool, Vec<Source>)> {
        // An upgrade that is changed, or is Continuous, goes on with another NodeOp.
        let operation = self.args.target.find(self.connection).await?;
        let sources = self.sources(&operation).await?;
        Ok((operation.is_over(), sources))
    }

    /// All containers at once, line by line, until the operation is over and nothing of it runs.
    async fn follow(&self, screen: &Screen) -> Result<()> {
        let (sender, mut lines) = mpsc::channel::<String>(LINES);
        let (mut begun, mut streams) = (BTreeSet::new(), JoinSet::new());
        let mut failing = false;
        loop {
            let (over, sources) = match self.look().await {
                // An API server may go down with the node that is worked on.
                Err(failure) if failure.passes => {
                    if !failing {
                        eprintln!("{}; it is tried again", failure.what);
                    }
                    failing = true;
                    (false, Vec::new())
                }
                seen => {
                    failing = false;
                    seen?
                }
            };
            for source in sources {
                if begun.insert((source.pod.clone(), source.container.clone(), source.previous)) {
                    streams.spawn(stream(
                        self.pods(),
                        source.clone(),
                        self.params(&source, true),
                        sender.clone(),
                    ));
                }
            }
            loop {
                tokio::select! {
                    biased;
                    Some(line) = lines.recv() => screen.raw(&line)?,
                    Some(_) = streams.join_next() => {}
                    () = sleep(LOOK_EVERY) => break,
                }
            }
            if over && streams.is_empty() && lines.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Hands on a container's lines as they come. A stream that breaks off is taken up by nobody: its node
/// reboots.
async fn stream(pods: Api<Pod>, source: Source, params: LogParams, lines: mpsc::Sender<String>) {
    let prefix = format!("{} {} | ", source.node, source.container);
    match pods.log_stream(&source.pod, &params).await {
        Ok(log) => {
            let mut log = log.lines();
            while let Some(Ok(line)) = log.next().await {
                if lines.send(format!("{prefix}{line}\n")).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => drop(lines.send(format!("{prefix}({})\n", error_message(&error))).await),
    }
}

fn heading(source: &Source) -> String {
    let previous = if source.previous { " (the run before)" } else { "" };
    format!("==> {} on {}: {}{previous}, {}", source.pod, source.node, source.container, source.end)
}

/// The containers of a pod that have run.
fn sources_of(pod: &Pod) -> Vec<Source> {
    let annotation = pod.annotations().get(names::NODE_NAME).cloned();
    let node = annotation.or_else(|| pod.spec.as_ref()?.node_name.clone()).unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
    let statuses = pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let containers =
        pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let kind = containers.map(|container| rank(&container.name)).min().unwrap_or(usize::MAX);
    let of = |status: &ContainerStatus, previous: bool| {
        let (end, runs) = end(status, previous)?;
        Some(Source {
            node: node.clone(),
            of: kind,
            created: created.clone(),
            pod: pod.name_any(),
            rank: rank(&status.name),
            container: status.name.clone(),
            previous,
            end,
            runs,
        })
    };
    statuses.flat_map(|status| [of(status, true), of(status, false)]).flatten().collect()
}

/// How a run of a container ended, and whether it still runs; nothing if there was no such run.
fn end(status: &ContainerStatus, previous: bool) -> Option<(String, bool)> {
    let state = if previous { &status.last_state } else { &status.state };
    let state = state.as_ref()?;
    if let Some(ended) = &state.terminated {
        return Some((format!("exit code {}", ended.exit_code), false));
    }
    state.running.as_ref().map(|_| ("running".into(), true))
}

/// The command first; what we run around it is looked at last.
fn rank(name: &str) -> usize {
    let order = [container::NODEOP, container::PREFLIGHT, container::REBOOT, container::SENTINEL];
    order.iter().position(|known| *known == name).unwrap_or(order.len())
}
