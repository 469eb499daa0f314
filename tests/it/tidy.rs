//! The rules of the house, read from the text of the code: who may use whom, a first line in every file, and sizes.
//!
//! Walls hold for what is built into the binary; the tests at the end of a file may use what they like.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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
    layer("telemetry", &[], &["tracing", "tracing_subscriber"]),
    layer("api", &[], &["kube", "k8s_openapi", "schemars", "serde", "serde_json"]),
    layer("plan", &["api", "contract"], &["k8s_openapi", "serde", "serde_json"]),
    layer("observe", &["api", "plan::snapshot"], &["anyhow", "futures", "k8s_openapi", "kube", "serde", "serde_json", "tokio", "tracing"]),
    layer("render", &["api", "contract", "plan::action", "plan::names"], &["k8s_openapi", "kube", "serde", "serde_json"]),
    layer(
        "act",
        &["api", "contract", "plan::action", "plan::names", "plan::snapshot", "render"],
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
            "tracing",
        ],
    ),
    layer("node", &["api::names", "contract", "telemetry"], &["anyhow", "clap", "notify", "serde", "serde_json", "tracing"]),
    layer("manifests", &["api"], &["anyhow", "clap", "k8s_openapi", "kube", "serde", "serde_json", "serde_saphyr"]),
];

/// Files with rights of their own beyond their layer's: (start of the path below src, crates).
const EXCEPTIONS: &[(&str, &[&str])] = &[
    // The only door to the kernel.
    ("node/host", &["nix", "rustix", "rustix_libc_wrappers"]),
    // The only applet that talks to the API server.
    ("node/reboot_waiter", &["futures", "k8s_openapi", "kube", "tokio"]),
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `directory` whose name ends with `suffix`, as paths below it; build output left out.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" {
                found.extend(files(&path, suffix));
            }
        } else if name.ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    ["src", "tests"].iter().flat_map(|directory| files(&root().join(directory), ".rs")).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn below<'a>(path: &'a Path, directory: &str) -> &'a str {
    path.strip_prefix(root().join(directory)).unwrap().to_str().unwrap()
}

/// The code that is built into the binary: without comments, and without the tests at the end.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line.split(" // ").next().unwrap() });
    lines.collect::<Vec<_>>().join("\n")
}

/// All paths that stand in `text` after `start` (`crate` or the name of a crate), groups written out.
fn paths(text: &str, start: &str) -> Vec<String> {
    let prefix = format!("{start}::");
    let free = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let starts = text.match_indices(&prefix).map(|(at, _)| at).filter(|&at| free(at));
    starts.flat_map(|at| expand(&text[at + prefix.len()..])).collect()
}

/// `a::{b, c::d} …` as `a::b`, `a::c::d`.
fn expand(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix("::").filter(|_| !name.is_empty()) {
        return expand(rest).into_iter().map(|tail| format!("{name}::{tail}")).collect();
    }
    let Some(group) = rest.strip_prefix('{').filter(|_| name.is_empty()) else {
        return vec![name.to_owned()];
    };
    let (mut depth, mut at, mut members) = (0, 0, Vec::new());
    for (here, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                members.push(group[at..here].trim());
                at = here + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    members.into_iter().filter(|member| !member.is_empty()).flat_map(expand).collect()
}

/// Crates that the binary depends on, as they are spelled in code.
fn dependencies() -> BTreeSet<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

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
            assert!(["cli.rs", "lib.rs", "main.rs"].contains(&file), "{file} is in no layer: say in tests/it/tidy.rs what it may use");
            continue;
        };
        let text = code(&path);
        for used in paths(&text, "crate") {
            let allowed = |own: &str| used == own || used.starts_with(&format!("{own}::"));
            if !allowed(layer.name) && !layer.own.iter().any(|own| allowed(own)) {
                broken.push(format!("{file}: crate::{used}"));
            }
        }
        let extra = EXCEPTIONS.iter().filter(|(start, _)| file.starts_with(start)).flat_map(|(_, crates)| *crates);
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
            broken.extend(IMPURE.iter().filter(|word| text.contains(*word)).map(|word| format!("{file}: {word}")));
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
            let declared = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
            if let Some(name) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                visit(&directory.join(format!("{name}.rs")), seen);
                visit(&directory.join(name).join("mod.rs"), seen);
            }
        }
    }
    let is_root = |path: &Path| {
        let file = below(path, "");
        let directory = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        matches!(file, "src/main.rs" | "src/lib.rs" | "tests/it/main.rs" | "tests/sim/src/lib.rs" | "tests/sim/src/main.rs")
            || matches!(directory, "bin" | "tests" | "benches" | "examples" | "fuzz_targets")
    };
    let mut seen = BTreeSet::new();
    sources().iter().filter(|path| is_root(path)).for_each(|path| visit(path, &mut seen));
    let orphans: Vec<PathBuf> = sources().into_iter().filter(|path| !seen.contains(path)).collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
}

#[test]
fn only_tests_of_a_cluster_are_ignored() {
    let word = concat!("#[", "ignore");
    let ignored = sources().into_iter().filter(|path| below(path, "") != "tests/e2e.rs" && read(path).contains(word));
    let ignored: Vec<PathBuf> = ignored.collect();
    assert!(ignored.is_empty(), "{ignored:#?}");
}

#[test]
fn nothing_names_the_machine_that_it_was_written_on() {
    let words = [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/")];
    let mut broken = Vec::new();
    for directory in ["src", "tests", "scripts", "manifests", "images", ".ci"] {
        for path in files(&root().join(directory), "") {
            // Fixtures may be bytes of anything.
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            broken.extend(words.iter().filter(|word| text.contains(*word)).map(|word| format!("{}: {word}", path.display())));
        }
    }
    for file in ["Cargo.toml", "README.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        broken.extend(words.iter().filter(|word| text.contains(*word)).map(|word| format!("{file}: {word}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn groups_are_written_out() {
    let text = "use crate::{api::{names, nodeop::NodeOp}, contract};\nlet x = crate::plan::snapshot::Snapshot {};\nuse crate::act;\nmycrate::no::no";
    assert_eq!(paths(text, "crate"), ["api::names", "api::nodeop::NodeOp", "contract", "plan::snapshot::Snapshot", "act"]);
    assert_eq!(paths("kube::Client; x_kube::a; other::kube::b", "kube"), ["Client"]);
    assert!(dependencies().contains("k8s_openapi") && dependencies().contains("serde_saphyr"));
}
