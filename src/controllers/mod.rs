//! Applet `controller`: the wiring. Starts the watches, runs for election, plans while it leads, serves the
//! probes and the metrics, and hands over when it is told to end.
//!
//! In reading order:
//!
//! - `args`: the flags; `own_image`: the one default that is found out;
//! - `planner`: the loop, with `failures` (what is tried again, and when) and `evictions` (beside the loop);
//! - `questions`: live answers to what a plan asks, with `reads`, `list_pages`, `large_answers`,
//!   `remembered_answers`, and a file for each large question: `rivals`, `attachments`, `claims`;
//! - `lease`, `sight`, `clock`: who leads, and by which time;
//! - `plan_pace`, `question_pace`, `hot_loop`, `bucket`: how often anything is done;
//! - `http`, `health`, `metrics`: what is served.

pub mod args;
mod attachments;
mod bucket;
mod claims;
mod clock;
mod events;
mod evictions;
mod failures;
mod health;
mod hot_loop;
mod http;
mod large_answers;
mod lease;
mod list_pages;
pub mod metrics;
mod own_image;
mod plan_pace;
mod planner;
mod question_pace;
mod questions;
mod reads;
mod remembered_answers;
mod rivals;
mod sight;
mod timed;
mod trusted_ca;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::events::Reporter,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tracing::{info, warn};

pub use self::clock::Clock;
use self::{
    args::ControllerArgs,
    health::Health,
    lease::{Election, Leadership},
    metrics::Metrics,
    planner::Planner,
    trusted_ca::TrustedCa,
};
use crate::{
    act::{Actor, error_message},
    api::names,
    contract,
    observe::Observer,
    plan::model::snapshot::PlannerConfig,
    render::RenderConfig,
    telemetry::{LogLevel, Verbosity},
};

/// The namespace where a pod finds its own.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// How long the pass that is under way may take to end, when we are told to.
const LAST_PASS: Duration = Duration::from_secs(5);
/// How long a hand-over may take before we end without it.
const HAND_OVER: Duration = Duration::from_secs(3);
/// For how long the API server may say nothing on a connection on which it is to say something. It ends a
/// watch before that.
const SILENT_FOR: Duration = Duration::from_secs(300);

/// Runs the controller until it is told to end.
pub fn run(args: &ControllerArgs, verbosity: Verbosity) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("starting the runtime")?.block_on(control(args, verbosity))
}

async fn control(args: &ControllerArgs, verbosity: Verbosity) -> anyhow::Result<()> {
    log_as_told(verbosity)?;
    let ignored = args.ignored.given();
    if !ignored.is_empty() {
        warn!("these flags of the Go operator mean nothing here: {}", ignored.join(", "));
    }
    for value in args.not_understood() {
        warn!("{value}");
    }
    let measured = http::address(&args.metrics_bind_address)?.map(|address| (address, Metrics::new()));
    let metrics = measured.as_ref().map(|(_, metrics)| metrics.clone());
    let ca = TrustedCa::of_pod();
    let client = client(config(args).await?, metrics.as_deref()).context("making a client")?;
    let args = &with_own_image(args, &client).await?;
    let clock = Clock::system();
    let mut controller = Controller::new(args, client, clock, identity(args));
    if let Some(address) = http::address(&args.health_probe_bind_address)? {
        http::serve("probes", address, controller.health.clone()).await?;
    }
    if let Some((address, metrics)) = measured {
        controller.measure(&metrics);
        http::serve("metrics", address, metrics).await?;
    }
    let mut running = controller.start();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => info!("told to end"),
        _ = interrupt.recv() => info!("interrupted"),
        ahead = clock.differs(Timestamp::now) => {
            warn!(seconds = ahead.as_secs(), "the machine's clock was set, or it was suspended: starting again with its time");
        }
        () = ca.changes(), if args.kubeconfig.is_none() => {
            warn!("the cluster's CA was changed: starting again with it");
        }
        result = &mut running.planning => anyhow::bail!("the planner ended: {result:?}"),
    }
    running.hand_over().await;
    Ok(())
}

/// Changes how much is logged whenever a signal says so, for as long as the process runs.
fn log_as_told(verbosity: Verbosity) -> anyhow::Result<()> {
    let verbosity = Arc::new(verbosity);
    for level in LogLevel::ALL {
        let kind = SignalKind::from_raw(level.signal() as i32);
        let mut told = signal(kind).with_context(|| format!("listening for {}", level.signal()))?;
        let verbosity = verbosity.clone();
        tokio::spawn(async move {
            while told.recv().await.is_some() {
                verbosity.set(level);
                info!(?level, "told what to log");
            }
        });
    }
    Ok(())
}

/// A client whose requests are counted if they are to be.
fn client(config: Config, metrics: Option<&Metrics>) -> kube::Result<Client> {
    let requests = metrics.map(Metrics::requests).unwrap_or_default();
    Ok(ClientBuilder::try_from(config)?.with_layer(&requests).build())
}

/// The arguments, and if they say no image for helper pods, that of our own pod.
async fn with_own_image(args: &ControllerArgs, client: &Client) -> anyhow::Result<ControllerArgs> {
    let mut args = args.clone();
    if let (None, Some(pod)) = (args.operator_image(), args.pod_name()) {
        let (image, pull_policy) = own_image::of_pod(client, &own_namespace(&args), pod).await?;
        (args.operator_image, args.operator_pull_policy) = (Some(image), pull_policy);
    }
    Ok(args)
}

/// A controller with all its parts, not started.
pub struct Controller {
    client: Client,
    namespace: String,
    observer: Observer,
    health: Arc<Health>,
    election: Option<Election>,
    planner: Planner,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("namespace", &self.namespace)
            .field("election", &self.election)
            .finish_non_exhaustive()
    }
}

/// A controller that runs. Dropping it ends nothing.
#[derive(Debug)]
pub struct Running {
    campaign: Option<(JoinHandle<()>, Election)>,
    planning: JoinHandle<()>,
    /// Asks the planner to end after the pass that is under way.
    stop: Arc<Notify>,
}

impl Controller {
    /// `identity` tells this process from all others in the election.
    pub fn new(args: &ControllerArgs, client: Client, clock: Clock, identity: String) -> Self {
        let namespace = own_namespace(args);
        let client = large_answers::one_at_a_time(client);
        let observer = Observer::default();
        let health = Health::new(observer.clone());
        let leadership =
            if args.leader_elect { Leadership::elected() } else { Leadership::standalone(clock.now()) };
        let election = args
            .leader_elect
            .then(|| Election::new(client.clone(), &namespace, identity, clock, leadership.clone()));
        let config = RenderConfig {
            // Outside a cluster no pod is ours, and nothing else tells of an image.
            operator_image: args.operator_image().unwrap_or(contract::IMAGE).into(),
            // Unless the Deployment says otherwise its tag never moves: a node that has it needs no registry.
            operator_pull_policy: args.operator_pull_policy.clone().unwrap_or_else(|| "IfNotPresent".into()),
            namespace: namespace.clone(),
            default_image: args.nodeop_default_image().into(),
            state_dir: args.state_dir.to_string_lossy().into_owned(),
            pull_secrets: args.image_pull_secrets().map(str::to_owned).collect(),
        };
        let planner_config = PlannerConfig {
            control_plane_concurrency: args.control_plane_concurrency as usize,
            node_conditions: args.node_conditions(),
            namespace: namespace.clone(),
            own_pod: args.pod_name().map(|name| (namespace.clone(), name.to_owned())),
            default_image: args.nodeop_default_image().into(),
        };
        let reporter =
            Reporter { controller: names::MANAGER.into(), instance: args.pod_name().map(str::to_owned) };
        let leading = leadership.subscribe();
        let actor = Actor::new(client.clone(), config, leadership, reporter);
        let planner = Planner::new(actor, observer.clone(), planner_config, clock, leading, health.clone());
        Self { client, namespace, observer, health, election, planner }
    }

    /// Measures what is done from now on.
    pub fn measure(&mut self, metrics: &Arc<Metrics>) {
        self.planner.measure(metrics);
    }

    /// Starts the watches, the campaign and the planner.
    pub fn start(self) -> Running {
        self.observer.start(&self.client, &self.namespace);
        let campaign = self.election.map(|election| {
            let candidate = election.clone();
            (tokio::spawn(async move { candidate.run().await }), election)
        });
        let stop = Arc::new(Notify::new());
        let planning = tokio::spawn(self.planner.run(stop.clone()));
        Running { campaign, planning, stop }
    }
}

impl Running {
    /// Ends at once, at whatever await it is, and hands nothing over. Watches and evictions under way end
    /// with the runtime, or with the client's last answer.
    pub fn kill(&self) {
        self.planning.abort();
        if let Some((campaign, _)) = &self.campaign {
            campaign.abort();
        }
    }

    /// Ends, then hands the Lease over: not before every write but an Event has had its answer, or a
    /// successor would begin while one of them is still on its way.
    pub async fn hand_over(mut self) {
        self.stop.notify_one();
        let ended = tokio::time::timeout(LAST_PASS, &mut self.planning).await.is_ok();
        self.kill();
        let Some((_, election)) = self.campaign else { return };
        if !ended {
            warn!("the last writes have had no answer; the Lease is not handed over, it runs out by itself");
            return;
        }
        let released = tokio::time::timeout(HAND_OVER, election.release()).await;
        if let Err(error) = released.context("no answer in time").and_then(|released| released) {
            warn!(error = error_message(&error), "the Lease could not be handed over; it runs out by itself");
        }
    }
}

/// The kubeconfig that was named, else `KUBECONFIG` or `~/.kube/config`, else the pod's own account.
async fn config(args: &ControllerArgs) -> anyhow::Result<Config> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .context("reading the kubeconfig")?
        }
        None => Config::infer()
            .await
            .context("finding out how to reach the API server: give --kubeconfig, or run in a pod")?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // An API server that dies without a word ends no connection: what was asked would be waited for, for
    // ever. A watch says something before that, or is ended by the server.
    config.read_timeout = Some(SILENT_FOR);
    config.reset_reader_on_write = true;
    // kube repeats a 429 by itself for minutes: the answer of a PodDisruptionBudget without room would never
    // get here, and a write would go out long after the fence was asked.
    config.default_retry = false;
    Ok(config)
}

fn own_namespace(args: &ControllerArgs) -> String {
    let file = || std::fs::read_to_string(Path::new(NAMESPACE_FILE)).ok();
    let named = args.namespace().map(str::to_owned).or_else(file);
    named
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| names::OPERATOR_NAMESPACE.into())
}

/// Unique for this process: a container that was restarted in its pod is another candidate.
fn identity(args: &ControllerArgs) -> String {
    let name = args.pod_name().unwrap_or("outside");
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .unwrap_or_else(|_| format!("{}", std::process::id()));
    format!("{name}_{}", id.trim())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, sync::atomic::Ordering::Relaxed};

    use super::*;
    use crate::{
        act::tests::unavailable,
        cli::{Applet, parse},
    };

    /// Another replica must not lead while a write of ours is still on its way.
    #[tokio::test(start_paused = true)]
    async fn the_lease_is_handed_over_after_the_last_pass_and_not_at_all_if_that_does_not_end() {
        for (lasts, is_handed_over) in [(3, true), (60, false)] {
            let (client, asked) = unavailable();
            let state = Leadership::elected();
            let election = Election::new(client, "ns", "me".into(), Clock::system(), state);
            let before = asked.clone();
            let planning = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(lasts)).await;
                assert_eq!(before.load(Relaxed), 0, "the Lease is handed over, and we still write");
            });
            let campaign = Some((tokio::spawn(std::future::pending()), election));
            Running { campaign, planning, stop: Arc::default() }.hand_over().await;
            assert_eq!(asked.load(Relaxed) > 0, is_handed_over, "after {lasts} s");
        }
    }

    #[tokio::test]
    async fn a_refusal_reaches_us_at_the_first_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
                    clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
        std::fs::write(file.path(), text).unwrap();
        let argv = ["kairos-operator", "controller", "--kubeconfig"].map(OsString::from);
        let Ok(Applet::Controller(args)) = parse(argv.into_iter().chain([file.path().into()])) else {
            panic!("the arguments were not understood")
        };
        assert!(!config(&args).await.unwrap().default_retry, "a 429 would be repeated by the client");
    }
}
