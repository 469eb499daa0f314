//! Which of the volumes that are attached to a drained node the pods use that stay on it: those are not
//! waited for.
//!
//! How many pods stay, and how many claims each names, anybody decides who may make pods. So no more is asked
//! than tells something: nothing once all volumes have a user, of the namespaces in turn, and no more than a
//! bound. What is not asked for leaves a volume without a user: that is waited for, and the wait has an end.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    time::Duration,
};

use anyhow::Context;
use futures::{StreamExt, stream};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use crate::{act::REQUEST_TIMEOUT, api::volume_claim::PersistentVolumeClaim, plan::model::snapshot::NodePod};

/// Claims that are read for one node: far more than the pods have that stay on one, those of DaemonSets.
const MOST: usize = 128;
/// How many at once.
const AT_ONCE: usize = 8;
/// No further one is begun after that: the planner waits.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);

/// Namespace and name of a claim.
type Claim = (String, String);

/// Volumes, less those that are of these claims.
pub async fn without_used(
    client: &Client,
    claims: Vec<Claim>,
    mut volumes: BTreeSet<String>,
) -> anyhow::Result<BTreeSet<String>> {
    if volumes.is_empty() {
        return Ok(volumes);
    }
    let until = Instant::now() + BEGUN_WITHIN;
    let in_time = stream::iter(claims).take_while(|_| ready(Instant::now() < until));
    let mut found = in_time.map(|claim| read(client.clone(), claim)).buffer_unordered(AT_ONCE);
    while let Some(volume) = found.next().await {
        if let Some(volume) = volume? {
            volumes.remove(&volume);
        }
        if volumes.is_empty() {
            break;
        }
    }
    Ok(volumes)
}

/// The claims of pods, one of each namespace after the other, up to the bound.
pub fn in_turn<'a>(pods: impl Iterator<Item = &'a NodePod>) -> Vec<Claim> {
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        let claims = of.entry(&pod.namespace).or_default();
        claims.extend(pod.claims.iter().map(String::as_str));
    }
    let mut turns: Vec<(usize, &str, &str)> = Vec::new();
    for (namespace, mut claims) in of {
        claims.sort_unstable();
        claims.dedup();
        turns.extend(claims.into_iter().take(MOST).enumerate().map(|(turn, name)| (turn, namespace, name)));
    }
    turns.sort_unstable();
    let first = turns.into_iter().take(MOST);
    first.map(|(_, namespace, name)| (namespace.to_owned(), name.to_owned())).collect()
}

/// The volume of a claim, if it has one. Each has its own time; one that is late has told nothing.
async fn read(client: Client, (namespace, name): Claim) -> anyhow::Result<Option<String>> {
    let claims = Api::<PersistentVolumeClaim>::namespaced(client, &namespace);
    let Ok(claim) = timeout(REQUEST_TIMEOUT, claims.get_opt(&name)).await else { return Ok(None) };
    let claim = claim.with_context(|| format!("reading PersistentVolumeClaim {namespace}/{name}"))?;
    Ok(claim.and_then(|claim| claim.spec).and_then(|spec| spec.volume_name))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::act::tests::Server;

    /// Each claim has the volume `pv-NAMESPACE-NAME`, and the API server takes 200 ms for each; and what was
    /// asked for.
    fn claims() -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let paths = asked.clone();
        let client = Server::slowly(move |request| {
            let path = request.uri().path().to_owned();
            let parts: Vec<&str> = path.split('/').collect();
            let claim = json!({"spec": {"volumeName": format!("pv-{}-{}", parts[4], parts[6])}});
            paths.lock().unwrap().push(path);
            (Duration::from_millis(200), 200, claim)
        });
        (client, asked)
    }

    fn pod(namespace: &str, claims: impl Iterator<Item = String>) -> NodePod {
        NodePod { namespace: namespace.into(), claims: claims.collect(), ..NodePod::default() }
    }

    fn volumes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A tenant leaves pods there that need not even start, with a thousand claims.
    #[tokio::test(start_paused = true)]
    async fn the_claims_of_one_tenant_keep_those_of_others_not_from_being_read() {
        let (client, asked) = claims();
        let hostile = (0..8).map(|number| pod("a", (0..128).map(move |claim| format!("{number}-{claim}"))));
        let pods: Vec<NodePod> = hostile.chain([pod("b", ["logs".to_owned()].into_iter())]).collect();
        let began = Instant::now();
        let left =
            without_used(&client, in_turn(pods.iter()), volumes(&["pv-b-logs", "pv-gone"])).await.unwrap();
        assert_eq!(left, volumes(&["pv-gone"]));
        assert!(began.elapsed() <= BEGUN_WITHIN + REQUEST_TIMEOUT, "{:?}", began.elapsed());
        assert!(asked.lock().unwrap().len() <= MOST);
        asked.lock().unwrap().clear();
        let left = without_used(&client, in_turn(pods.iter()), volumes(&["pv-b-logs"])).await.unwrap();
        assert!(left.is_empty() && asked.lock().unwrap().len() <= 2 * AT_ONCE, "it was the only one");
    }

    #[tokio::test(start_paused = true)]
    async fn no_claim_is_read_where_nothing_is_attached() {
        let (client, asked) = claims();
        let pods = [pod("a", (0..128).map(|claim| claim.to_string()))];
        assert!(without_used(&client, in_turn(pods.iter()), volumes(&[])).await.unwrap().is_empty());
        assert_eq!(asked.lock().unwrap().len(), 0);
    }
}
