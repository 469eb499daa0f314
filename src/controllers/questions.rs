//! Answers what a plan asks, by live requests.

use std::{collections::BTreeSet, future::ready};

use anyhow::Context;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::time::Instant;

use super::{
    attachments::Attachments,
    claims, events,
    reads::{Bound, FEW, each, in_time},
    rivals,
};
use crate::{
    act::{self, Actor, Admission},
    api::{
        job::Job,
        names,
        node::Node,
        nodeop::NodeOp,
        owner::{self, Owner},
        pod::Pod,
    },
    observe::{LiveObject, Observer, static_pods, view},
    plan::model::{
        id::OpRef,
        object_name,
        question::{Answer, Question},
        snapshot::{JobView, Snapshot},
    },
    render::job::On,
};

/// Live reads at once.
const AT_ONCE: usize = 8;

/// Answers each question, or says why not. But for a few, no dry run is begun after `until`: each is several
/// writes, and there may be one for each node of which the Job has no pod. Those that are left are asked for
/// by a later plan, and what was answered by then stands for a while.
pub async fn answer(
    actor: &Actor,
    observer: &Observer,
    snapshot: &Snapshot,
    asked: BTreeSet<Question>,
    until: Instant,
) -> Vec<(Question, anyhow::Result<Answer>)> {
    let attachments = &Attachments::of(&asked);
    let count = asked.len();
    let is_dry_run = |question: &Question| matches!(question, Question::Admission(..));
    let (dry_runs, reads): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_dry_run);
    // As many as go at once are begun however long the reads take, or they would never be.
    let timely = stream::iter(dry_runs.into_iter().enumerate())
        .take_while(|(number, _)| ready(*number < AT_ONCE || Instant::now() < until))
        .map(|(_, question)| question);
    let answers = stream::iter(reads).chain(timely).map(|question| async move {
        let answer = answer_one(actor, observer, snapshot, attachments, &question);
        let answer = match question {
            Question::Node(_) | Question::Pod(_) => in_time(answer).await,
            // They are found out by several requests, of which each has a limit of its own.
            Question::Op(_)
            | Question::Admission(..)
            | Question::AllNodeOps
            | Question::OwnedWorkload(_)
            | Question::Volumes(_)
            | Question::Job(_)
            | Question::Events { .. }
            | Question::OtherReplica(_)
            | Question::ControlPlanePods(_) => answer.await,
        };
        (question, answer)
    });
    let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
    if answers.len() < count {
        observer.nudge();
    }
    answers
}

/// The object for which something is asked, if it is one.
pub fn about(question: &Question) -> Option<ObjectReference> {
    match question {
        Question::Op(op) | Question::OwnedWorkload(op) | Question::Admission(op, _) => {
            Some(act::about_op(op))
        }
        Question::Node(node) | Question::ControlPlanePods(node) => Some(act::about_node(node)),
        Question::Job(_)
        | Question::Pod(_)
        | Question::AllNodeOps
        | Question::OtherReplica(_)
        | Question::Volumes(_)
        | Question::Events { .. } => None,
    }
}

async fn answer_one(
    actor: &Actor,
    observer: &Observer,
    snapshot: &Snapshot,
    attachments: &Attachments,
    question: &Question,
) -> anyhow::Result<Answer> {
    let (client, began) = (&actor.client, Instant::now());
    let seen = match question {
        Question::Node(name) => {
            Api::<Node>::all(client.clone()).get_opt(name).await?.map(|node| LiveObject::Node(Box::new(node)))
        }
        Question::Job((namespace, name)) => {
            let job = in_time(Api::<Job>::namespaced(client.clone(), namespace).get_opt(name)).await?;
            // What a Job's end means stands in its pods, which come from another watch and may be seen later.
            let pods = ListParams::default().labels(&format!("{}={name}", names::JOB_NAME_LABEL));
            let uid = job.as_ref().filter(|job| is_of_ours(job)).and_then(|job| job.metadata.uid.as_deref());
            let take = |pod: Pod| {
                // The pods of a Job of ours are taken also if somebody took our label away. Those of the Go
                // operator's Jobs never had one.
                let owner = Owner::of(&pod.metadata);
                let of_it = owner.is_some_and(|owner| owner.is_job() && Some(owner.uid.as_str()) == uid);
                if of_it || pod.labels().contains_key(names::NODEOP) {
                    observer.read(LiveObject::Pod(Box::new(pod)), began);
                }
            };
            each(&Api::<Pod>::namespaced(client.clone(), namespace), &pods, FEW, take)
                .await
                .context("listing the Job's pods")?;
            job.map(|job| LiveObject::Job(Box::new(job)))
        }
        Question::Pod((namespace, name)) => Api::<Pod>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await?
            .map(|pod| LiveObject::Pod(Box::new(pod))),
        Question::Op(of) => {
            if rivals::is_known(client, observer, of).await? {
                return Ok(Answer::Found);
            }
            let ops = Api::<NodeOp>::namespaced(client.clone(), &of.namespace);
            let found = in_time(ops.get_opt(&of.name)).await?;
            if let Some(other) = found.clone().filter(|op| op.metadata.uid.as_deref() != Some(&of.uid)) {
                observer.read(LiveObject::Op(Box::new(other)), began);
            }
            found
                .filter(|op| op.metadata.uid.as_deref() == Some(&of.uid))
                .map(|op| LiveObject::Op(Box::new(op)))
        }
        Question::OtherReplica(node) => return other_replica(client, snapshot, node).await,
        Question::Volumes(node) => return volumes(client, snapshot, attachments, node).await,
        Question::Events { of, namespace, name, uid } => {
            return events::read(client, *of, namespace, (name, uid)).await;
        }
        Question::ControlPlanePods(node) => return control_plane_pods(client, node).await,
        Question::OwnedWorkload(of) => return owned_workload(client, observer, snapshot, of).await,
        Question::AllNodeOps => return rivals::read(client, observer).await,
        Question::Admission(of, node) => {
            return admission(actor, snapshot, &(of.namespace.clone(), of.name.clone()), node).await;
        }
    };
    Ok(match seen {
        Some(seen) => {
            observer.read(seen, began);
            Answer::Found
        }
        None => {
            observer.gone(question);
            Answer::NotFound
        }
    })
}

/// Whether it is one that this operator made: it has one of our names.
fn is_of_ours(job: &Job) -> bool {
    let JobView { owner, node, name, .. } = view::job(job);
    owner.is_nodeop() && object_name::attempt((&owner.name, &owner.uid), &node, "", &name).is_some()
}

async fn owned_workload(
    client: &Client,
    observer: &Observer,
    snapshot: &Snapshot,
    of: &OpRef,
) -> anyhow::Result<Answer> {
    let (began, bound) = (Instant::now(), Bound::for_nodes(snapshot.nodes.len()));
    let params = ListParams::default().labels(&format!("{}={}", names::NODEOP, names::label_value(&of.name)));
    let jobs = Api::<Job>::namespaced(client.clone(), &of.namespace);
    each(&jobs, &params, bound, |job| observer.read(LiveObject::Job(Box::new(job)), began))
        .await
        .context("listing its Jobs")?;
    let pods = Api::<Pod>::namespaced(client.clone(), &of.namespace);
    each(&pods, &params, bound, |pod| observer.read(LiveObject::Pod(Box::new(pod)), began))
        .await
        .context("listing its pods")?;
    Ok(Answer::Found)
}

async fn admission(
    actor: &Actor,
    snapshot: &Snapshot,
    key: &(String, String),
    node: &str,
) -> anyhow::Result<Answer> {
    let op = snapshot.ops.get(key).context("the NodeOp has gone meanwhile")?;
    let view = snapshot.nodes.get(node);
    let (locks, labels) = (view.is_some_and(|view| view.native_sidecars), view.map(|view| &*view.labels));
    Ok(match actor.admits(op, On { node, locks }, labels).await? {
        Admission::Admitted => Answer::Found,
        Admission::NotYet(message) => Answer::NotYet(message),
        Admission::Refused(message) => Answer::Refused(message),
    })
}

/// Another replica is one that has our own pod's controller. It stays, is on another node, and is Ready, or
/// starts.
async fn other_replica(client: &Client, snapshot: &Snapshot, node: &str) -> anyhow::Result<Answer> {
    let Some((namespace, name)) = &snapshot.config.own_pod else { return Ok(Answer::NotFound) };
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let owner = |pod: &Pod| owner::controller(&pod.metadata).map(|owner| owner.uid.clone());
    let own = in_time(api.get(name)).await.context("reading our own pod")?;
    let Some(ours) = owner(&own) else { return Ok(Answer::NotFound) };
    let (mut answer, bound) = (Answer::NotFound, Bound::for_nodes(snapshot.nodes.len()));
    // Pods that have ended may have piled up, and stand in for nobody.
    let open = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    each(&api, &open, bound, |pod| {
        if owner(&pod).as_ref() == Some(&ours) && stays_elsewhere(&pod, node) {
            let ready = static_pods::is_ready(&pod) || answer == Answer::Found;
            answer = if ready { Answer::Found } else { Answer::Pending };
        }
    })
    .await
    .with_context(|| format!("listing our own replicas among the pods of namespace {namespace}"))?;
    Ok(answer)
}

fn stays_elsewhere(pod: &Pod, node: &str) -> bool {
    let there = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|at| at != node);
    there && pod.metadata.deletion_timestamp.is_none()
}

async fn control_plane_pods(client: &Client, node: &str) -> anyhow::Result<Answer> {
    let on_node = format!("spec.nodeName={node}");
    let params = ListParams::default().labels(static_pods::LABELS).fields(&on_node);
    let (api, mut pods) = (Api::<Pod>::namespaced(client.clone(), static_pods::NAMESPACE), Vec::new());
    each(&api, &params, FEW, |pod| pods.push(pod)).await.context("listing them")?;
    Ok(static_pods::answer(&pods))
}

/// What is attached to the node, less what the pods that stay on it use.
async fn volumes(
    client: &Client,
    snapshot: &Snapshot,
    attachments: &Attachments,
    node: &str,
) -> anyhow::Result<Answer> {
    let used = claims::in_turn(snapshot.residents(node).filter(|pod| !pod.finished));
    let attached = attachments.on(client, node).await?;
    let left = claims::without_used(client, used, attached).await?;
    Ok(Answer::Attached(left.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        act::tests::{Left, Server, actor},
        plan::model::snapshot::{NodeView, PlannerConfig},
    };

    /// Whoever may make pods in a namespace can give them any label, and a kubelet its mirror pods.
    #[tokio::test(start_paused = true)]
    async fn a_list_that_strangers_make_endless_has_an_end_and_the_error_names_its_label() {
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        let client = Server::slowly(move |request| {
            let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
            let own = json!({"metadata": {"name": "own", "namespace": "own", "ownerReferences": owner}});
            *count.lock().unwrap() += 1;
            let page = match request.uri().path().rsplit('/').next() {
                Some("own") => own,
                _ => json!({"metadata": {"continue": "more"}, "items": vec![json!({"metadata": {}}); 50]}),
            };
            (Duration::from_millis(10), 200, page)
        });
        let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(60))))));
        let config =
            PlannerConfig { own_pod: Some(("own".into(), "own".into())), ..PlannerConfig::default() };
        let node = |number: usize| format!("n{number}");
        let nodes = |count| {
            (0..count).map(|number| {
                (node(number), Arc::new(NodeView { name: node(number), ..NodeView::default() }))
            })
        };
        let of = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        for (question, count, pages, named) in [
            (Question::Job(("ns".into(), "j".into())), 1000, 20, "batch.kubernetes.io/job-name=j"),
            (Question::OwnedWorkload(of.clone()), 0, 20, "kairos.io/nodeop=op"),
            (Question::OwnedWorkload(of), 1000, 220, "kairos.io/nodeop=op"),
            (Question::OtherReplica("n1".into()), 0, 20, "namespace own"),
            (Question::ControlPlanePods("n1".into()), 1000, 20, "spec.nodeName=n1"),
        ] {
            let snapshot =
                Snapshot { nodes: nodes(count).collect(), config: config.clone(), ..Snapshot::default() };
            *asked.lock().unwrap() = 0;
            let observer = Observer::default();
            let answers = answer(&actor, &observer, &snapshot, [question].into(), Instant::now());
            let answers = timeout(Duration::from_secs(30), answers).await.expect("it has an end");
            let error = format!("{:#}", answers[0].1.as_ref().unwrap_err());
            assert!(error.contains(named) && error.chars().count() <= 300, "{error}");
            let lists = *asked.lock().unwrap();
            assert!((pages..=pages + 1).contains(&lists), "{lists}: {error}");
        }
    }

    /// A webhook that takes four seconds, and a hundred nodes on which no Job gets a pod.
    #[tokio::test(start_paused = true)]
    async fn dry_runs_have_a_bound_in_one_pass_and_reads_are_all_answered() {
        let client = Server::slowly(|request| {
            let takes = Duration::from_secs(if request.method() == "GET" { 1 } else { 4 });
            (
                takes,
                404,
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": 404}),
            )
        });
        let actor = actor(client, Arc::new(Left(Mutex::new(Some(Duration::from_secs(60))))));
        let mut op = NodeOp::new("op", Default::default());
        (op.metadata.namespace, op.metadata.uid) = (Some("ns".into()), Some("u".into()));
        let of = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let ops = [(("ns".to_owned(), "op".to_owned()), Arc::new(op))].into();
        let snapshot = Snapshot { ops, ..Snapshot::default() };
        let node = |number: usize| format!("n{number}");
        let dry_runs = (0..100).map(|number| Question::Admission(of.clone(), node(number)));
        let asked = dry_runs.chain((0..100).map(|number| Question::Node(node(number)))).collect();
        let began = Instant::now();
        let until = began + Duration::from_secs(15);
        let answers = answer(&actor, &Observer::default(), &snapshot, asked, until).await;
        let reads = answers.iter().filter(|(question, _)| matches!(question, Question::Node(_))).count();
        assert_eq!(reads, 100);
        assert!((1..50).contains(&(answers.len() - reads)), "{}", answers.len());
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }
}
