//! What nodes are seen to run of an operation's images, and that is not recorded yet.

use super::{
    alike::binds,
    reference::{MAX_REFERENCE_BYTES, named, sha256, without_scheme},
};
use crate::{
    api::{image_content::ImageContent, nodeop::NodeOp},
    plan::model::{
        id::OpRef,
        snapshot::{Content, PodView, Role, Snapshot},
    },
};

/// A node's content of an image.
#[derive(Debug)]
pub struct Sighting {
    pub node: String,
    pub content: ImageContent,
    /// The operation itself has run it there, and not only a preflight.
    pub ran: bool,
}

/// What nodes run that is not in `images`, in the order in which the pods were made.
pub fn sightings(snapshot: &Snapshot, op: &NodeOp, images: &[ImageContent]) -> Vec<Sighting> {
    let me = OpRef::of(op);
    let of_job =
        |pod: &PodView| pod.role == Role::Job && snapshot.job_of(pod).is_some_and(|job| job.is_of(&me));
    // One that is on its way out may be of an earlier try, which found another content.
    let of_preflight = |pod: &PodView| pod.role == Role::Preflight && pod.is_of(&me) && !pod.deleting;
    let bound_everywhere = bound_everywhere(snapshot, images);
    let pods = snapshot.pods.running().filter(|(content, _)| !is_bound(&bound_everywhere, op, content));
    let pods = pods.flat_map(|(_, pods)| pods).map(AsRef::as_ref);
    let news = |pod: &&PodView| !is_recorded(snapshot, op, images, pod);
    let mut pods: Vec<&PodView> = pods.filter(news).filter(|pod| of_preflight(pod) || of_job(pod)).collect();
    pods.sort_by_key(|pod| (pod.created, &pod.name));
    let sighting = |pod: &PodView| {
        let (content, node) = (content(snapshot, op, pod)?, pod.node.clone());
        Some(Sighting { node, content, ran: pod.role == Role::Job })
    };
    pods.into_iter().filter_map(sighting).collect()
}

/// What that container runs.
pub(super) fn content(snapshot: &Snapshot, op: &NodeOp, pod: &PodView) -> Option<ImageContent> {
    let container = pod.operates()?;
    let architecture =
        snapshot.nodes.get(&pod.node).map(|node| node.arch.clone()).filter(|arch| !arch.is_empty())?;
    let digest = without_scheme(&container.image_id).to_owned();
    let image = named(op, &container.name).to_owned();
    (sha256(&digest).is_some() && digest.len().max(image.len()) <= MAX_REFERENCE_BYTES)
        .then_some(ImageContent { architecture, image, digest, told_by: None })
}

/// Contents that bind on each architecture that there is. Most pods run one of them, and need not be looked
/// at.
pub(super) fn bound_everywhere<'a>(snapshot: &Snapshot, images: &'a [ImageContent]) -> Vec<&'a ImageContent> {
    let same =
        |one: &ImageContent, other: &ImageContent| (&one.image, &one.digest) == (&other.image, &other.digest);
    let is_known = |content: &ImageContent, arch: &String| {
        images.iter().any(|known| binds(known) && same(known, content) && known.architecture == *arch)
    };
    let everywhere = |content: &&ImageContent| {
        snapshot.nodes.archs().filter(|arch| !arch.is_empty()).all(|arch| is_known(content, arch))
    };
    images.iter().filter(|content| binds(content)).filter(everywhere).collect()
}

pub(super) fn is_bound(bound_everywhere: &[&ImageContent], op: &NodeOp, (container, runs): &Content) -> bool {
    let (digest, image) = (without_scheme(runs), named(op, container));
    bound_everywhere.iter().any(|known| known.digest == digest && known.image == image)
}

/// Whether the status names what the pod's container runs, or the pod has none that counts: as a rule, and so
/// it is found out before anything else is.
pub(super) fn is_recorded(snapshot: &Snapshot, op: &NodeOp, images: &[ImageContent], pod: &PodView) -> bool {
    let (Some(container), Some(node)) = (pod.operates(), snapshot.nodes.get(&pod.node)) else { return true };
    let (digest, image) = (without_scheme(&container.image_id), named(op, &container.name));
    digest.is_empty()
        || images
            .iter()
            .filter(|known| {
                binds(known) || known.told_by.as_ref() == Some(&pod.node) && pod.role != Role::Job
            })
            .any(|known| known.digest == digest && known.architecture == node.arch && known.image == image)
}
