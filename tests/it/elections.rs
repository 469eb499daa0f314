//! The Lease in the hands of others: edited, shortened, wiped and deleted, in paused time. Somebody leads
//! again soon after it is restored, and nobody who still may write is succeeded.

use std::{ffi::OsString, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kairos_operator::{
    cli::{self, Applet},
    contract,
    controllers::{Clock, Controller, Running},
    manifests::install::objects,
};
use kairos_sim::{ChangeKind, Cluster, install};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const LEASE: &str = "ce9721c3.kairos.io";
const LEASES: &str = "leases.coordination.k8s.io";
const SECOND: Duration = Duration::from_secs(1);

struct Replicas {
    cluster: Cluster,
    leases: Api<Lease>,
    running: Vec<Running>,
}

/// Two replicas, of which the first leads.
async fn two() -> Replicas {
    let cluster = Cluster::builder().in_process().nodes(0).start().await.unwrap();
    cluster.apply(&install::without_deployment(objects(contract::IMAGE).unwrap())).await.unwrap();
    let leases = Api::namespaced(cluster.client(), install::NAMESPACE);
    let mut replicas = Replicas { cluster, leases, running: Vec::new() };
    for name in ["one", "two"] {
        replicas.start(name).await;
        sleep(SECOND * 3).await;
    }
    assert_eq!(replicas.holder(), "one");
    replicas
}

impl Replicas {
    async fn start(&mut self, name: &str) {
        let argv =
            ["kairos-operator", "controller", "--leader-elect", "--controller-pod-namespace=operator-system"]
                .map(OsString::from);
        let Ok(Applet::Controller(args)) = cli::parse(argv) else { panic!("no arguments of the controller") };
        let client = self.cluster.client_for(install::NAMESPACE, install::ACCOUNT).await.unwrap();
        self.running.push(
            Controller::new(&args, client, Clock::set_to(kairos_sim::clock::now()), name.to_owned()).start(),
        );
    }

    fn holder(&self) -> String {
        let lease = self.cluster.get(LEASES, install::NAMESPACE, LEASE).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    async fn edit(&self, spec: Value) {
        self.leases
            .patch(LEASE, &PatchParams::default(), &Patch::Merge(json!({"spec": spec})))
            .await
            .unwrap();
    }

    async fn delete(&self) {
        self.leases.delete(LEASE, &DeleteParams::default()).await.unwrap();
    }

    /// How long it takes until a replica holds the Lease.
    async fn led_after(&self) -> Duration {
        let began = Instant::now();
        while !["one", "two"].contains(&self.holder().as_str()) {
            assert!(began.elapsed() < SECOND * 600, "nobody leads: {}", self.holder());
            sleep(SECOND / 10).await;
        }
        began.elapsed()
    }

    /// All who held the Lease, in their order.
    fn holders(&self) -> Vec<String> {
        let history = self.cluster.history();
        let leases = history
            .iter()
            .filter(|change| change.key.table.as_ref() == LEASES && change.kind != ChangeKind::Deleted);
        let mut holders: Vec<String> = leases
            .map(|change| change.object["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
            .collect();
        holders.dedup();
        holders
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.running.iter().for_each(Running::kill);
    }
}

#[tokio::test(start_paused = true)]
async fn an_edited_lease_stops_nobody_for_long_and_a_restored_one_for_less() {
    let replicas = two().await;
    replicas.edit(json!({"holderIdentity": "evil", "leaseDurationSeconds": 86_400})).await;
    let took = replicas.led_after().await;
    assert!(took < SECOND * 65, "nobody restored it: {took:?}");

    for restored in [
        Some(json!({"leaseDurationSeconds": 15})),
        Some(json!({"holderIdentity": ""})),
        Some(json!({"holderIdentity": null})),
        None,
    ] {
        replicas.edit(json!({"holderIdentity": "evil", "leaseDurationSeconds": 86_400})).await;
        sleep(SECOND * 30).await;
        assert_eq!(replicas.holder(), "evil");
        match &restored {
            Some(spec) => replicas.edit(spec.clone()).await,
            None => replicas.delete().await,
        }
        let took = replicas.led_after().await;
        assert!(took < SECOND * 20, "{restored:?}: {took:?}");
    }
}

/// The leader does not know yet what was done to its Lease, and may still write.
#[tokio::test(start_paused = true)]
async fn a_leader_that_still_may_write_is_not_succeeded() {
    let replicas = two().await;
    for (what, spec) in [
        ("shortened", json!({"leaseDurationSeconds": 1})),
        ("its name wiped out", json!({"holderIdentity": ""})),
        ("all of it", json!({"holderIdentity": null, "leaseDurationSeconds": null, "renewTime": null})),
    ] {
        replicas.edit(spec).await;
        sleep(SECOND * 30).await;
        let others: Vec<String> =
            replicas.holders().into_iter().filter(|holder| !["one", ""].contains(&holder.as_str())).collect();
        assert_eq!((others, replicas.holder().as_str()), (Vec::new(), "one"), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_under_its_leader_is_made_again_by_it() {
    let replicas = two().await;
    for _ in 0..3 {
        replicas.delete().await;
        let took = replicas.led_after().await;
        assert!(took < SECOND * 6, "{took:?}");
        sleep(SECOND * 20).await;
    }
    assert_eq!(replicas.holders(), ["one"], "nobody else ever held it");
}
