//! The proof of an upgrade: what the node says of itself in the boot that followed.
//!
//! A wrong release, both being known, or a boot from another image than the active one is a failure. What is
//! not known is no failure and no proof, and is said to be neither. But a node on which the new image does
//! not stay Ready has not succeeded, whatever it said of itself: it would be given back and its slot with it,
//! and the next node would follow it down.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{names, nodeop::RebootStatus},
    contract::boot_state,
    plan::{
        facts,
        model::{
            effects::{Effects, Planned},
            manual::Section,
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            cordon,
            state::{At, Found, Verify},
            waiting::Waiting,
        },
    },
};

/// What the facts prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Proved(String),
    Refuted(Section, String),
    Unknown(String),
}

/// Compares the release and the boot state of a node with what its upgrade brought.
pub fn judge(upgrade: &Found, release: Option<&str>, state: &str) -> Proof {
    let target = upgrade.target.as_deref();
    let runs = release.unwrap_or("an unknown release");
    let wanted = target.unwrap_or("the image's release");
    if let Some(message) = elsewhere(state, runs, wanted, upgrade.not_tried.as_deref()) {
        return Proof::Refuted(Section::FellBack, message);
    }
    match (target, release) {
        (Some(target), Some(release)) if target != release => {
            let message = format!("the node runs {release} after the upgrade to {target}");
            Proof::Refuted(Section::OtherRelease, message)
        }
        (Some(_), Some(release))
            if state == boot_state::ACTIVE
                || upgrade.before.as_deref().is_some_and(|before| before != release) =>
        {
            Proof::Proved(format!("upgraded to {release}"))
        }
        (Some(_), Some(release)) => Proof::Unknown(format!(
            "the node runs {release}, as before; from which image it booted is not known"
        )),
        (_, release) => {
            let release = release.unwrap_or("a release that it does not say");
            Proof::Unknown(format!("the node runs {release}; what the image brought is not known"))
        }
    }
}

/// What is said of a node that has booted something else than its active image. `not_tried`: why GRUB may not
/// have tried that one. A release that was installed once more is not named twice.
fn elsewhere(state: &str, runs: &str, wanted: &str, not_tried: Option<&str>) -> Option<String> {
    let runs = if runs == wanted { runs.to_owned() } else { format!("{runs}, not {wanted}") };
    let untried = not_tried.filter(|_| [boot_state::PASSIVE, boot_state::RECOVERY].contains(&state));
    match state {
        boot_state::PASSIVE | boot_state::RECOVERY | boot_state::LIVECD => Some(match untried {
            None => {
                format!("the node booted its {state} image and runs {runs}: the upgraded image did not boot")
            }
            Some(why) => format!(
                "the node booted its {state} image and runs {runs}: the upgraded image did not boot, or GRUB has not tried it ({why}). \
                 To have it tried, run kairos-agent bootentry --select cos on the node, and reboot it"
            ),
        }),
        boot_state::AUTORESET => Some(format!(
            "the node booted to reset itself and runs {runs}: the reset decides what it will run"
        )),
        boot_state::IN_RAM => Some(format!(
            "the node booted into memory and runs {runs}: the upgraded image is on its disk, and did not boot"
        )),
        _ => None,
    }
}

/// Advances a node in step `Verify`.
pub fn advance(ctx: &NodeContext<'_>, verify: &Verify) -> Planned<Decision> {
    let released = cordon::was_lifted(ctx.node, &ctx.op.id);
    verify_boot(ctx, verify).with(Effects::act(released))
}

fn verify_boot(ctx: &NodeContext<'_>, verify: &Verify) -> Planned<Decision> {
    let node = ctx.node;
    let proof = (verify.boot == node.boot_id && node.says_its_facts()).then(|| {
        let release = node.annotations.get(names::RELEASE).map(String::as_str);
        let state = node.annotations.get(names::BOOT_STATE_OF).map_or(boot_state::UNKNOWN, String::as_str);
        judge(&ctx.work.found, release, state)
    });
    if let Some(proof) = proof.clone().filter(|proof| node.ready || matches!(proof, Proof::Refuted(..))) {
        return conclude(ctx, proof).into();
    }
    let deadline = ctx.deadline(ctx.op.intent.verify_timeout).unwrap_or(ctx.snapshot.now);
    let deadline = later(deadline, may_be_away(ctx));
    let Planned { value: obstacle, effects } = facts::obstacle(ctx.snapshot, node);
    if ctx.snapshot.now >= deadline {
        return timed_out(ctx, obstacle).with(effects);
    }
    let again = Effects::wake_at(deadline);
    if proof.is_some() {
        return Waiting::RebootedNotReady.with(again);
    }
    if verify.boot != node.boot_id && !node.boot_id.is_empty() {
        let next = Verify { boot: node.boot_id.clone(), ..verify.clone() };
        return ctx.record(|work| work.at = At::Verify(next)).with(again);
    }
    Waiting::Facts { obstacle }.with(effects).with(again)
}

/// How much longer a node that is not Ready may take: it may have rebooted once more, and has the time that a
/// reboot has.
fn may_be_away(ctx: &NodeContext<'_>) -> SignedDuration {
    let intent = &ctx.op.intent;
    if ctx.node.ready {
        return SignedDuration::ZERO;
    }
    (intent.reboot_timeout - intent.verify_timeout).max(SignedDuration::ZERO)
}

/// Nothing was proved in time.
fn timed_out(ctx: &NodeContext<'_>, obstacle: Option<String>) -> Decision {
    let seconds = (ctx.op.intent.verify_timeout + may_be_away(ctx)).as_secs();
    if !ctx.node.ready {
        let message = format!(
            "RebootTimeout: the node rebooted, and is not Ready {seconds} s after it was seen to be{}",
            Section::RebootTimeout
        );
        return ctx.end(false, RebootStatus::Completed, None, message);
    }
    let told = obstacle.map(|obstacle| format!(": {obstacle}")).unwrap_or_default();
    let unread = format!("what the node runs could not be read in {seconds} s{told}");
    conclude(ctx, Proof::Unknown(unread))
}

fn conclude(ctx: &NodeContext<'_>, proof: Proof) -> Decision {
    let (succeeded, verified, message) = match proof {
        Proof::Proved(message) => {
            (true, Some(true), format!("Job and reboot completed successfully: {message}"))
        }
        Proof::Unknown(message) => (
            true,
            Some(false),
            format!("Job and reboot completed successfully; not verified: {message}{}", Section::NotVerified),
        ),
        Proof::Refuted(section, message) => (
            false,
            None,
            format!("{message}. Look at the node's console and logs, then create the upgrade again{section}"),
        ),
    };
    ctx.end(succeeded, RebootStatus::Completed, verified, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_proves_and_refutes_and_what_is_unknown_does_neither() {
        let upgrade = |before: Option<&str>, target: Option<&str>| Found {
            before: before.map(Into::into),
            target: target.map(Into::into),
            ..Found::default()
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
        let upgrade = Found { target: Some("v3".into()), not_tried: Some(why.into()), ..Found::default() };
        let Proof::Refuted(Section::FellBack, said) = judge(&upgrade, Some("v1"), "passive") else {
            panic!()
        };
        assert!(said.contains(&format!("or GRUB has not tried it ({why})")), "{said}");
        assert!(
            said.ends_with("run kairos-agent bootentry --select cos on the node, and reboot it"),
            "{said}"
        );
        assert!(matches!(judge(&upgrade, Some("v3"), "active"), Proof::Proved(_)), "it was tried, and boots");
    }

    #[test]
    fn a_failure_names_both_releases() {
        let upgrade = Found { target: Some("v2".into()), ..Found::default() };
        let Proof::Refuted(_, message) = judge(&upgrade, Some("v1"), "passive") else { panic!() };
        assert!(message.contains("v1") && message.contains("v2") && message.contains("passive"), "{message}");
        // The release that it ran, written again by force.
        let forced = Found { target: Some("v2".into()), ..Found::default() };
        let Proof::Refuted(_, message) = judge(&forced, Some("v2"), "passive") else { panic!() };
        assert_eq!(message, "the node booted its passive image and runs v2: the upgraded image did not boot");
        for (state, said) in [("autoreset", "booted to reset itself"), ("in-ram", "booted into memory")] {
            let Proof::Refuted(Section::FellBack, message) = judge(&upgrade, Some("v1"), state) else {
                panic!()
            };
            assert!(message.contains(said), "{message}");
        }
    }
}
