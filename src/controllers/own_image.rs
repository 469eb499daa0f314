//! The image of the helper pods, where the Deployment names its own by digest: nothing else may run in our
//! name then, whoever moves the tag that `OPERATOR_IMAGE` says.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use kube::{Client, Resource, api::GetParams, core::Request};
use serde::Deserialize;
use tracing::{info, warn};

use crate::{
    act::{error_message, is_gone},
    plan::image::split_tag,
};

/// The Deployment's container that runs this process.
const CONTAINER: &str = "manager";
/// How long the answer is waited for: who has no answer starts all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is read of our own pod: no time that its node wrote into it keeps us from the digest.
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
}

/// The image that helper pods run in the place of `configured`, if it is another one.
pub async fn by_digest(client: &Client, namespace: &str, pod: &str, configured: &str) -> Option<String> {
    if configured.contains('@') {
        return None;
    }
    let found = match tokio::time::timeout(PATIENCE, read(client, namespace, pod)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            if !is_gone(&error) {
                warn!("helper pods run {configured}: our own pod cannot be read: {}", error_message(&error));
            }
            return None;
        }
        Err(_) => {
            warn!("helper pods run {configured}: our own pod could not be read in {} s", PATIENCE.as_secs());
            return None;
        }
    };
    let own = of_manager(&found).filter(|own| is_digest_of(own, configured))?;
    info!("helper pods run {own}, as this pod does");
    Some(own.to_owned())
}

async fn read(client: &Client, namespace: &str, pod: &str) -> anyhow::Result<Own> {
    let pods = Request::new(core::Pod::url_path(&(), Some(namespace)));
    Ok(client.request(pods.get(pod, &GetParams::default())?).await?)
}

fn of_manager(pod: &Own) -> Option<&str> {
    pod.spec.containers.iter().find(|container| container.name == CONTAINER)?.image.as_deref()
}

/// Whether `own` names a digest in the repository of `configured`. Who has set an image of another repository
/// means that one.
fn is_digest_of(own: &str, configured: &str) -> bool {
    let Some((named, _)) = own.split_once('@') else { return false };
    split_tag(named).0 == split_tag(configured).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_the_same_repository_is_taken_and_nothing_else() {
        let digest = "sha256:0123";
        for own in [format!("r:5000/a/b@{digest}"), format!("r:5000/a/b:v2@{digest}")] {
            assert!(is_digest_of(&own, "r:5000/a/b:v1") && is_digest_of(&own, "r:5000/a/b"), "{own}");
            assert!(!is_digest_of(&own, "other/b:v1") && !is_digest_of(&own, "r:5000/a/c"), "{own}");
        }
        assert!(!is_digest_of("r:5000/a/b:v2", "r:5000/a/b:v1"), "it has none itself");
    }
}
