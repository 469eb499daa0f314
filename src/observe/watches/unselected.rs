//! Jobs and pods that a watch does not tell of any more, because somebody took our label away.
//!
//! Whoever may edit an object may take a label off it, `kubectl label --all` does so to many, and so does a
//! policy that cleans up. The watch says that the object is deleted, in the version of that very change, and
//! nothing of it from then on. So what is said to be deleted is read, and what is there is read again and
//! again.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, ResourceExt, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{LOOK_AGAIN, versions::READ_AGAIN};
use crate::{
    api::{job::Job, names, pod::Pod},
    observe::{LiveObject, Observer},
    plan::model::question::Question,
};

/// Between two reads of an object of which no watch tells; twice as long after each that showed nothing new,
/// up to a minute.
const READ_EVERY: Duration = Duration::from_secs(5);
const READ_AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// Whether a watch that selects by a label tells of this object.
pub(super) type Selects = fn(&ObjectMeta) -> bool;

/// Whether the watches of Jobs and pods tell of this one.
pub(in crate::observe) fn selects_work(of: &ObjectMeta) -> bool {
    of.labels.as_ref().is_some_and(|labels| labels.contains_key(names::NODEOP))
}

/// The event, or that the object has changed, if it is there. Of one that had been told to end, its end is
/// what the watch tells; and what is not kept is not looked for.
pub(super) async fn confirmed<K, E>(
    api: &Api<K>,
    event: Result<Event<K>, E>,
    is_kept: impl Fn(&K) -> bool,
) -> Result<Event<K>, E>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let Ok(Event::Delete(gone)) = event else { return event };
    if gone.meta().deletion_timestamp.is_some() || !is_kept(&gone) {
        return Ok(Event::Delete(gone));
    }
    let (dynamic, name) = (K::DynamicType::default(), gone.name_any());
    let kind = K::kind(&dynamic);
    loop {
        match timeout(LOOK_AGAIN, api.get_opt(&name)).await {
            Ok(Ok(Some(found))) if found.uid() == gone.uid() => return Ok(Event::Apply(found)),
            Ok(Ok(_)) => return Ok(Event::Delete(gone)),
            Ok(Err(error)) => warn!(%error, "{kind} {name} could not be read"),
            Err(_) => warn!("{kind} {name} could not be read: no answer in time"),
        }
        sleep(READ_AGAIN).await;
    }
}

impl Observer {
    /// Reads what no watch tells of.
    pub(super) async fn read_unselected(&self, client: &Client) {
        let mut pause = READ_EVERY;
        loop {
            sleep(pause).await;
            let unselected = self.lock().unselected();
            for (question, _) in &unselected {
                let began = Instant::now();
                match timeout(LOOK_AGAIN, read(client, question)).await {
                    Ok(Ok(Some(seen))) => self.read(seen, began),
                    Ok(Ok(None)) => {
                        self.gone(question);
                        self.tell();
                    }
                    // It is read in the next round.
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            let is_quiet = !unselected.is_empty() && unselected == self.lock().unselected();
            pause = if is_quiet { (pause * 2).min(READ_AT_LEAST_EVERY) } else { READ_EVERY };
        }
    }
}

async fn read(client: &Client, question: &Question) -> kube::Result<Option<LiveObject>> {
    Ok(match question {
        Question::Job((namespace, name)) => {
            let job = Api::<Job>::namespaced(client.clone(), namespace).get_opt(name).await?;
            job.map(|job| LiveObject::Job(Box::new(job)))
        }
        Question::Pod((namespace, name)) => {
            let pod = Api::<Pod>::namespaced(client.clone(), namespace).get_opt(name).await?;
            pod.map(|pod| LiveObject::Pod(Box::new(pod)))
        }
        _ => None,
    })
}
