//! Every case that the fuzz targets kept, and what little else can be made of each: the same functions,
//! without a fuzzer.
//!
//! cargo-fuzz adds to `tests/fuzz/corpus/<target>`; see tests/README.md. A case that it found comes here as a
//! file, and fails until what it found is fixed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kairos_operator::api::names;

#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::TARGETS;

/// All corpora together; more than that is a download.
const MAX_BYTES: usize = 200_000;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn stems(directory: &Path) -> BTreeSet<String> {
    entries(directory).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_case_that_was_kept_holds_also_cut_and_doubled() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        for path in entries(&directory("corpus").join(name)) {
            let data = fs::read(&path).unwrap();
            let (head, tail) = data.split_at(data.len() / 2);
            for case in [
                data.clone(),
                head.to_vec(),
                tail.to_vec(),
                [tail, head].concat(),
                [data.as_slice(), &data].concat(),
            ] {
                if std::panic::catch_unwind(|| target(&case)).is_err() {
                    broken.push(format!(
                        "{name}, from {}: {:?}",
                        path.display(),
                        names::cut(&String::from_utf8_lossy(&case), 300)
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "the panics above came of {broken:#?}");
}

#[test]
fn each_target_has_a_program_and_a_small_corpus() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(stems(&directory("fuzz_targets")), known);
    assert_eq!(stems(&directory("corpus")), known);
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), known.len());
    let mut bytes = 0;
    for name in &known {
        let cases = entries(&directory("corpus").join(name));
        assert!(
            !cases.is_empty() && manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        bytes +=
            cases.iter().map(|path| usize::try_from(path.metadata().unwrap().len()).unwrap()).sum::<usize>();
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes: run cargo fuzz cmin");
}

/// Cases that the planner passes over would show nothing.
#[test]
fn the_planners_cases_have_it_do_things() {
    let mut done = BTreeSet::new();
    for path in entries(&directory("corpus/planner")) {
        let planned = targets::planner::planned(&fs::read(path).unwrap());
        let actions = planned.into_iter().flat_map(|(_, plan)| plan.actions);
        done.extend(actions.map(|action| format!("{action:?}").split([' ', '{']).next().unwrap().to_owned()));
    }
    let wanted = [
        "PatchStatus",
        "Finalize",
        "PatchNode",
        "PropagateSpec",
        "PatchUpgradeStatus",
        "CreateFactsPod",
        "CreatePreflightPod",
        "CreateWaiter",
        "DeleteJob",
        "DeletePod",
        "Evict",
    ];
    for action in wanted {
        assert!(done.contains(action), "{action} is not in {done:?}");
    }
}
