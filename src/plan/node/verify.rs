//! The proof of an upgrade: what the node says of itself in the boot that followed.
//!
//! A wrong release, both being known, or a boot from another image than the active one is a failure. What is
//! not known is no failure and no proof, and is said to be neither. But a node on which the new image does
//! not stay Ready has not succeeded, whatever it said of itself: it would be given back and its slot with it,
//! and the next node would follow it down.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    contract::boot_state,
    plan::{
        facts,
        model::{
            effects::{Effects, Planned},
            intent::Intent,
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            cordon,
            end::{Booted, End, Proof, Refuted, Unknown},
            state::{At, ImageRecord, Verify},
            waiting::Waiting,
        },
    },
};

/// Compares the release and the boot state of a node with what its upgrade brought.
pub fn judge(upgrade: &ImageRecord, release: Option<&str>, state: &str) -> Proof {
    let target = upgrade.target.as_deref();
    if let Some(booted) = elsewhere(state, upgrade.not_tried.as_deref()) {
        let runs = release.unwrap_or("an unknown release").to_owned();
        let wanted = target.unwrap_or("the image's release").to_owned();
        return Proof::Refuted(Refuted::Elsewhere { booted, runs, wanted });
    }
    match (target, release) {
        (Some(target), Some(release)) if target != release => {
            let (runs, target) = (release.to_owned(), target.to_owned());
            Proof::Refuted(Refuted::OtherRelease { runs, target })
        }
        (Some(_), Some(release))
            if state == boot_state::ACTIVE
                || upgrade.before.as_deref().is_some_and(|before| before != release) =>
        {
            Proof::Proved(release.to_owned())
        }
        (Some(_), Some(release)) => Proof::Unknown(Unknown::SameRelease(release.to_owned())),
        (_, release) => Proof::Unknown(Unknown::NoRelease { runs: release.map(str::to_owned) }),
    }
}

/// What a node has booted, if it is something else than its active image. `not_tried`: why GRUB may not have
/// tried that one.
fn elsewhere(state: &str, not_tried: Option<&str>) -> Option<Booted> {
    let untried = not_tried.filter(|_| [boot_state::PASSIVE, boot_state::RECOVERY].contains(&state));
    match state {
        boot_state::PASSIVE | boot_state::RECOVERY | boot_state::LIVECD => {
            Some(Booted::Image { state: state.to_owned(), not_tried: untried.map(str::to_owned) })
        }
        boot_state::AUTORESET => Some(Booted::Reset),
        boot_state::IN_RAM => Some(Booted::Memory),
        _ => None,
    }
}

/// Advances a node in step `Verify`.
pub fn advance(ctx: &NodeContext<'_>, verify: &Verify) -> Planned<Decision> {
    let released = cordon::was_lifted(ctx.node, &ctx.op.id);
    verify_boot(ctx, verify).with(Effects::act(released))
}

/// What the node proves by what it says of itself in its present boot, if it has said that.
pub fn proof(ctx: &NodeContext<'_>) -> Option<Proof> {
    let said = facts::said(ctx.snapshot, ctx.node)?;
    Some(judge(&ctx.work.found, said.release.as_deref(), &said.boot_state))
}

fn verify_boot(ctx: &NodeContext<'_>, verify: &Verify) -> Planned<Decision> {
    let node = ctx.node;
    let proof = proof(ctx).filter(|_| verify.boot == node.boot_id);
    if let Some(proof) = proof.clone().filter(|proof| node.ready || matches!(proof, Proof::Refuted(..))) {
        return ctx.end(&End::Verified(proof)).into();
    }
    let (now, must_stay_ready_by) = (ctx.snapshot.now, must_stay_ready_by(ctx));
    let seen = seen(ctx, verify);
    if (!node.ready || seen.is_some()) && now >= must_stay_ready_by {
        return did_not_stay(ctx).into();
    }
    if let Some(seen) = seen {
        return ctx.record(|work| work.at = At::Verify(seen)).with(Effects::wake_at(must_stay_ready_by));
    }
    let Planned { value: obstacle, effects } = facts::obstacle(ctx.snapshot, node);
    let deadline = if node.ready { said_by(ctx, verify) } else { must_stay_ready_by };
    if now >= deadline {
        return unread(ctx, obstacle).with(effects);
    }
    let again = Effects::wake_at(deadline);
    if proof.is_some() {
        return Waiting::RebootedNotReady.with(again);
    }
    Waiting::Facts { obstacle }.with(effects).with(again)
}

/// What is to be recorded of a node that has booted once more, has gone away or is Ready again. The time in
/// which it has to say what it runs belongs to the boot, and to its being Ready there: one that was away for
/// longer, and may have fallen back to another image meanwhile, has the whole of it.
fn seen(ctx: &NodeContext<'_>, verify: &Verify) -> Option<Verify> {
    let (node, now) = (ctx.node, ctx.snapshot.now);
    let another = verify.boot != node.boot_id && !node.boot_id.is_empty();
    if !another && verify.ready_since.is_some() == node.ready {
        return None;
    }
    let boot = if another { node.boot_id.clone() } else { verify.boot.clone() };
    let ready_since = node.ready.then(|| now.into());
    let deadline = later(now, ctx.op.intent.verify_timeout).into();
    Some(Verify { boot, ready_since, deadline })
}

/// Until when the node has to be Ready to stay: it may reboot once more by itself, and has the time that a
/// reboot has, once.
fn must_stay_ready_by(ctx: &NodeContext<'_>) -> Timestamp {
    later(ctx.begun_at(ctx.entry.since), stays_ready_within(&ctx.op.intent))
}

/// How long a node may take to stay Ready, from when it was first seen to be.
pub fn stays_ready_within(intent: &Intent) -> SignedDuration {
    intent.reboot_timeout.max(intent.verify_timeout)
}

/// Until when a node that is Ready has to say what it runs.
fn said_by(ctx: &NodeContext<'_>, verify: &Verify) -> Timestamp {
    later(ctx.begun_at(verify.ready_since.or(ctx.entry.since)), ctx.op.intent.verify_timeout)
}

/// It is away, or has been again, when it should have stayed.
fn did_not_stay(ctx: &NodeContext<'_>) -> Decision {
    ctx.end(&End::NotReadyAnyMore { seconds: stays_ready_within(&ctx.op.intent).as_secs() })
}

/// It stays Ready, and nothing was proved in time.
fn unread(ctx: &NodeContext<'_>, obstacle: Option<String>) -> Decision {
    let seconds = ctx.op.intent.verify_timeout.as_secs();
    ctx.end(&End::Verified(Proof::Unknown(Unknown::Unread { seconds, obstacle })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_proves_and_refutes_and_what_is_unknown_does_neither() {
        let upgrade = |before: Option<&str>, target: Option<&str>| ImageRecord {
            before: before.map(Into::into),
            target: target.map(Into::into),
            ..ImageRecord::default()
        };
        let kind = |proof| match proof {
            Proof::Proved(_) => "proved",
            Proof::Refuted(..) => "refuted",
            Proof::Unknown(_) => "unknown",
        };
        for (before, target, runs, state, expected) in [
            (Some("v1"), Some("v2"), Some("v2"), "active", "proved"),
            (Some("v1"), Some("v2"), Some("v2"), "unknown", "proved"),
            (None, Some("v2"), Some("v2"), "active", "proved"),
            (Some("v1"), Some("v2"), Some("v1"), "active", "refuted"),
            (Some("v1"), Some("v2"), Some("v2"), "passive", "refuted"),
            (None, None, None, "passive", "refuted"),
            (Some("v1"), Some("v2"), Some("v1"), "recovery", "refuted"),
            // The recovery image runs the target, and an image in memory does: neither is the active one.
            (Some("v1"), Some("v2"), Some("v2"), "autoreset", "refuted"),
            (Some("v1"), Some("v2"), Some("v2"), "in-ram", "refuted"),
            // Forced, the same release again: only the boot state can tell, and it does not.
            (Some("v2"), Some("v2"), Some("v2"), "unknown", "unknown"),
            (Some("v2"), Some("v2"), Some("v2"), "active", "proved"),
            (Some("v1"), None, Some("v2"), "active", "unknown"),
            (Some("v1"), Some("v2"), None, "active", "unknown"),
            (None, None, None, "active", "unknown"),
        ] {
            let proof = judge(&upgrade(before, target), runs, state);
            assert_eq!(kind(proof.clone()), expected, "{before:?} {target:?} {runs:?} {state}: {proof:?}");
        }
    }

    #[test]
    fn an_image_that_grub_may_not_have_tried_is_not_said_to_have_failed() {
        let why = "GRUB cannot write to the disk of /oem, which is encrypted or of another kind";
        let upgrade =
            ImageRecord { target: Some("v3".into()), not_tried: Some(why.into()), ..ImageRecord::default() };
        let Proof::Refuted(refuted @ Refuted::Elsewhere { .. }) = judge(&upgrade, Some("v1"), "passive")
        else {
            panic!()
        };
        let said = refuted.to_string();
        assert!(said.contains(&format!("or GRUB has not tried it ({why})")), "{said}");
        assert!(
            said.ends_with("run kairos-agent bootentry --select cos on the node, and reboot it"),
            "{said}"
        );
        assert!(matches!(judge(&upgrade, Some("v3"), "active"), Proof::Proved(_)), "it was tried, and boots");
    }

    #[test]
    fn a_failure_names_both_releases() {
        let upgrade = ImageRecord { target: Some("v2".into()), ..ImageRecord::default() };
        let refuted = |upgrade: &ImageRecord, runs: &str, state: &str| match judge(upgrade, Some(runs), state)
        {
            Proof::Refuted(why) => why.to_string(),
            other => panic!("{other:?}"),
        };
        let message = refuted(&upgrade, "v1", "passive");
        assert!(message.contains("v1") && message.contains("v2") && message.contains("passive"), "{message}");
        // The release that it ran, written again by force.
        let forced = ImageRecord { target: Some("v2".into()), ..ImageRecord::default() };
        let message = refuted(&forced, "v2", "passive");
        assert_eq!(message, "the node booted its passive image and runs v2: the upgraded image did not boot");
        for (state, said) in [("autoreset", "booted to reset itself"), ("in-ram", "booted into memory")] {
            let message = refuted(&upgrade, "v1", state);
            assert!(message.contains(said), "{message}");
        }
    }
}
