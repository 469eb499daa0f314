//! The rules of the house, read from the text of the code: who may use whom, a first line in every file, and
//! sizes.
//!
//! Walls hold for what is built into the binary; the tests at the end of a file may use what they like.

mod floors;
pub mod scan;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use scan::{below, code, dependencies, files, paths, read, root, sources};

/// What a top-level module may use: paths of this crate (besides itself), and other crates (besides std).
struct Layer {
    name: &'static str,
    own: &'static [&'static str],
    crates: &'static [&'static str],
}

const fn layer(name: &'static str, own: &'static [&'static str], crates: &'static [&'static str]) -> Layer {
    Layer { name, own, crates }
}

/// From the bottom up. `cli`, `main` and `lib` see everything: they parse and dispatch.
const LAYERS: &[Layer] = &[
    // Records that are written on a node and read by the controller: serde, and nothing else.
    layer("contract", &[], &["serde"]),
    layer("telemetry", &["contract::applet"], &["anyhow", "clap", "nix", "tracing", "tracing_subscriber"]),
    layer("api", &[], &["kube", "k8s_openapi", "schemars", "serde", "serde_json"]),
    layer("plan", &["api", "contract"], &["k8s_openapi", "serde", "serde_json"]),
    layer(
        "observe",
        &["api", "plan::model"],
        &["anyhow", "futures", "k8s_openapi", "kube", "serde", "serde_json", "tokio", "tracing"],
    ),
    layer("render", &["api", "contract", "plan::model"], &["k8s_openapi", "kube", "serde", "serde_json"]),
    // `LiveObject` is what a live request returned, handed on to the next plan: data, no cache.
    layer(
        "act",
        &["api", "contract", "observe::LiveObject", "plan::model", "render"],
        &["anyhow", "futures", "k8s_openapi", "kube", "serde", "serde_json", "tokio", "tracing"],
    ),
    layer(
        "controllers",
        &["act", "api", "contract", "observe", "plan", "render", "telemetry"],
        &[
            "anyhow",
            "clap",
            "futures",
            "http_body_util",
            "hyper",
            "hyper_util",
            "k8s_openapi",
            "kube",
            "prometheus_client",
            "serde",
            "serde_json",
            "tokio",
            "tower_layer",
            "tower_service",
            "tracing",
        ],
    ),
    layer(
        "node",
        &["api::error_text", "api::job", "api::names", "api::pod", "api::webhooks", "contract", "telemetry"],
        &["anyhow", "clap", "notify", "serde", "serde_json", "tracing"],
    ),
    layer(
        "manifests",
        &[
            "api",
            "contract",
            "controllers::metrics::families",
            "plan::model::why",
            "plan::node::stage",
            "render::access",
        ],
        &["anyhow", "clap", "k8s_openapi", "kube", "serde", "serde_json", "serde_saphyr"],
    ),
    // A leaf, which nothing else uses: what the operator decides is asked of the planner, and never imitated.
    layer(
        "plugin",
        &["api", "observe::static_pods", "observe::view", "plan"],
        &[
            "clap",
            "console",
            "futures",
            "indicatif",
            "k8s_openapi",
            "kube",
            "serde",
            "serde_json",
            "serde_saphyr",
            "tokio",
        ],
    ),
];

/// Files with rights of their own beyond their layer's: (start of the path below src, crates).
const EXCEPTIONS: &[(&str, &[&str])] = &[
    // The only door to the kernel.
    ("node/host", &["nix", "rustix", "rustix_libc_wrappers"]),
    ("node/image_check", &["nix", "rustix"]), // It traces a process of its own.
    // The only applet that talks to the API server.
    ("node/reboot_waiter", &["futures", "k8s_openapi", "kube", "tokio"]),
    // For the calendar that is in the binary with it.
    ("node/clock", &["k8s_openapi"]),
    // The one file of a node that is YAML of its owner's.
    ("node/upgrade/cloud_config", &["serde_saphyr"]),
    ("node/upgrade/witness", &["k8s_openapi"]),
    ("controllers/clock", &["nix"]), // It goes on while the machine is suspended.
    ("controllers/timed", &["nix"]), // And that of a thread only while it computes.
    // Signals without unsafe code.
    ("node/signals", &["tokio"]),
];

/// Words that make a function of its arguments depend on something else.
const IMPURE: [&str; 12] = [
    "Client",
    "async ",
    ".await",
    "::now(",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "println!",
    "rand::",
];

/// Layers that are functions of their arguments, and what of the list above they may still say.
const PURE: [&str; 3] = ["api", "plan", "render"];
const MAX_LINES: usize = 400;

fn layer_of(file: &str) -> Option<&'static Layer> {
    let top = file.split('/').next().unwrap().trim_end_matches(".rs");
    LAYERS.iter().find(|layer| layer.name == top)
}

#[test]
fn every_module_stays_behind_its_wall() {
    let mut broken = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let file = below(&path, "src");
        let Some(layer) = layer_of(file) else {
            let known =
                file.starts_with("cli/") || ["bin/kubectl-kairos.rs", "lib.rs", "main.rs"].contains(&file);
            assert!(known, "{file} is in no layer: say in tests/it/tidy/mod.rs what it may use");
            continue;
        };
        let text = code(&path);
        for used in paths(&text, "crate") {
            let allowed = |own: &str| used == own || used.starts_with(&format!("{own}::"));
            if !allowed(layer.name) && !layer.own.iter().any(|own| allowed(own)) {
                broken.push(format!("{file}: crate::{used}"));
            }
        }
        let extra =
            EXCEPTIONS.iter().filter(|(start, _)| file.starts_with(start)).flat_map(|(_, crates)| *crates);
        let crates: BTreeSet<&str> = layer.crates.iter().chain(extra).copied().collect();
        for name in dependencies() {
            if !crates.contains(name.as_str()) && !paths(&text, &name).is_empty() {
                broken.push(format!("{file}: {name}"));
            }
        }
        let depth = file.split('/').filter(|part| !["mod.rs"].contains(part)).count();
        if text.contains(&"super::".repeat(depth)) {
            broken.push(format!("{file}: super:: leaves the module"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn what_is_planned_and_rendered_is_a_function_of_its_arguments() {
    let mut broken = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let file = below(&path, "src");
        if layer_of(file).is_some_and(|layer| PURE.contains(&layer.name)) {
            let text = code(&path);
            broken.extend(
                IMPURE.iter().filter(|word| text.contains(*word)).map(|word| format!("{file}: {word}")),
            );
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_says_first_what_it_is_and_none_is_long() {
    let mut broken = Vec::new();
    for path in sources() {
        let (text, file) = (read(&path), below(&path, ""));
        if !text.starts_with("//! ") {
            broken.push(format!("{file}: does not start with `//! `"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!("{file}: {lines} lines, more than {MAX_LINES}"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A file that no `mod` line names is neither built nor tested, and still read and edited.
#[test]
fn no_file_is_an_orphan() {
    fn visit(path: &Path, seen: &mut BTreeSet<PathBuf>) {
        if !path.exists() || !seen.insert(path.to_owned()) {
            return;
        }
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap();
        let owns_directory = ["main", "lib", "mod"].contains(&stem);
        let directory = if owns_directory { parent.to_owned() } else { parent.join(stem) };
        for line in read(path).lines() {
            let declared = line
                .trim_start()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub ");
            if let Some(name) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                visit(&directory.join(format!("{name}.rs")), seen);
                visit(&directory.join(name).join("mod.rs"), seen);
            }
        }
    }
    let is_root = |path: &Path| {
        let file = below(path, "");
        let directory = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        matches!(
            file,
            "src/main.rs"
                | "src/lib.rs"
                | "tests/fuzz/src/lib.rs"
                | "tests/it/main.rs"
                | "tests/sim/tests/it/main.rs"
                | "tests/sim/src/lib.rs"
                | "tests/sim/src/main.rs"
                | "tests/sim/src/demo/main.rs"
        ) || matches!(directory, "bin" | "tests" | "benches" | "examples" | "fuzz_targets")
    };
    let mut seen = BTreeSet::new();
    sources().iter().filter(|path| is_root(path)).for_each(|path| visit(path, &mut seen));
    let orphans: Vec<PathBuf> = sources().into_iter().filter(|path| !seen.contains(path)).collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
}

#[test]
fn only_tests_of_a_cluster_are_ignored() {
    let word = concat!("#[", "ignore");
    // A benchmark is no test: it says how long something takes, and nothing fails.
    let meant = ["tests/e2e.rs", "tests/it/chaos/bench/mod.rs", "tests/sim/tests/it/kubernetes/mod.rs"];
    let ignored =
        sources().into_iter().filter(|path| !meant.contains(&below(path, "")) && read(path).contains(word));
    let ignored: Vec<PathBuf> = ignored.collect();
    assert!(ignored.is_empty(), "{ignored:#?}");
}

/// What the client or Rust prints of an error is for programmers: `act::error_message` says it for everybody
/// else.
#[test]
fn errors_are_told_in_words() {
    let modules = ["src/act/", "src/controllers/", "src/observe/", "src/plan/", "src/render/"];
    let (formats, tests) = (["error:#", "error:?", "?error"], "#[cfg(test)]");
    let mut broken = Vec::new();
    for path in
        sources().iter().filter(|path| modules.iter().any(|module| below(path, "").starts_with(module)))
    {
        let text = read(path);
        let code = text.split(tests).next().unwrap_or_default();
        broken.extend(
            formats
                .iter()
                .filter(|format| code.contains(*format))
                .map(|format| format!("{}: {format}", below(path, ""))),
        );
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn nothing_names_the_machine_that_it_was_written_on() {
    let words = [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/")];
    let mut broken = Vec::new();
    for directory in ["src", "tests", "scripts", "manifests", "images", "docs", ".ci", ".github"] {
        for path in files(&root().join(directory), "") {
            // Fixtures may be bytes of anything.
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            broken.extend(
                words
                    .iter()
                    .filter(|word| text.contains(*word))
                    .map(|word| format!("{}: {word}", path.display())),
            );
        }
    }
    for file in ["Cargo.toml", "README.md", "CHANGELOG.md", "rust-toolchain.toml"] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        broken.extend(words.iter().filter(|word| text.contains(*word)).map(|word| format!("{file}: {word}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A break whose guard was moved would stop the whole of `scripts/chaos-breaks`, which runs for hours.
#[test]
fn the_guards_that_chaos_breaks_takes_out_are_where_it_looks_for_them() {
    let output = Command::new(root().join("scripts/chaos-breaks")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whoever points at a name is shown its own comment, and none of those before it.
#[test]
fn no_comment_needs_the_one_before_it() {
    const DITTO: [&str; 6] = ["The same", "Nor ", "So do", "And ", "As above", "Those of them"];
    let mut told = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let mut goes_on = false;
        for (line, at) in read(&path).lines().map(str::trim_start).zip(1..) {
            let comment = line.strip_prefix("/// ");
            if comment.is_some_and(|text| !goes_on && DITTO.iter().any(|ditto| text.starts_with(ditto))) {
                told.push(format!("{}:{at}: {line}", below(&path, "")));
            }
            goes_on = line.starts_with("///");
        }
    }
    assert!(told.is_empty(), "{told:#?}");
}

/// Who has a test to write, or one that failed, finds its tier by the name of its file.
#[test]
fn each_file_of_tests_is_in_a_row_of_their_page() {
    let page = read(&root().join("tests/README.md"));
    let here = fs::read_dir(root().join("tests/it")).unwrap().map(|entry| entry.unwrap());
    let names = here.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name != "main.rs");
    let left_out: Vec<String> = names.filter(|name| !page.contains(&format!("`it/{name}"))).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

/// What is read in the pages is read in comments, messages and names of tests as well: see `docs` for the words
/// of the pages.
#[test]
fn code_is_written_in_plain_english() {
    let private = [
        "in hand",
        "mended",
        "hangs on",
        "last words",
        "is at it",
        "call off",
        "called off",
        "calling off",
        "so many",
    ];
    // The words stand there, to be looked for.
    let lists = ["tests/it/docs.rs", "tests/it/tidy/mod.rs"].map(|list| root().join(list));
    let mut broken = Vec::new();
    let all = ["src", "tests"].into_iter().flat_map(|of| files(&root().join(of), ".rs"));
    for path in all.filter(|path| !lists.contains(path)) {
        let text = read(&path).to_lowercase();
        // A sentence goes on in the next line, and a name is words as well.
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let text = format!(" {} ", words.join(" "));
        let said = private.iter().filter(|said| text.contains(&format!(" {said} ")));
        broken.extend(said.map(|said| format!("{}: {said}", below(&path, ""))));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
