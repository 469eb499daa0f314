//! What keeps a pod from its start, or a Job from having one, where no watch of ours shows it: Events, which
//! are read when somebody asks, and the pods of a Job that are none of ours to watch.

use anyhow::Context;
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::reads::{FEW, up_to};
use crate::{
    api::{event::Event, names, owner::Owner, pod::Pod},
    observe::view,
    plan::model::{
        question::{Answer, Regarding},
        snapshot::brief,
    },
};

/// What the newest Event about a pod or a Job says, or the pods of a Job do. A warning has passed once its
/// kubelet, or the Job's controller, says that it has gone further. `name` and `uid` are those of the object.
/// Of Events without an end those decide that were read: they are for a message alone.
pub async fn read(
    client: &Client,
    of: Regarding,
    namespace: &str,
    (name, uid): (&str, &str),
) -> anyhow::Result<Answer> {
    if of == Regarding::PodsOfJob {
        return pods(client, namespace, (name, uid)).await;
    }
    let params = ListParams::default().fields(&format!("regarding.uid={uid}"));
    let (api, mut last) = (Api::<Event>::namespaced(client.clone(), namespace), None);
    let take = |event: Event| {
        if tells(of, &event) {
            last = newer(last.take(), event);
        }
    };
    let more = up_to(&api, &params, FEW, take).await.context("listing its Events")?;
    Ok(match (told(last), more) {
        (Answer::Said(message), Some(read)) => {
            Answer::Said(format!("{message}; there are more than {read} Events of it"))
        }
        (Answer::Found, Some(read)) => {
            Answer::Said(format!("there are more than {read} Events of it, and not all were read"))
        }
        (answer, _) => answer,
    })
}

/// What keeps the pods of a Job, as their status says. A label proves nothing: anybody may set one.
async fn pods(client: &Client, namespace: &str, (job, uid): (&str, &str)) -> anyhow::Result<Answer> {
    let params = ListParams::default().labels(&format!("{}={job}", names::JOB_NAME_LABEL));
    let mut obstacle = None;
    let take = |pod: Pod| {
        let is_its = Owner::of(&pod.metadata).is_some_and(|owner| owner.is_job() && owner.uid == uid);
        let view = view::pod(&pod, "");
        if is_its && !view.phase.is_final() {
            obstacle = view.obstacle().or_else(|| obstacle.take());
        }
    };
    up_to(&Api::<Pod>::namespaced(client.clone(), namespace), &params, FEW, take)
        .await
        .context("listing the Job's pods")?;
    Ok(obstacle.map_or(Answer::Found, |obstacle| Answer::Said(obstacle.text)))
}

/// The server's version of an Event says which is the newer one: who reports it has a clock of its own.
fn newer(known: Option<Event>, event: Event) -> Option<Event> {
    let version = |event: &Event| event.resource_version().and_then(|version| version.parse::<u64>().ok());
    let known = known.filter(|known| version(known) > version(&event));
    Some(known.unwrap_or(event))
}

/// What a kubelet, or a controller, says of something that is wrong.
const WARNING: &str = "Warning";
/// The reason of the Event by which a kubelet says that it has a runtime pull an image.
const PULLING: &str = "Pulling";
/// Those by which it says that it has gone further. `SandboxChanged` is not one of them: it comes before each
/// try for a network that is not there, and the warning only when the try has failed.
const PROGRESS: [&str; 4] = [PULLING, "Pulled", "Created", "Started"];

/// The reasons of the Events by which a Job's controller says that it could make no pod, and that it has made
/// one. Whatever else is said of a Job keeps no pod from it.
const OF_JOBS: [&str; 2] = ["FailedCreate", "SuccessfulCreate"];

/// Whether it tells how the pod stands now, or whether the Job gets one.
fn tells(of: Regarding, event: &Event) -> bool {
    let is_one_of =
        |reasons: &[&str]| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
    match of {
        Regarding::Pod => is_one_of(&PROGRESS) || event.type_.as_deref() == Some(WARNING),
        Regarding::Job | Regarding::PodsOfJob => is_one_of(&OF_JOBS),
    }
}

fn told(last: Option<Event>) -> Answer {
    let Some(Event { metadata, type_, reason, note }) = last else { return Answer::Found };
    if type_.as_deref() == Some(WARNING) {
        let said: Vec<String> = [reason, note].into_iter().flatten().collect();
        return Answer::Said(brief(&said.join(": ")));
    }
    if reason.as_deref() == Some(PULLING) {
        return Answer::Pulls { since: metadata.creation_timestamp.map(|time| time.0) };
    }
    Answer::Found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::act::tests::Server;

    /// Every kubelet may make Events in every namespace.
    #[tokio::test(start_paused = true)]
    async fn events_without_end_keep_nobody_waiting_and_what_was_read_is_told() {
        for (takes, type_, told) in [
            (10, "Warning", "FailedMount: no such device; there are more than 1000 Events of it"),
            (1000, "Warning", "FailedMount: no such device; there are more than 250 Events of it"),
            (10, "Normal", "there are more than 1000 Events of it, and not all were read"),
        ] {
            let event = json!({"metadata": {"resourceVersion": "1"}, "type": type_, "reason": "FailedMount", "note": "no such device"});
            let events = vec![event; 50];
            let client = Server::slowly(move |_| {
                let page = json!({"metadata": {"continue": "more"}, "items": events});
                (Duration::from_millis(takes), 200, page)
            });
            let began = Instant::now();
            let read = read(&client, Regarding::Pod, "ns", ("p", "u"));
            let answer = timeout(Duration::from_secs(30), read).await.expect("it has an end").unwrap();
            assert_eq!(answer, Answer::Said(told.into()));
            assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn what_the_server_saw_last_of_a_pod_is_told() {
        let made = "2026-01-01T00:00:00Z";
        let event = |version: &str, reason: &str, at: &str, note: &str| -> Event {
            let type_ = if reason.starts_with("Failed") { "Warning" } else { "Normal" };
            let meta = json!({"resourceVersion": version, "creationTimestamp": made});
            serde_json::from_value(
                json!({"metadata": meta, "eventTime": at, "type": type_, "reason": reason, "note": note}),
            )
            .unwrap()
        };
        let newest =
            |events: &[&Event]| told(events.iter().fold(None, |known, event| newer(known, (*event).clone())));
        let ahead = event("9", "FailedMount", "2035-01-01T00:00:00.000000Z", "no such device");
        let last = event(
            "10",
            "FailedCreatePodSandBox",
            "2020-01-01T00:00:00.000000Z",
            &format!("no address\n{} left", "x".repeat(1000)),
        );
        let Answer::Said(message) = newest(&[&last, &ahead]) else { panic!("nothing was said") };
        assert!(message.starts_with("FailedCreatePodSandBox: no address x"), "{message}");
        assert!(message.ends_with("x left") && message.chars().count() <= 300, "{message}");
        assert_eq!(newest(&[]), Answer::Found);
        let pulls = event("11", "Pulling", "2020-01-01T00:00:00.000000Z", "Pulling image \"os:v1\"");
        let since = Some(made.parse().unwrap());
        assert_eq!(newest(&[&pulls, &last, &ahead]), Answer::Pulls { since }, "the warning has passed");
        let begun = event("12", "Started", "2020-01-01T00:00:00.000000Z", "Started container install");
        assert_eq!(newest(&[&pulls, &begun]), Answer::Found);
        let gone = event("13", "FailedMount", "2020-01-01T00:00:00.000000Z", "no such device");
        assert_eq!(newest(&[&begun, &gone, &pulls]), Answer::Said("FailedMount: no such device".into()));
    }

    /// That its controller made a pod, and what anybody else warns of, is no reason for a Job to have none.
    #[test]
    fn of_a_job_it_is_told_whether_its_controller_could_make_a_pod() {
        let event = |type_: &str, reason: &str| -> Event {
            serde_json::from_value(json!({"type": type_, "reason": reason, "note": "why"})).unwrap()
        };
        let job = |event: Event| Some(event).filter(|event| tells(Regarding::Job, event));
        assert_eq!(told(job(event("Warning", "FailedCreate"))), Answer::Said("FailedCreate: why".into()));
        assert_eq!(job(event("Warning", "OverQuota")).map(|event| event.reason), None);
        assert_eq!(job(event("Normal", "Suspended")).map(|event| event.reason), None);
        let made = job(event("Normal", "SuccessfulCreate"));
        assert!(made.is_some() && told(made) == Answer::Found, "what it warned of has passed");
    }
}
