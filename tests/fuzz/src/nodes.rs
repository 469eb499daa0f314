//! What nodes write: release files, facts, records in the state directory, mounts, the words of an agent.

use std::{cmp::Ordering, fs, path::Path};

use k8s_openapi::serde_json;
use kairos_operator::{
    contract::{Facts, Sentinel, UpgradeOrder, UpgradeResult, UpgradeState, result_file, sentinel_file},
    node::{
        facts::{FactsArgs, run as read_facts},
        host::{Host, mounts::mount_points},
        os_release::{Keys, Release, parse},
        sentinel::{SentinelArgs, run as write_sentinel},
        upgrade::{
            agent::last_lines,
            plan::{Found, Verdict, verdict},
        },
        version::compare,
    },
    plan::{
        facts::labels,
        model::snapshot::{ContainerState, NodeView},
    },
    telemetry,
};

use super::{is_label_value, text, texts};

/// The kubelet cuts a termination message there.
const MAX_MESSAGE: usize = 4096;

/// A release file: names are names, nothing grows, and what was read, written as a shell would quote it,
/// reads the same.
pub fn release(data: &[u8]) {
    let Some(file) = text(data) else { return };
    let keys = parse(file);
    let size: usize = keys.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(size <= file.len());
    let mut again = String::new();
    for (key, value) in &keys {
        assert!(!key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{key:?}");
        again += &format!("{key}='{}'\n", value.replace('\'', "'\\''"));
    }
    assert_eq!(parse(&again), keys);
    ordered(&keys);
}

/// Whatever has an order to another release has the opposite one the other way round, and none of itself but
/// that it is equal.
fn ordered(keys: &Keys) {
    assert!(compare(keys, keys).is_none_or(Ordering::is_eq));
    for (version, software) in [("v3.5.0", "v1.30.11+k3s1"), ("v3.5.0-rc1", ""), ("v3", "v1")] {
        let mut other = keys.clone();
        other.insert("KAIROS_VERSION".into(), version.into());
        other.insert("KAIROS_SOFTWARE_VERSION".into(), software.into());
        assert_eq!(compare(&other, keys), compare(keys, &other).map(Ordering::reverse));
    }
}

/// A directory that stands for the node, with files in it.
fn node(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().expect("a temporary directory");
    for (path, bytes) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    let host = Host::at(root.path(), None);
    (root, host)
}

/// A node's release files, command line and boot id (cut at NUL bytes): its facts fit into a termination
/// message, and make labels.
pub fn facts(data: &[u8]) {
    let Some([kairos, os, cmdline, boot]) = texts(data) else { return };
    let files: [(&str, &[u8]); 4] = [
        ("host/etc/kairos-release", kairos.as_bytes()),
        ("host/etc/os-release", os.as_bytes()),
        ("proc/cmdline", cmdline.as_bytes()),
        ("proc/sys/kernel/random/boot_id", boot.as_bytes()),
    ];
    let (_root, host) = node(&files);
    let Ok(ended) = read_facts(&FactsArgs { host_dir: "/host".into() }, &host) else { return };
    assert!(ended.code == 0 && ended.message.len() <= MAX_MESSAGE, "{} bytes", ended.message.len());
    let facts: Facts = serde_json::from_str(&ended.message).expect("what one end writes the other reads");
    said(&facts);
}

/// A facts pod's termination message, as a kubelet that lies might report it.
pub fn facts_message(data: &[u8]) {
    let Some(message) = text(data) else { return };
    let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: message.into() };
    if let Some(facts) = ended.parsed_message::<Facts>() {
        assert!(message.len() <= MAX_MESSAGE);
        said(&facts);
    }
}

/// What the controller would write on the node: labels that are labels, no more than was said, and once.
fn said(facts: &Facts) {
    let mut node = NodeView { boot_id: facts.boot.clone(), ..NodeView::default() };
    let change = labels::change(&node, facts);
    let size = |(key, value): (&String, &Option<String>)| key.len() + value.as_ref().map_or(0, String::len);
    assert!(change.labels.iter().chain(&change.annotations).map(size).sum::<usize>() <= 16 * 1024);
    for value in change.labels.values().flatten() {
        assert!(is_label_value(value), "{value:?}");
    }
    let set = |(key, value): (String, Option<String>)| Some((key, value?));
    node.labels = change.labels.into_iter().filter_map(set).collect();
    node.annotations = change.annotations.into_iter().filter_map(set).collect();
    assert!(node.says_its_facts() && labels::change(&node, facts).is_empty());
}

/// A result and a sentinel in the state directory, cut at a NUL byte: the agent never runs after its success,
/// and no reboot follows from what did not succeed.
pub fn records(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (result, sentinel) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known: Option<UpgradeResult> = serde_json::from_slice(result).ok();
    if let Some(known) = &known {
        let again = serde_json::to_vec(known).expect("a record is JSON");
        assert_eq!(serde_json::from_slice::<UpgradeResult>(&again).ok().as_ref(), Some(known));
        retry(known);
    }
    let files: [(&str, &[u8]); 3] = [
        ("state/job.upgrade.json", result),
        ("state/job.json", sentinel),
        ("proc/sys/kernel/random/boot_id", b"b1"),
    ];
    let (root, host) = node(&files);
    assert_eq!((result_file("job"), sentinel_file("job")), ("job.upgrade.json".into(), "job.json".into()));
    waiter_reads(root.path(), sentinel);
    let (job, job_uid) = ("job".into(), Some("u".into()));
    let args = SentinelArgs {
        state_dir: "/state".into(),
        job,
        upgrade: true,
        succeeded_in: None,
        patience_seconds: 0,
        job_uid,
    };
    let ended = write_sentinel(&args, &host).ok().map(|ended| ended.message);
    let due = ended.map(|words| serde_json::from_str::<Sentinel>(&words).expect("a sentinel").boot);
    match known.filter(|known| known.job_uid == "u") {
        None => assert_eq!(due, None),
        Some(known) => match (known.state, known.active) {
            (UpgradeState::Upgraded, true) => {
                assert_eq!(due, Some(known.boot).filter(|boot| !boot.is_empty()))
            }
            (UpgradeState::UpToDate | UpgradeState::Upgraded, _) => assert_eq!(due.as_deref(), Some("")),
            (UpgradeState::Started | UpgradeState::Failed, _) => assert_eq!(due, None),
        },
    }
}

fn retry(known: &UpgradeResult) {
    let order = UpgradeOrder { active: known.active, ..UpgradeOrder::default() };
    for boot in ["b1", known.boot.as_str()] {
        for host in [None, Some("v1".to_owned()), known.target.clone()] {
            let release = |version| Release { version, ..Release::default() };
            let (host, image) = (release(host), release(known.target.clone()));
            let found = Found {
                untried: None,
                job_uid: known.job_uid.clone(),
                boot: boot.into(),
                boot_state: known.before_state.clone(),
                trusted_boot: false,
                host,
                image,
            };
            let verdict = verdict(&order, &found, Some(known));
            match known.state {
                UpgradeState::Upgraded => assert_eq!(verdict, Verdict::Settled(known.clone())),
                UpgradeState::Started => assert!(!matches!(verdict, Verdict::Run(_))),
                UpgradeState::UpToDate | UpgradeState::Failed => {}
            }
        }
    }
}

/// The waiter of Job `job` takes a sentinel that is whole, names its Job and a boot; and nothing else.
fn waiter_reads(root: &Path, bytes: &[u8]) {
    let read =
        kairos_operator::node::reboot_waiter::state_dir::StateDir::new(root.join("state"), "job", None)
            .sentinel();
    let whole = serde_json::from_slice::<Sentinel>(bytes).ok();
    assert_eq!(
        read,
        whole.filter(|found| found.job == "job" && !found.boot.is_empty() && bytes.len() <= 64 * 1024)
    );
}

/// A mountinfo: no more than was in it, and a line written as the kernel writes it names its mount point.
pub fn mountinfo(data: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let points = mount_points(data);
    assert!(points.iter().map(|point| point.as_os_str().len()).sum::<usize>() <= data.len());
    let escape = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    let mut line = b"36 35 98:0 / ".to_vec();
    line.extend(data.iter().flat_map(escape));
    line.extend(b" rw - ext4 /dev/sda rw\n");
    let points = mount_points(&line);
    assert_eq!(points.iter().map(|point| point.as_os_str().as_bytes()).collect::<Vec<_>>(), [data]);
}

/// An agent's output, and an applet's termination message: a line that a terminal and a status can show, and
/// no more than the kubelet keeps.
pub fn termination_message(data: &[u8]) {
    let line = last_lines(data);
    assert!(line.len() <= data.len() * 3 + 12 && !line.chars().any(char::is_control), "{line:?}");
    let (root, _host) = node(&[("dev/termination-log", b"before")]);
    let words = String::from_utf8_lossy(data);
    telemetry::termination_message(root.path(), &words);
    let kept = fs::read(root.path().join("dev/termination-log")).expect("the message");
    let kept = String::from_utf8(kept).expect("a cut at a character");
    assert!(
        kept.len() <= MAX_MESSAGE
            && words.starts_with(&kept)
            && kept.len() + 4 > words.len().min(MAX_MESSAGE)
    );
}
