//! The image of the helper pods where nobody has said one: that of our own pod. Arguments and contracts are
//! ours, and a helper of another version would not know them; so whoever changes the Deployment's image, and
//! nothing else, has changed that of the helpers.
//!
//! It is the image as the pod's spec names it. What the kubelet found under that name (`imageID`) may be
//! nothing that another node could pull: the content's own digest, of an image that was loaded by hand.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1 as core;
use kube::{Client, Resource, api::GetParams, core::Request};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::act::error_message;

/// The Deployment's container that runs this process.
const CONTAINER: &str = "manager";
/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(2);
/// How long we ask at all. Then we end with a sentence, sooner than the liveness probe of the manifests,
/// which nobody answers yet, ends us without one.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is read of our own pod: no time that its node wrote into it keeps us from the image.
#[derive(Deserialize)]
struct Own {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    image: Option<String>,
    #[serde(rename = "imagePullPolicy")]
    pull_policy: Option<String>,
}

/// The image of our own pod, and when a node pulls it: of a tag that moves (`Always`) a node that kept what
/// it had would run another version.
///
/// # Errors
///
/// The pod cannot be read, or does not tell: pods of any other image could be of another version.
pub async fn of_pod(client: &Client, namespace: &str, pod: &str) -> anyhow::Result<(String, Option<String>)> {
    let what = || {
        format!(
            "reading our own pod {namespace}/{pod}, whose image helper pods run (where there is none, say \
             --operator-image)"
        )
    };
    let end = Instant::now() + PATIENCE;
    let found = loop {
        let answer = timeout(ANSWER, read(client, namespace, pod)).await;
        match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {} s", ANSWER.as_secs()))) {
            Ok(found) => break found,
            Err(error) if Instant::now() >= end => return Err(error).with_context(what),
            Err(error) => warn!("{}: {}; it is read again", what(), error_message(&error)),
        }
        sleep(PAUSE).await;
    };
    let (image, policy) =
        of_manager(&found).with_context(|| format!("no container {CONTAINER}")).with_context(what)?;
    info!("helper pods run {image}, as this pod does");
    Ok((image.to_owned(), policy.map(str::to_owned)))
}

async fn read(client: &Client, namespace: &str, pod: &str) -> anyhow::Result<Own> {
    let pods = Request::new(core::Pod::url_path(&(), Some(namespace)));
    Ok(client.request(pods.get(pod, &GetParams::default())?).await?)
}

/// The image of our container. What others put into the pod, as a mesh does, has other names; a Deployment of
/// somebody's own may have another name for the only one.
fn of_manager(pod: &Own) -> Option<(&str, Option<&str>)> {
    let containers = &pod.spec.containers;
    let ours = containers.iter().find(|container| container.name == CONTAINER);
    let only = || containers.first().filter(|_| containers.len() == 1);
    let found = ours.or_else(only)?;
    let image = found.image.as_deref().filter(|image| !image.is_empty())?;
    Some((image, found.pull_policy.as_deref()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::act::tests::unavailable;

    #[test]
    fn our_container_is_the_one_of_its_name_or_the_only_one() {
        let of = |containers: &[(&str, &str)]| {
            let containers: Vec<_> =
                containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
            let own: Own = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            of_manager(&own).map(|(image, _)| image.to_owned())
        };
        assert_eq!(
            of(&[("proxy", "mesh:1"), ("manager", "r:5000/a@sha256:0")]).as_deref(),
            Some("r:5000/a@sha256:0")
        );
        assert_eq!(of(&[("operator", "r/a:v1")]).as_deref(), Some("r/a:v1"));
        assert_eq!(of(&[("proxy", "mesh:1"), ("operator", "r/a:v1")]), None);
        assert_eq!(of(&[("manager", "")]), None);
    }

    /// The kubelet starts us again, and the log says why.
    #[tokio::test(start_paused = true)]
    async fn without_an_answer_it_ends_with_a_sentence_before_the_liveness_probe_would_end_it() {
        let (client, _) = unavailable();
        let before = Instant::now();
        let error = format!("{:#}", of_pod(&client, "ns", "me").await.unwrap_err());
        assert!(error.contains("our own pod ns/me") && error.contains("--operator-image"), "{error}");
        // initialDelaySeconds 15, and the third failure 40 s later.
        assert!((PATIENCE..Duration::from_secs(55)).contains(&before.elapsed()), "{:?}", before.elapsed());
    }
}
