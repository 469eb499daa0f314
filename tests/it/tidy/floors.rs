//! The inner walls of `plan`: in which order its rooms stand on one another.

use std::collections::BTreeSet;

use super::scan::{below, code, files, paths, read, root};

/// The rooms of a house inside `plan`, from the ground floor up: a room uses those below it and none above,
/// so each can be read without the ones that come later, and no circle can grow. What stands in the house's
/// own `mod.rs` is its roof.
const FLOORS: &[(&str, &[&str])] = &[
    (
        "plan",
        &[
            "model",
            "fixtures",
            "conditions",
            "attempts",
            "image",
            "quorum",
            "pod_news",
            "facts",
            "node",
            "node_conditions",
            "release",
            "upgrades",
            "rollout",
            "check",
        ],
    ),
    (
        "plan::model",
        &[
            "id",
            "age",
            "manual",
            "question",
            "identity",
            "lifecycle",
            "why",
            "stamp",
            "time",
            "hints",
            "kept_cordon",
            "selector",
            "intent",
            "object_name",
            "snapshot",
            "notice",
            "node_change",
            "action",
            "effects",
            "failing",
        ],
    ),
    ("plan::image", &["reference", "alike", "judged", "seen", "reports", "first"]),
    (
        "plan::upgrades",
        &[
            "maker",
            "content",
            "newest",
            "copy",
            "history",
            "status",
            "continuous",
            "follow",
            "older",
            "run",
            "superseded",
        ],
    ),
    (
        "plan::node",
        &[
            "stage",
            "state",
            "waiting",
            "failure",
            "end",
            "fixtures",
            "context",
            "cordon",
            "hint_patch",
            "cancel",
            "legacy",
            "traffic",
            "enforce",
            "waiter",
            "drain",
            "verify",
            "job",
            "claim",
            "prepare",
            "reboot",
            "give_up",
            "machine",
            "lost",
            "stamps",
        ],
    ),
    (
        "plan::node::job",
        &["pods", "remake", "unrecorded", "start", "halted", "make", "outcome", "failed", "run", "adopted"],
    ),
    (
        "plan::rollout",
        &[
            "compact",
            "finalizer",
            "expiry",
            "observe_generation",
            "out_of_service",
            "left_over",
            "starved",
            "not_taken",
            "targets",
            "status",
            "others",
            "context",
            "slots",
            "preflight",
            "mark_tried",
            "prestart",
            "stops",
            "recall",
            "conclude",
            "admit",
            "adopt",
            "start",
            "roll",
        ],
    ),
];

/// The room of `house` that a path of this crate leads to; `None` if it ends in the house itself.
fn room<'a>(house: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(house)?.strip_prefix("::")?.split("::").next()
}

/// What stands after `super::` in a module, as a path of this crate.
fn resolved(module: &str, path: &str) -> String {
    let mut parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut rest = path;
    while let Some(further) = rest.strip_prefix("super::") {
        parent = parent.rsplit_once("::").map_or("", |(parent, _)| parent);
        rest = further;
    }
    format!("{parent}::{rest}").trim_start_matches("::").to_owned()
}

#[test]
fn what_is_imported_from_above_is_seen() {
    assert_eq!(resolved("plan::rollout::slots", "left_over"), "plan::rollout::left_over");
    assert_eq!(
        resolved("plan::node::job::run", "super::enforce::claim_and_cordon"),
        "plan::node::enforce::claim_and_cordon"
    );
    assert_eq!(resolved("plan", "api::names"), "api::names");
}

#[test]
fn inside_plan_every_room_uses_only_those_below_it() {
    let mut broken = Vec::new();
    for path in files(&root().join("src/plan"), ".rs") {
        let file = below(&path, "src");
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        let text = code(&path);
        let mut used = paths(&text, "crate");
        used.extend(paths(&text, "super").iter().map(|path| resolved(&module, path)));
        for (house, rooms) in FLOORS {
            let Some(here) = room(house, &module) else { continue };
            let floor = |name: &str| rooms.iter().position(|room| *room == name);
            let above = |there: &str| {
                there != here && floor(there).is_none_or(|there| floor(here).is_some_and(|here| there > here))
            };
            broken.extend(
                used.iter()
                    .filter(|used| room(house, used).is_some_and(above))
                    .map(|used| format!("{file}: crate::{used}")),
            );
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A room that stands on no floor could be used by all, and one that is gone would say that the list is read
/// by nobody.
#[test]
fn every_room_inside_plan_stands_on_one_floor() {
    for (house, rooms) in FLOORS {
        let roof = read(&root().join("src").join(house.replace("::", "/")).join("mod.rs"));
        let declared = roof.lines().filter_map(|line| {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        let declared: BTreeSet<&str> = declared.filter(|name| *name != "tests").collect();
        assert_eq!(declared, rooms.iter().copied().collect(), "{house}");
        assert_eq!(declared.len(), rooms.len(), "{house}: a room is listed twice");
    }
}
