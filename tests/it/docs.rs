//! What is written for people: links that lead somewhere, commands and samples that exist, messages as they
//! are said, and plain English.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use clap::Args;
use kairos_operator::{api::event_reason, contract, controllers::args::ControllerArgs};

use crate::tidy::scan::{below, code, files, root};

/// Bytes of README.md, at most: who opens it wants to know what this is and how to begin. All else has a page
/// of its own.
const MAX_README: usize = 10_000;

/// A page, by its path in the repository.
struct Page {
    path: String,
    text: String,
}

fn pages() -> Vec<Page> {
    let mut paths =
        vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("tests/README.md")];
    for directory in ["docs", ".github"] {
        paths.extend(files(&root().join(directory), ".md"));
    }
    let page = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { path: below(path, "").to_owned(), text }
    };
    paths.iter().map(page).collect()
}

impl Page {
    /// The lines that are neither in a fenced block of code nor its fences.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }

    /// The anchors that GitHub gives the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for heading in self.prose().filter_map(|line| line.strip_prefix('#')) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || ['-', '_', ' '].contains(c));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let again = (1..).map(|number| format!("{anchor}-{number}")).find(|name| !anchors.contains(name));
            let name = if anchors.contains(&anchor) { again.unwrap() } else { anchor };
            anchors.insert(name);
        }
        anchors
    }

    /// What its links lead to, as they are written.
    fn links(&self) -> Vec<String> {
        let targets = |line: &str| {
            line.split("](")
                .skip(1)
                .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
                .collect::<Vec<_>>()
        };
        self.prose().flat_map(targets).collect()
    }

    /// The path that a relative link leads to, without its anchor.
    fn resolve(&self, link: &str) -> String {
        let mut at = PathBuf::from(&self.path);
        at.pop();
        for part in Path::new(link).components() {
            match part {
                Component::ParentDir => drop(at.pop()),
                part => at.push(part),
            }
        }
        at.to_str().unwrap().to_owned()
    }

    /// The samples that it links to.
    fn samples(&self) -> impl Iterator<Item = String> {
        self.links()
            .into_iter()
            .map(|link| self.resolve(&link))
            .filter(|path| path.starts_with("manifests/samples/"))
    }
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() {
    let pages = pages();
    let (mut broken, mut checked) = (Vec::new(), 0);
    for page in &pages {
        for link in page.links().iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            checked += 1;
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { page.path.clone() } else { page.resolve(file) };
            let target = pages.iter().find(|page| page.path == path);
            if !root().join(&path).exists() {
                broken.push(format!("{}: {link}: there is no {path}", page.path));
            } else if let Some(anchor) = anchor
                && !target.is_some_and(|target| target.anchors().contains(anchor))
            {
                broken.push(format!("{}: {link}: {path} has no such heading", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 50, "{checked}: links are not found any more");
}

#[test]
fn a_heading_becomes_its_anchor() {
    let text = "# The Job's pod\n```\n# no heading\n```\n## a `b`: c_d\n## a b c_d\n## a b c_d\n";
    let anchors = Page { path: "a.md".into(), text: text.into() }.anchors();
    assert_eq!(
        anchors.iter().map(String::as_str).collect::<Vec<_>>(),
        ["a-b-c_d", "a-b-c_d-1", "a-b-c_d-2", "the-jobs-pod"]
    );
}

#[test]
fn the_readme_is_short_and_leads_everywhere() {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == "README.md").unwrap();
    assert!(
        readme.text.len() <= MAX_README,
        "README.md has {} bytes, more than {MAX_README}",
        readme.text.len()
    );
    let linked: Vec<String> =
        readme.links().iter().map(|link| readme.resolve(link.split('#').next().unwrap())).collect();
    let missing: Vec<&String> = pages
        .iter()
        .map(|page| &page.path)
        .filter(|path| path.starts_with("docs/") && !linked.contains(path))
        .collect();
    assert!(missing.is_empty(), "README.md does not link to {missing:?}");
    let beginning: String = readme.text.chars().take(900).collect();
    assert!(
        beginning.contains("`concurrency: 1`") && beginning.contains("0, which means all"),
        "what a user must know first"
    );
}

#[test]
fn every_sample_is_explained() {
    let explained: BTreeSet<String> =
        pages().iter().filter(|page| page.path.starts_with("docs/")).flat_map(Page::samples).collect();
    let samples: BTreeSet<String> = files(&root().join("manifests/samples"), ".yaml")
        .iter()
        .map(|path| below(path, "").to_owned())
        .collect();
    assert_eq!(explained, samples);
}

#[test]
fn files_that_are_named_exist() {
    let mut missing = Vec::new();
    for page in pages() {
        let scripts =
            page.text.split("scripts/").skip(1).map(|rest| format!("scripts/{}", path_at_start(rest)));
        let prose = page.prose().collect::<Vec<_>>().join("\n");
        let spans = prose.split('`').skip(1).step_by(2).map(path_at_start);
        // The page about the tests names them as they lie beside it.
        let beside = |path: &String| {
            page.path == "tests/README.md" && ["it/", "sim/", "fuzz/"].iter().any(|at| path.starts_with(at))
        };
        let named = spans.filter_map(|path| match path.split('/').next() {
            Some("src" | "tests" | "manifests" | "images" | "docs") => Some(path),
            _ => beside(&path).then(|| format!("tests/{path}")),
        });
        missing.extend(
            scripts
                .chain(named)
                .filter(|path| !root().join(path).exists())
                .map(|path| format!("{}: {path}", page.path)),
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The NodeOp of an upgrade is not there at first, and under the upgrade's name the first run's for ever.
#[test]
fn no_command_takes_an_upgrade_for_its_nodeop() {
    let mut names = BTreeSet::new();
    for path in files(&root().join("manifests"), ".yaml").iter().filter(|path| !path.ends_with("crds.yaml")) {
        // A chart's templates are no YAML, and have no operation.
        let objects = serde_saphyr::from_multiple::<serde_json::Value>(&fs::read_to_string(path).unwrap());
        let upgrades =
            objects.unwrap_or_default().into_iter().filter(|object| object["kind"] == "NodeOpUpgrade");
        names.extend(upgrades.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)));
    }
    assert!(names.contains("kairos-upgrade"), "{names:?}");
    let mut wrong = Vec::new();
    for page in pages() {
        for line in page.text.lines().filter(|line| line.contains("kubectl ")) {
            let words: Vec<&str> = line.split([' ', '/', '=', ',', '`', '"', '\'']).collect();
            let takes =
                |pair: &[&str]| ["nodeop", "nodeops", "nop"].contains(&pair[0]) && names.contains(pair[1]);
            if words.windows(2).any(takes) {
                wrong.push(format!("{}: {line}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `Ready` and `Complete` stay `False` after a failure, so whoever waits for one of them waits until the
/// timeout.
#[test]
fn no_command_waits_for_what_does_not_come_after_a_failure() {
    let mut wrong = Vec::new();
    for page in pages() {
        let lines = page.text.lines().filter(|line| line.starts_with("$ kubectl wait "));
        let ends = |line: &str| line.contains("condition=Progressing=False") || line.contains("--timeout=1s");
        wrong.extend(lines.filter(|line| !ends(line)).map(|line| format!("{}: {line}", page.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Of several pods of a Job kubectl takes the oldest, since none of ours is ever Ready: the first try, also
/// while a later one runs, and not the one that the message is about.
#[test]
fn no_command_reads_the_log_of_a_jobs_first_try_alone() {
    let wrong: Vec<String> = pages()
        .iter()
        .flat_map(|page| page.text.lines().map(|line| format!("{}: {line}", page.path)))
        .filter(|line| line.contains("logs job/") || line.contains("logs -f job/"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What sets the operator up is of no use to whoever does not know that it is there.
#[test]
fn every_flag_of_the_operator_is_explained() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table: Vec<&str> = page.lines().filter(|line| line.starts_with("| `--")).collect();
    let command = ControllerArgs::augment_args(clap::Command::new("controller"));
    let shown: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    let flags = shown.iter().filter_map(|arg| arg.get_long()).map(|long| format!("`--{long}`"));
    let variables = shown.iter().filter_map(|arg| arg.get_env()).map(|name| format!("`{}`", name.display()));
    let named = |what: &String| table.iter().any(|row| row.contains(what.as_str()));
    let missing: Vec<String> = flags.chain(variables).filter(|what| !named(what)).collect();
    assert!(missing.is_empty() && !table.is_empty(), "{missing:?}");
}

/// What comes from the Go operator meets fields that did nothing there, and an image that is not published.
#[test]
fn the_page_on_migration_names_what_changes_under_a_users_hands() {
    let page = fs::read_to_string(root().join("docs/migration.md")).unwrap();
    let differences =
        page.split("\n## Deliberate differences\n").nth(1).unwrap().split("\n## ").next().unwrap();
    // The fields of `DrainOptions` that no version of it read.
    for said in ["gracePeriodSeconds` holds", "timeoutSeconds` holds", "`deleteEmptyDirData: false`"] {
        assert!(differences.contains(said), "{said}");
    }
    let replace = page.split("\n## How to replace it\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let (image, _) = contract::IMAGE.rsplit_once(':').unwrap();
    for text in [image, "rollout status deployment/operator-kairos-operator"] {
        assert!(replace.contains(text), "{text}");
    }
}

/// Each build of one version has the same tag, and a node keeps the content that it has under it.
#[test]
fn an_overlay_names_the_operators_image_by_digest() {
    for page in pages() {
        for block in page.text.split("newName: registry.example.com/kairos-operator\n").skip(1) {
            let next = block.lines().next().unwrap_or_default().trim();
            assert!(next.starts_with("digest: sha256:"), "{}: {next}", page.path);
        }
    }
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    assert!(operations.contains("digest: sha256:"), "the overlay has gone");
}

/// The path that `text` begins with.
fn path_at_start(text: &str) -> String {
    let path: String =
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || ['-', '.', '_', '/'].contains(c)).collect();
    path.trim_end_matches('.').to_owned()
}

/// A reader searches for the message that a cluster shows, so each one on the page is one that the code says:
/// its fixed parts stand in a string there. Where a sentence is broken over lines in the code, it is joined
/// as the compiler does.
#[test]
fn the_page_on_failures_has_the_messages_of_the_code() {
    let sources = files(&root().join("src"), ".rs");
    let code: Vec<String> = sources.iter().map(|path| joined(&fs::read_to_string(path).unwrap())).collect();
    let page = fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let messages: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("Message: `")?.strip_suffix('`')).collect();
    assert!(messages.len() > 20, "{messages:?}");
    let unknown: Vec<&&str> = messages
        .iter()
        .filter(|message| {
            let parts: Vec<&str> = message.split('…').filter(|part| part.len() > 4).collect();
            assert!(!parts.is_empty(), "{message}");
            !code.iter().any(|text| parts.iter().all(|part| text.contains(part.trim())))
        })
        .collect();
    assert!(unknown.is_empty(), "no file of src says all parts of {unknown:#?}");
}

/// Code with the continued lines of its strings joined.
fn joined(code: &str) -> String {
    let mut lines = code.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// What a script reads off a status is in the manual.
#[test]
fn every_reason_and_step_is_explained() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let names = fs::read_to_string(root().join("src/api/names.rs")).unwrap();
    let reasons = names.split("pub mod reason {").nth(1).unwrap().split("\n}").next().unwrap();
    let mut words: Vec<&str> = reasons.split('"').skip(1).step_by(2).collect();
    assert!(words.len() > 6, "{words:?}");
    words.extend(["Claim", "Drain", "Job", "Reboot", "Verify"]);
    words.retain(|word| !page.contains(&format!("`{word}`")));
    assert!(words.is_empty(), "docs/operations.md does not explain {words:?}");
}

/// Whoever selects by a label, or alerts on an Event, finds it on the page, which is printed from the tables.
#[test]
fn every_key_and_every_event_has_its_row() {
    let page = fs::read_to_string(root().join("docs/names.md")).unwrap();
    let names = code(&root().join("src/api/names.rs"));
    let mut missing: Vec<&str> = names.split('"').skip(1).step_by(2).collect();
    missing.retain(|name| name.contains("kairos.io/") && !page.contains(&format!("`{name}`")));
    assert!(missing.is_empty(), "not in docs/names.md: {missing:?}");
    let parts =
        ["plan", "act", "node/reboot_waiter"].map(|part| files(&root().join("src").join(part), ".rs"));
    // One module of tests is named for what they are about.
    let built = parts.into_iter().flatten().filter(|path| !path.ends_with("stamps.rs"));
    let built: String = built.map(|path| code(&path)).collect();
    let all: Vec<&str> = event_reason::ALL.iter().map(|one| one.name).collect();
    let mut unknown: Vec<&str> =
        built.split("reason: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    unknown.retain(|reason| !all.contains(reason));
    assert!(unknown.is_empty(), "not in src/api/event_reason.rs: {unknown:?}");
    let is_said = |reason: &&str| [&built, &names].iter().any(|text| text.contains(&format!("\"{reason}\"")));
    let never: Vec<&str> = all.into_iter().filter(|reason| !is_said(reason)).collect();
    assert!(never.is_empty(), "nobody says {never:?}");
}

/// Words that nobody but us says, or that say nothing to somebody who looks for help.
#[test]
fn pages_are_written_in_plain_english() {
    const PRIVATE: [&str; 9] = [
        "in hand",
        "mend",
        "mended",
        "hangs on",
        "so many",
        "last words",
        "is at it",
        "call off",
        "telegram",
    ];
    let mut found = Vec::new();
    for page in pages().iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        let text = page.prose().collect::<Vec<_>>().join(" ").to_lowercase();
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let text = format!(" {} ", words.join(" "));
        found.extend(
            PRIVATE
                .iter()
                .filter(|word| text.contains(&format!(" {word} ")))
                .map(|word| format!("{}: {word}", page.path)),
        );
    }
    assert!(found.is_empty(), "{found:#?}");
}
