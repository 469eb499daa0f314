//! Answers what a plan asks, by live requests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use futures::{StreamExt, stream};
use k8s_openapi::api::{batch::v1::Job, core::v1::Node};
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    act::{Actor, REQUEST_TIMEOUT},
    api::nodeop::NodeOp,
    observe::{Observer, Seen},
    plan::{
        question::{Answer, Question},
        snapshot::Snapshot,
    },
};

/// Live reads at once.
const AT_ONCE: usize = 8;

/// Answers each question; one that could not be answered is missing, and is asked again by a later plan.
pub async fn answer(actor: &Actor, observer: &Observer, snapshot: &Snapshot, asked: BTreeSet<Question>) -> BTreeMap<Question, Answer> {
    let answers = stream::iter(asked).map(|question| async move {
        match timeout(REQUEST_TIMEOUT, one(actor, observer, snapshot, &question)).await.context("no answer in time") {
            Ok(Ok(answer)) => Some((question, answer)),
            Ok(Err(error)) | Err(error) => {
                warn!(?question, error = format!("{error:#}"), "a live read failed");
                None
            }
        }
    });
    answers.buffer_unordered(AT_ONCE).filter_map(|found| async { found }).collect().await
}

async fn one(actor: &Actor, observer: &Observer, snapshot: &Snapshot, question: &Question) -> anyhow::Result<Answer> {
    let client = &actor.client;
    let seen = match question {
        Question::Node(name) => Api::<Node>::all(client.clone()).get_opt(name).await?.map(|node| Seen::Node(Box::new(node))),
        Question::Job((namespace, name)) => {
            Api::<Job>::namespaced(client.clone(), namespace).get_opt(name).await?.map(|job| Seen::Job(Box::new(job)))
        }
        Question::Op(of) => {
            let found = Api::<NodeOp>::namespaced(client.clone(), &of.namespace).get_opt(&of.name).await?;
            if let Some(other) = found.clone().filter(|op| op.metadata.uid.as_deref() != Some(&of.uid)) {
                observer.saw(Seen::Op(Box::new(other)));
            }
            found.filter(|op| op.metadata.uid.as_deref() == Some(&of.uid)).map(|op| Seen::Op(Box::new(op)))
        }
        Question::Rivals => return rivals(client, observer).await,
        Question::Admission(of, node) => return admission(actor, snapshot, &(of.namespace.clone(), of.name.clone()), node).await,
    };
    Ok(match seen {
        Some(seen) => {
            observer.saw(seen);
            Answer::Seen
        }
        None => {
            observer.gone(question);
            Answer::Gone
        }
    })
}

async fn rivals(client: &Client, observer: &Observer) -> anyhow::Result<Answer> {
    let all = Api::<NodeOp>::all(client.clone()).list(&ListParams::default()).await.context("listing all NodeOps")?;
    for op in all.items {
        observer.saw(Seen::Op(Box::new(op)));
    }
    Ok(Answer::Seen)
}

async fn admission(actor: &Actor, snapshot: &Snapshot, key: &(String, String), node: &str) -> anyhow::Result<Answer> {
    let op = snapshot.ops.get(key).context("the NodeOp has gone meanwhile")?;
    Ok(match actor.admits(op, node).await? {
        Ok(()) => Answer::Seen,
        Err(words) => Answer::Refused(words),
    })
}
