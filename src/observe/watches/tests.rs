//! Tests of the watches.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes};
use kube::client::Body;
use serde_json::json;
use tower_service::Service;

use super::*;
use crate::plan::model::snapshot::{JobView, PodView};

/// An API server with one node. Its watches deliver nothing; if they break, then when its store has
/// another version.
#[derive(Clone)]
struct Server {
    version: Arc<AtomicU64>,
    breaks: bool,
}

impl Service<Request<Body>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { version, breaks } = self.clone();
        let has = version.load(Ordering::Relaxed);
        Box::pin(async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                while !breaks || version.load(Ordering::Relaxed) == has {
                    sleep(Duration::from_secs(1)).await;
                }
                let mut down = Response::new(Full::default());
                *down.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(down);
            }
            let node = json!({"metadata": {"name": "n1", "uid": "u", "resourceVersion": has.to_string()}});
            let items = if request.uri().path() == "/api/v1/nodes" { vec![node] } else { vec![] };
            let list = json!({"metadata": {"resourceVersion": has.to_string()}, "items": items});
            Ok(Response::new(Full::from(list.to_string())))
        })
    }
}

async fn has(observer: &Observer, version: u64) {
    assert!(
        timeout(LOOK_EVERY * 10, shows(observer, version)).await.is_ok(),
        "version {version} is not seen"
    );
}

async fn shows(observer: &Observer, version: u64) {
    while observer.lock().nodes.newest() != Some(version) || !observer.ready() {
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_listed_anew_though_no_watch_tells_and_nobody_asks() {
    for (breaks, within) in [(true, Duration::from_secs(10)), (false, LOOK_EVERY + LOOK_AGAIN)] {
        let version = Arc::new(AtomicU64::new(726));
        let observer = Observer::default();
        observer.start(&Client::new(Server { version: version.clone(), breaks }, "default"), "own");
        has(&observer, 726).await;
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(observer.lock().nodes.newest(), Some(726), "nothing happened");
        version.store(596, Ordering::Relaxed);
        assert!(timeout(within, shows(&observer, 596)).await.is_ok(), "breaks: {breaks}");
        version.store(597, Ordering::Relaxed);
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(observer.lock().nodes.newest(), Some(596), "only what went back is listed anew");
    }
}

/// Anybody's pods may be on a node, and of any size.
#[tokio::test(start_paused = true)]
async fn pods_of_a_drained_node_are_listed_in_pages() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let queries = asked.clone();
    let client = crate::act::tests::Server::client(move |request: Request<Body>| {
        queries.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
        (200, json!({"metadata": {"resourceVersion": "7"}, "items": []}))
    });
    let observer = Observer::default();
    observer.watch_pods_of(&client, &["n1".to_owned()].into());
    let listed = || observer.lock().drained_pods.get("n1").is_some_and(Cache::ready);
    while !listed() {
        sleep(Duration::from_millis(100)).await;
    }
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("limit=50") && asked[0].contains("n1"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_read_for_a_while_is_told_with_its_error_until_it_comes_in() {
    let refused = Arc::new(AtomicU64::new(1));
    let refuses = refused.clone();
    let client = crate::act::tests::Server::client(move |request: Request<Body>| {
        if request.uri().path() == "/api/v1/pods" && refuses.load(Ordering::Relaxed) == 1 {
            let message = "you may not list pods";
            return (
                403,
                json!({"kind": "Status", "status": "Failure", "message": message, "reason": "Forbidden", "code": 403}),
            );
        }
        (200, json!({"metadata": {"resourceVersion": "7"}, "items": []}))
    });
    let observer = Observer::default();
    observer.start(&client, "own");
    let unlisted = |observer: &Observer| {
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        observer.snapshot(&<_>::default(), now, now, <_>::default(), <_>::default()).unwrap().unlisted
    };
    while !observer.ready() {
        sleep(Duration::from_millis(100)).await;
    }
    observer.watch_pods_of(&client, &["n1".to_owned()].into());
    sleep(Duration::from_secs(20)).await;
    assert!(unlisted(&observer).is_empty(), "an API server may be away for a while");
    sleep(Duration::from_secs(100)).await;
    let told = unlisted(&observer);
    assert!(told["n1"].contains("you may not list pods"), "{told:?}");
    refused.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(100)).await;
    assert!(unlisted(&observer).is_empty());
}

/// An API server that takes the right to watch away, and gives it back.
#[tokio::test(start_paused = true)]
async fn a_drained_nodes_pods_whose_watch_cannot_be_taken_up_again_are_told_and_listed_anew() {
    let (refused, pods) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
    let (refuses, there) = (refused.clone(), pods.clone());
    let client = crate::act::tests::Server::slowly(move |request: Request<Body>| {
        let of_pods = request.uri().path() == "/api/v1/pods";
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let pod = |number| json!({"metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": "u", "resourceVersion": "6"}});
        let items: Vec<_> = (0..if of_pods { there.load(Ordering::Relaxed) } else { 0 }).map(pod).collect();
        match refuses.load(Ordering::Relaxed) {
            no if of_pods && (no == 2 || (no == 1 && watches)) => {
                let message = "you may not watch pods";
                let status = json!({"kind": "Status", "status": "Failure", "message": message, "reason": "Forbidden", "code": 403});
                (Duration::ZERO, 403, status)
            }
            // A watch that is quiet, and ends as those of an API server do.
            _ if watches => (Duration::from_secs(10), 200, json!({})),
            _ => (Duration::ZERO, 200, json!({"metadata": {"resourceVersion": "7"}, "items": items})),
        }
    });
    let observer = Observer::default();
    observer.start(&client, "own");
    while !observer.ready() {
        sleep(Duration::from_millis(100)).await;
    }
    let shown = |observer: &Observer| {
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        let shown = observer.snapshot(&<_>::default(), now, now, <_>::default(), <_>::default()).unwrap();
        (shown.drained_pods.get("n1").map(|pods| pods.len()), shown.unlisted.get("n1").cloned())
    };
    observer.watch_pods_of(&client, &["n1".to_owned()].into());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shown(&observer), (Some(1), None));
    refused.store(2, Ordering::Relaxed);
    pods.store(3, Ordering::Relaxed);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(shown(&observer), (Some(1), None), "an API server may be away for a while");
    sleep(Duration::from_secs(200)).await;
    let (old, why) = shown(&observer);
    assert!(old == Some(1) && why.unwrap().contains("you may not watch pods"));
    // The list alone shows what there is, and for how long.
    refused.store(1, Ordering::Relaxed);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(shown(&observer).0, Some(3), "what came meanwhile is seen");
    refused.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(shown(&observer), (Some(3), None));
}

/// Whoever stands by may do so for months, and nobody deletes the Jobs and pods of what is over. Their lists
/// come in in any order.
#[tokio::test]
async fn where_nobody_plans_what_is_over_is_not_kept_either() {
    let by = |kind: &str, name: &str| {
        let group = if kind == "Job" { "batch/v1" } else { "operator.kairos.io/v1alpha1" };
        json!([{"apiVersion": group, "kind": kind, "name": name, "uid": name, "controller": true}])
    };
    let meta = |name: &str, owner: serde_json::Value| {
        json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": "7", "ownerReferences": owner,
            "labels": {names::NODEOP: "op", names::NODE: "n1"}})
    };
    let job = |name: &str, op: &str, condition: &str| -> Job {
        let status = json!({"conditions": [{"type": condition, "status": "True"}]});
        serde_json::from_value(json!({"metadata": meta(name, by("NodeOp", op)), "status": status})).unwrap()
    };
    let pod = |job: &str| -> Pod {
        let meta = meta(&format!("{job}-x"), by("Job", job));
        serde_json::from_value(json!({"metadata": meta, "status": {"phase": "Succeeded"}})).unwrap()
    };
    let op = |name: &str, phase: &str| -> NodeOp {
        let meta =
            json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": "9", "generation": 1});
        let status =
            json!({"phase": phase, "observedGeneration": 1, "nodeStatuses": {"n1": {"phase": phase}}});
        serde_json::from_value(json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": meta, "spec": {"command": ["true"]}, "status": status}))
        .unwrap()
    };
    let observer = Observer::default();
    {
        let mut caches = observer.lock();
        caches.work.insert("ns".into(), Work::default());
        for (name, phase) in [("over", "Completed"), ("goes-on", "Running")] {
            let op = op(name, phase);
            caches.ops.apply(view::version(&op.metadata), NodeOp::kept(op));
        }
        caches.ops.list_ends();
        caches.upgrades.list_ends();
    }
    let ended = || (0..200).map(|number| format!("j{number}"));
    let jobs =
        ended().map(|name| job(&name, "over", "Complete")).chain([job("open", "goes-on", "Suspended")]);
    let pods = ended().map(|name| pod(&name)).chain([pod("open")]);
    fn list<K>(objects: impl Iterator<Item = K>) -> impl Stream<Item = Result<Event<K>, watcher::Error>> {
        let objects: Vec<_> = objects.map(Event::InitApply).collect();
        let events = [Event::Init].into_iter().chain(objects).chain([Event::InitDone]);
        futures::stream::iter(events.map(Ok))
    }
    fn of_pods(caches: &mut Caches) -> Option<&mut Cache<PodView>> {
        caches.work.get_mut("ns").map(|work| &mut work.pods)
    }
    fn of_jobs(caches: &mut Caches) -> Option<&mut Cache<JobView>> {
        caches.work.get_mut("ns").map(|work| &mut work.jobs)
    }
    observer.feed("Pod", 0, list(pods), of_pods, |_| true, |pod| view::pod(&pod, "own")).await;
    observer.feed("Job", 0, list(jobs), of_jobs, |_| true, |job| view::job(&job)).await;
    let kept = |observer: &Observer| {
        let mut caches = observer.lock();
        let work = caches.work.get_mut("ns").unwrap();
        let names = |key: &crate::plan::model::id::Key| key.1.clone();
        let there =
            work.jobs.iter().map(|(key, _)| names(key)).chain(work.pods.iter().map(|(key, _)| names(key)));
        let there: Vec<_> = there.collect();
        (there, work.jobs.changes().count() + work.pods.changes().count())
    };
    assert_eq!(kept(&observer), (vec!["open".to_owned(), "open-x".to_owned()], 0));
    // What comes and goes leaves nothing either.
    let gone =
        (0..PAGE * 4).map(|number| Ok(Event::Delete(job(&format!("k{}", number / 2), "over", "Complete"))));
    let come =
        (0..PAGE * 4).map(|number| Ok(Event::Apply(job(&format!("k{number}"), "goes-on", "Suspended"))));
    observer
        .feed("Job", 0, futures::stream::iter(come.chain(gone)), of_jobs, |_| true, |job| view::job(&job))
        .await;
    let (there, changed) = kept(&observer);
    assert!(there.len() < 300 && changed < PAGE as usize, "{} {changed}", there.len());
}
