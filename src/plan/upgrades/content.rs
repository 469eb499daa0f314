//! What a run has run under its image's name, for the rounds that follow it: a tag that moved meanwhile must
//! not bring them anything else.
//!
//! The contents that nodes of the run reported stand in the upgrade's status, by architecture. A round names
//! its image by that digest where it can: then a registry, or a node's cache, that knows another content by
//! the tag is not asked about the tag. Where it cannot, because no digest is known that can be pulled, its
//! NodeOp begins with those contents in its own status, as if its first node had run them, and a node that
//! runs another one fails untouched.

use crate::{
    api::{
        image_content::ImageContent,
        nodeop::NodeOp,
        pull_policy::PullPolicy,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec, NodeOpUpgradeStatus},
    },
    plan::{attempts, image},
};

/// No name of an image is longer.
const MAX_NAME: usize = 512;

/// The upgrade's image by the digest that its run has run on an architecture, if a node can pull it by that.
/// One that may not pull has what it was given, and by the name that it was given.
pub fn pin(spec: &NodeOpUpgradeSpec, run: &[ImageContent], architecture: &str) -> Option<String> {
    let name = &spec.image;
    // An earlier round has named it by digest, if nothing but its NodeOp tells of the run any more.
    let is_it =
        |image: &str| image.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'));
    let of_arch = |content: &&ImageContent| content.architecture == architecture && is_it(&content.image);
    // A node may name it by another repository, which has it under another digest.
    let pulled = |content: &&ImageContent| image::is_of_repository(&content.digest, name);
    let known = run.iter().filter(of_arch).find(pulled)?;
    let (_, digest) = known.digest.split_once('@').filter(|(_, digest)| digest.starts_with("sha256:"))?;
    let pinned = format!("{name}@{digest}");
    let pulls = spec.image_pull_policy != Some(PullPolicy::Never);
    (pulls && !name.contains('@') && pinned.len() <= MAX_NAME).then_some(pinned)
}

/// The contents with which a NodeOp begins that is a later round: those that its run has run under the name
/// that it has.
pub fn of_run(upgrade: Option<&NodeOpUpgrade>, op: &NodeOp) -> Vec<ImageContent> {
    let upgrade = upgrade.filter(|_| attempts::is_later_round(op));
    let known = upgrade.and_then(|upgrade| upgrade.status.as_ref()).map(|status| status.images.as_slice());
    let name = op.spec.image.as_deref().unwrap_or_default();
    known.into_iter().flatten().filter(|content| content.image == name).cloned().collect()
}

/// Adds what the NodeOp of the present round has run, and not what a single node told of it. One that names
/// its image by digest has nothing to add.
pub fn copy(status: &mut NodeOpUpgradeStatus, shown: &[ImageContent]) {
    let ran: Vec<_> = shown.iter().filter(|content| content.told_by.is_none()).cloned().collect();
    if ran.starts_with(&status.images) {
        status.images = ran;
    }
}
