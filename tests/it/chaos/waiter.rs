//! The real reboot waiter, decisions and requests, on a machine that is none.

use std::{sync::Arc, time::Duration};

use anyhow::{Error, Result, anyhow};
use futures::StreamExt;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kairos_operator::{
    contract::Sentinel,
    node::reboot_waiter::{
        Announced, Cluster, Identity, JobEvents, Limits, Live, RebootWaiterArgs, Waiter,
        World as Surroundings,
    },
};
use kairos_sim::{Fate, watch};
use kube::{Api, ResourceExt, api::PostParams};
use tokio::time::{Instant, sleep};

use super::{
    kubelet::Place,
    wire::Wire,
    world::{Event, Init, World},
};

/// Runs the waiter of a pod until it ends.
pub async fn run(world: &Arc<World>, place: &Place, pod: &Pod, args: &RebootWaiterArgs) -> (i32, String) {
    sleep(world.time(1, 1500)).await;
    if world.machine(&place.node, |machine| machine.deaf_waiters) {
        return std::future::pending().await;
    }
    let (disk, is_there) =
        world.machine(&place.node, |machine| (machine.disk, machine.sentinels.contains_key(&args.job)));
    if let Err(words) = disk.prepare(&args.job, is_there) {
        return (1, words);
    }
    let me = Identity {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    };
    let Some(token) = token(world, pod).await else { return (1, "no token".into()) };
    let alive = watch::channel(true).0;
    let client = Wire::client(world, &format!("waiter {}", me.name), &token, false, alive);
    let limits = Limits {
        timeout: Duration::from_secs(args.timeout_seconds.into()),
        grace: Duration::from_secs(args.grace_seconds.into()),
        jitter: 0,
    };
    let _watching = Watching::begin(world, &place.node, &me.uid, &args.owner_uid);
    let on = OnNode {
        pod: me.uid.clone(),
        cluster: Cluster::new(client, me, &args.job, &args.owner_uid, args.succeeded_job.clone())
            .in_boot(&place.boot),
        recorded: args.succeeded().map(|succeeded| succeeded.sentinel(&args.job)),
        changes: world.disks.subscribe(),
        world: world.clone(),
        node: place.node.clone(),
        boot: place.boot.clone(),
        job: args.job.clone(),
        job_events: None,
        started: Instant::now(),
    };
    let ended = Waiter::new(on, place.boot.clone(), limits).run().await;
    world.note(|| format!("{}: waiter of {} ends: {} {}", place.node, args.job, ended.code, ended.message));
    (ended.code.into(), ended.message)
}

/// What a kubelet does for a pod.
async fn token(world: &World, pod: &Pod) -> Option<String> {
    let account = pod.spec.as_ref()?.service_account_name.clone()?;
    let api: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &pod.namespace()?);
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(3600),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    for _ in 0..20 {
        match api.create_token_request(&account, &PostParams::default(), &request).await {
            Ok(answer) => return answer.status.map(|status| status.token),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
    None
}

/// A waiter that runs. It ends when this is dropped.
struct Watching<'a> {
    world: &'a World,
    node: &'a str,
    pod: String,
}

impl<'a> Watching<'a> {
    fn begin(world: &'a World, node: &'a str, pod: &str, op: &str) -> Self {
        world.happens(node, Event::Watches { pod: pod.into(), op: op.into() });
        Self { world, node, pod: pod.into() }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.world.happens(self.node, Event::Rests { pod: self.pod.clone() });
    }
}

struct OnNode {
    pod: String,
    world: Arc<World>,
    cluster: Cluster,
    node: String,
    boot: String,
    job: String,
    /// What the operator has recorded of the Job.
    recorded: Option<Sentinel>,
    changes: watch::Receiver<u64>,
    job_events: Option<JobEvents>,
    started: Instant,
}

impl OnNode {
    fn sentinel(&self) -> Option<Sentinel> {
        let found = self.world.machine(&self.node, |machine| machine.sentinels.get(&self.job).cloned());
        found.or_else(|| self.recorded.clone())
    }

    /// Writes down that the machine is asked to reboot, and who would be left.
    fn asks(&self, job: &str) {
        let without = self.world.outside_quorum(&self.node);
        if self.world.nodes[&self.node].is_control_plane() && !without.is_empty() {
            self.world.happens(&self.node, Event::Thin { without });
        }
        self.world.happens(&self.node, Event::Asked { job: job.into(), pod: self.pod.clone() });
    }

    fn goes_down(&self, job: String) {
        // Units get their time to stop; the machine takes its time to come back.
        let (stops, away) = (self.world.time(10, 15_000), self.world.time(2_000, 40_000));
        let node = self.world.nodes[&self.node].clone();
        let (world, number, name) = (self.world.clone(), node.boot().number, self.node.clone());
        tokio::spawn(async move {
            sleep(stops).await;
            if node.boot().number == number && node.boot().up {
                world.note(|| format!("{} goes down as it was asked", node.name()));
                world.happens(&name, Event::Leaves { job });
                node.set_fate(Fate::Late(away));
                node.reboot();
            }
        });
    }
}

impl Surroundings for OnNode {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn stopped(&mut self) -> bool {
        false
    }

    fn read(&mut self) -> Option<Sentinel> {
        self.changes.mark_unchanged();
        self.sentinel()
    }

    async fn look(&mut self, job_uid: Option<&str>) -> Live {
        self.cluster.look(job_uid).await
    }

    async fn announce(&mut self, state: &'static str) -> Announced {
        self.cluster.announce(state).await
    }

    async fn wait(&mut self, job: bool, at_most: Duration) {
        if !job {
            self.job_events = None;
        } else if self.job_events.is_none() {
            self.job_events = Some(self.cluster.watch_job());
        }
        let events = &mut self.job_events;
        let job_event = async {
            match events {
                Some(events) => drop(events.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.changes.changed() => {}
            () = job_event => {}
            () = sleep(at_most) => {}
        }
    }

    fn ask_init(&mut self) -> Result<()> {
        let sentinel = self.sentinel().unwrap_or_default();
        let again =
            self.world.machine(&self.node, |machine| machine.asked.replace(self.boot.clone())).as_ref()
                == Some(&self.boot);
        match self.world.machine(&self.node, |machine| machine.init) {
            Init::Deaf => Err(anyhow!("init is deaf")),
            init => {
                self.asks(&sentinel.job_uid);
                // Asked twice, init still reboots once.
                if init == Init::Obeys && !again {
                    self.goes_down(sentinel.job_uid);
                }
                Ok(())
            }
        }
    }

    async fn ask_kernel(&mut self) -> Error {
        let sentinel = self.sentinel().unwrap_or_default();
        self.asks(&sentinel.job_uid);
        if self.world.machine(&self.node, |machine| machine.init) == Init::Stuck {
            return std::future::pending().await;
        }
        self.world.happens(&self.node, Event::Leaves { job: sentinel.job_uid });
        let node = self.world.nodes[&self.node].clone();
        node.set_fate(Fate::Late(self.world.time(2_000, 40_000)));
        node.reboot();
        std::future::pending().await
    }

    fn remove(&mut self, sentinel: &Sentinel) -> Result<()> {
        self.recorded = None;
        self.world.disk(&self.node, |machine| {
            if machine.sentinels.get(&self.job) == Some(sentinel) {
                machine.sentinels.remove(&self.job);
            }
        });
        Ok(())
    }
}

/// Its kubelet may be away and never tell it; so it looks itself, and a pod that is being deleted is as good
/// as gone.
#[test]
fn a_waiter_that_was_told_to_end_sees_it_in_a_live_look() {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::api::DeleteParams;
    use serde_json::json;
    let scenario = super::scenario::Scenario::calm(1);
    super::run::runtime(1).block_on(async {
        let (cluster, world) = super::run::cluster(1, &scenario).await;
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        // Any owner will do, if it is there: what has lost its owner is deleted.
        let namespaces: Api<Namespace> = Api::all(cluster.client());
        let uid = namespaces.get("default").await.expect("it is there").uid().unwrap_or_default();
        let owner = json!({"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": uid, "controller": true});
        let pod = json!({"metadata": {"name": "w", "finalizers": ["example.com/held"], "ownerReferences": [owner]},
            "spec": {"nodeName": "n1", "containers": [{"name": "reboot", "image": "i:1"}]}});
        let made = pods
            .create(&PostParams::default(), &serde_json::from_value(pod).expect("a Pod"))
            .await
            .expect("it is new");
        let me =
            Identity { namespace: "default".into(), name: "w".into(), uid: made.uid().unwrap_or_default() };
        let waiter = Cluster::new(world.client.clone(), me, "job", &uid, None);
        let before = waiter.look(None).await;
        pods.delete("w", &DeleteParams::default()).await.expect("it is there");
        let after = waiter.look(None).await;
        let (before, after) = (format!("{:?}", before.pod), format!("{:?}", after.pod));
        assert!(before.starts_with("Ours") && after.starts_with("Lost"), "{before}, then {after}");
    });
}
