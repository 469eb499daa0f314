//! What all NodeOps say now: of two processes that both believe to lead, and have both written an intent, at
//! least one sees the other's here.
//!
//! NodeOps are never deleted by themselves, and one of thousands of nodes is a megabyte, so they are not read
//! again to hear what is known: the list tells of their versions, and what is here in that version, or in a
//! later one, is what is there. Only news is read.

use anyhow::Context;
use futures::{TryStreamExt, stream};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::time::Instant;

use super::reads::in_time;
use crate::{
    api::{metadata::Metadata, nodeop::NodeOp, pages},
    observe::{LiveObject, Observer},
    plan::model::{id::OpRef, question::Answer},
};

/// NodeOps in a page of the list, of which each is 2 to 4 kilobytes there.
const PAGE: u32 = 250;
/// Of those that are news, how many are read at once.
const AT_ONCE: usize = 4;

/// Reads what is not known. Each request has its own time to be answered: how many there are depends on how
/// many operations a site keeps, and that must not decide whether there is an answer.
pub async fn read(client: &Client, observer: &Observer) -> anyhow::Result<Answer> {
    let versions = Api::<Metadata<NodeOp>>::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    // All pages show one moment, that of the first: what the watch has brought in since is newer than they
    // are.
    let began = Instant::now();
    loop {
        let list = in_time(versions.list(&page)).await.context("listing all NodeOps")?;
        let news = list.items.into_iter().filter(|told| !observer.has_op(&told.metadata, began));
        stream::iter(news.map(Ok))
            .try_for_each_concurrent(AT_ONCE, |told| one(client, observer, told))
            .await?;
        match pages::after(page, list.metadata) {
            Some(next) => page = next,
            None => return Ok(Answer::Found),
        }
    }
}

/// Whether a NodeOp is here as a live read tells of it, or as it was later.
pub async fn is_known(client: &Client, observer: &Observer, of: &OpRef) -> anyhow::Result<bool> {
    let versions = Api::<Metadata<NodeOp>>::namespaced(client.clone(), &of.namespace);
    let began = Instant::now();
    let told = in_time(versions.get_opt(&of.name)).await?.map(|told| told.metadata);
    let told = told.filter(|told| told.uid.as_deref() == Some(&of.uid));
    Ok(told.is_some_and(|told| observer.has_op(&told, began)))
}

/// Reads one. It may have gone since the list was made, which its watch tells.
async fn one(client: &Client, observer: &Observer, told: Metadata<NodeOp>) -> anyhow::Result<()> {
    let (namespace, name) = (told.namespace().unwrap_or_default(), told.name_any());
    let (api, began) = (Api::<NodeOp>::namespaced(client.clone(), &namespace), Instant::now());
    let found = in_time(api.get_opt(&name)).await;
    if let Some(op) = found.with_context(|| format!("reading NodeOp {namespace}/{name}"))? {
        observer.read(LiveObject::Op(Box::new(op)), began);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use hyper::Request;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::sleep;

    use super::*;
    use crate::{
        act::tests::{Left, Server, actor},
        controllers::questions::answer,
        plan::model::{question::Question, snapshot::Snapshot},
    };

    const PAGES: usize = 3;

    fn op(number: usize) -> Value {
        json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "spec": {},
            "metadata": {"name": format!("op{number}"), "namespace": "ns", "uid": number.to_string(),
                "resourceVersion": (number + 10).to_string()}})
    }

    /// An API server that needs three seconds for each answer, with as many NodeOps as are three pages, of
    /// which the one of each number has a version of ten more; and what it was asked for whole.
    fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let whole = Arc::new(Mutex::new(Vec::new()));
        let asked = whole.clone();
        let client = Server::slowly(move |request| {
            (Duration::from_secs(3), 200, answered(&request, &mut asked.lock().unwrap()))
        });
        (client, whole)
    }

    fn answered(request: &Request<Body>, whole: &mut Vec<String>) -> Value {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(number) = name.strip_prefix("op") {
            let accepts = request.headers().get("accept").map_or("", |accepts| accepts.to_str().unwrap());
            whole.extend((!accepts.contains("as=PartialObjectMetadata")).then(|| name.clone()));
            return op(number.parse().unwrap());
        }
        let query = request.uri().query().unwrap_or_default();
        let of = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value.parse::<usize>().unwrap())
        };
        let (limit, at) = (of("limit").unwrap(), of("continue").unwrap_or(0));
        let next = (at + 1 < PAGES).then(|| (at + 1).to_string());
        let items: Vec<Value> = (at * limit..(at + 1) * limit).map(op).collect();
        json!({"metadata": {"resourceVersion": "9000", "continue": next}, "items": items})
    }

    async fn ask(client: &Client, observer: &Observer, question: Question) -> Answer {
        let asked = BTreeSet::from([question]);
        let actor = actor(client.clone(), Arc::new(Left(Mutex::new(Some(Duration::from_secs(15))))));
        let mut answers = answer(&actor, observer, &Snapshot::default(), asked, Instant::now()).await;
        answers.remove(0).1.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_keeps_its_operations_is_answered_and_only_news_is_read() {
        let ((client, whole), observer) = (server(), Observer::default());
        let saw = |observer: &Observer, object: Value| {
            observer.saw(LiveObject::Op(Box::new(serde_json::from_value(object).unwrap())));
        };
        (0..PAGES * PAGE as usize).for_each(|number| saw(&observer, op(number)));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(ask(&client, &observer, Question::AllNodeOps).await, Answer::Found);
        assert!(whole.lock().unwrap().is_empty(), "each is known in its version");
        let observer = Observer::default();
        for number in (0..PAGES * PAGE as usize).filter(|number| *number != 3) {
            let mut object = op(number);
            match number {
                7 => object["metadata"]["resourceVersion"] = "16".into(),
                8 => object["metadata"]["resourceVersion"] = "19".into(),
                _ => {}
            }
            saw(&observer, object);
        }
        assert_eq!(ask(&client, &observer, Question::AllNodeOps).await, Answer::Found);
        let read: BTreeSet<String> = whole.lock().unwrap().drain(..).collect();
        assert_eq!(read, ["op3", "op7"].map(String::from).into(), "what is not here, and what is old here");
        for number in [3, 7] {
            let told: Metadata<NodeOp> = serde_json::from_value(op(number)).unwrap();
            assert!(observer.has_op(&told.metadata, Instant::now()), "op{number} is known now");
        }
    }

    /// Of thousands of nodes it is a megabyte, and each claim asks.
    #[tokio::test(start_paused = true)]
    async fn a_nodeop_that_is_known_in_its_version_is_not_read_again() {
        let ((client, whole), observer) = (server(), Observer::default());
        let of = |number: usize, uid: &str| {
            Question::Op(OpRef { namespace: "ns".into(), name: format!("op{number}"), uid: uid.into() })
        };
        for (number, version) in [(1, "11"), (2, "11"), (4, "14")] {
            let mut object = op(number);
            object["metadata"]["resourceVersion"] = version.into();
            observer.saw(LiveObject::Op(Box::new(serde_json::from_value(object).unwrap())));
        }
        for (number, uid, answer, reads) in [
            (1, "1", Answer::Found, false),
            (2, "2", Answer::Found, true),
            (2, "2", Answer::Found, false),
            (4, "4", Answer::Found, false),
            (5, "5", Answer::Found, true),
            (1, "other", Answer::NotFound, true),
        ] {
            assert_eq!(ask(&client, &observer, of(number, uid)).await, answer, "op{number}, {uid}");
            let read: Vec<String> = whole.lock().unwrap().drain(..).collect();
            assert_eq!(!read.is_empty(), reads, "op{number}, {uid}: {read:?}");
        }
    }
}
