//! Reading code as text: which files there are, what is built into the binary, which paths it names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `directory` whose name ends with `suffix`, as paths below it; build output left out.
pub fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
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

pub(super) fn sources() -> Vec<PathBuf> {
    ["src", "tests"].iter().flat_map(|directory| files(&root().join(directory), ".rs")).collect()
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn below<'a>(path: &'a Path, directory: &str) -> &'a str {
    path.strip_prefix(root().join(directory)).unwrap().to_str().unwrap()
}

/// The code that is built into the binary: without comments, and without the tests at the end.
pub fn code(path: &Path) -> String {
    // A module of tests that has grown into a file or a folder of its own, and what several of them start from.
    let is_test = path.ends_with("tests.rs") || path.ends_with("fixtures.rs");
    if is_test || path.parent().is_some_and(|folder| folder.ends_with("tests")) {
        return String::new();
    }
    let text = read(path);
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().map(|line| {
        if line.trim_start().starts_with("//") { "" } else { line.split(" // ").next().unwrap() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All paths that stand in `text` after `start` (`crate` or the name of a crate), groups written out.
pub(super) fn paths(text: &str, start: &str) -> Vec<String> {
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
pub(super) fn dependencies() -> BTreeSet<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[test]
fn groups_are_written_out() {
    let text = "use crate::{api::{names, nodeop::NodeOp}, contract};\nlet x = crate::plan::check::broken {};\nuse crate::act;\nmycrate::no::no";
    assert_eq!(
        paths(text, "crate"),
        ["api::names", "api::nodeop::NodeOp", "contract", "plan::check::broken", "act"]
    );
    assert_eq!(paths("kube::Client; x_kube::a; other::kube::b", "kube"), ["Client"]);
    assert!(dependencies().contains("k8s_openapi") && dependencies().contains("serde_saphyr"));
}
