//! What nodes told of the content that an image's name stands for there, and what of it binds others.
//!
//! One node's report binds nobody: it may have an old image, or lie, and be only the fastest to speak. What
//! binds is the content of a node that was taken, or one that two nodes tell alike. Until then nodes that
//! tell different ones wait, see `rollout::admit`.

use super::{
    alike::{Kind, are_alike, are_same, binds, differ, kind},
    judged::{Judged, name, other_content},
    reference::with_digest,
    seen::Sighting,
};
use crate::api::{
    image_content::ImageContent,
    node_statuses::NodeStatuses,
    nodeop::{NodeStatus, Phase},
};

/// How many contents are recorded at most. There are two names in an operation at most, and a handful of
/// architectures.
pub const MAX_CONTENTS: usize = 16;

/// Whether a node was taken: the image has run on it, or is about to.
pub fn was_taken(entry: &NodeStatus) -> bool {
    // Of one of thousands the name of its Job is not kept.
    let has_run = || entry.job_name.is_some() || entry.last_updated.is_none() && !entry.is_skipped();
    entry.phase == Phase::Running || entry.phase.is_final() && has_run()
}

/// Contents as they were, and what nodes are seen to have.
pub fn noted(mut images: Vec<ImageContent>, seen: Vec<Sighting>) -> Vec<ImageContent> {
    seen.into_iter().for_each(|sighting| note(&mut images, sighting));
    images
}

fn note(images: &mut Vec<ImageContent>, Sighting { node, content: here, ran }: Sighting) {
    if images.iter().any(|known| binds(known) && are_alike(known, &here)) {
        return;
    }
    let of_another = |known: &&ImageContent| known.told_by.as_ref() != Some(&node);
    let same = |known: &&ImageContent| are_alike(known, &here) && are_same(known, &here);
    let told_before = images.iter().find(|known| same(known) && of_another(known)).cloned();
    if let Some(content) = told_before.or_else(|| ran.then(|| here.clone())) {
        return bind(images, content);
    }
    images.retain(|known| !are_alike(known, &here) || of_another(&known));
    if images.len() < MAX_CONTENTS {
        images.push(ImageContent { told_by: Some(node), ..here });
    }
}

/// From now on all are held to it. What binds stands first, in the order in which it came to.
fn bind(images: &mut Vec<ImageContent>, content: ImageContent) {
    images.retain(|known| !(are_alike(known, &content) && are_same(known, &content)));
    let place = images.iter().filter(|known| binds(known)).count();
    images.insert(place, ImageContent { told_by: None, ..content });
    images.truncate(MAX_CONTENTS);
}

/// Goes through the reports that bind nobody yet: that of a node that was taken does from now on; that of a
/// node which is not there, or has nothing to do with it any more, is forgotten.
pub fn resolved(
    mut images: Vec<ImageContent>,
    nodes: &NodeStatuses,
    is_there: impl Fn(&str) -> bool,
) -> Vec<ImageContent> {
    let reports: Vec<ImageContent> = images.iter().filter(|content| !binds(content)).cloned().collect();
    for report in reports {
        let node = report.told_by.as_deref().unwrap_or_default();
        let bound = images.iter().any(|known| binds(known) && are_alike(known, &report));
        let counts = nodes.get(node).is_some_and(|entry| match entry.phase {
            Phase::Pending => entry.boot.is_some() && is_there(node),
            Phase::Preflight => is_there(node),
            Phase::Completed => !bound,
            Phase::Running | Phase::Failed => false,
        });
        // One that was taken is in progress at least once, and its report binds then: of what is left of
        // thousands nothing has to be guessed.
        let is_taken = |entry: &NodeStatus| entry.phase == Phase::Running || entry.job_name.is_some();
        let taken = nodes.get(node).is_some_and(is_taken);
        if taken && !bound {
            bind(&mut images, report);
        } else if taken || !counts {
            images.retain(|known| *known != report);
        }
    }
    images
}

/// What the image of this name is shown as: with the digest of what the registry has by that name, as far as
/// nodes agree.
pub fn shown(images: &[ImageContent], name: &str) -> Option<String> {
    let is_shown = |content: &&ImageContent| {
        let agreed = binds(content) || !images.iter().any(|other| differ(other, content));
        content.image == name && kind(content) != Kind::Elsewhere && agreed
    };
    let mut shown: Vec<String> = images.iter().filter(is_shown).map(with_digest).collect();
    shown.sort();
    shown.dedup();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// What follows for a node that is not taken from what it told itself.
pub fn judge(images: &[ImageContent], node: &str) -> Judged {
    let mut disputed = Judged::Fits;
    for own in images.iter().filter(|content| content.told_by.as_deref() == Some(node)) {
        let mut others = images.iter().filter(|known| differ(known, own));
        if let Some(first) = others.clone().find(|known| binds(known)) {
            return Judged::Differs(other_content(own, first));
        }
        if let Some((other, teller)) = others.find_map(|other| Some((other, other.told_by.as_deref()?))) {
            let name = name(own);
            let why = format!("{name} is {} on this node, and {} on {teller}", own.digest, other.digest);
            disputed = Judged::Disputed(why);
        }
    }
    disputed
}

/// Architectures on which nodes tell different contents, none of which binds.
pub fn disputed(images: &[ImageContent]) -> impl Iterator<Item = &str> {
    let is_disputed = |one: &&ImageContent| {
        !binds(one)
            && images.iter().any(|other| differ(one, other))
            && !images.iter().any(|other| binds(other) && are_alike(one, other))
    };
    images.iter().filter(is_disputed).map(|content| content.architecture.as_str())
}
