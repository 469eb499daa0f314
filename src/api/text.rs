//! Texts of others in our statuses and Events: on one line, and with a limit.

use std::{borrow::Cow, collections::BTreeSet};

/// `text`, cut between two characters to what takes at most `most` bytes where it is [`stored`].
pub fn clipped(text: &str, most: usize) -> String {
    if stored(text) <= most {
        return text.to_owned();
    }
    let mark = "…";
    let mut left = most.saturating_sub(mark.len());
    let beginning = text.chars().map_while(|character| {
        left = left.checked_sub(stored_as(character))?;
        Some(character)
    });
    beginning.chain(mark.chars()).collect()
}

/// How many bytes the text takes in JSON as the API server writes it, to etcd as well.
pub fn stored(text: &str) -> usize {
    text.chars().map(stored_as).sum()
}

/// Go's encoder escapes by default what would end a script in HTML.
const fn stored_as(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// Somebody's text on one line. A container's output may hold anything, and whoever reads a message in a
/// terminal would have that obey it: what controls a terminal becomes a space, as a line's end does.
pub fn one_line(text: &str) -> String {
    let parts = text.split(|c: char| c.is_whitespace() || c.is_control());
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// How many characters of somebody's text stand in a message of ours at most.
const MAX_BRIEF: usize = 300;
/// How many of them are of its beginning, which says what it is about. The rest are of its end: a chain of
/// errors has its cause there, and a container's output what went wrong.
const BEGINNING: usize = 100;
/// What stands for what was left out.
const LEFT_OUT: &str = "…";
/// A word of at least this number of characters is a reference, an id or a path.
const LONG_WORD: usize = 20;

/// Somebody's text on one line, in at most 300 characters. Of a longer one, what it repeats is left out: a
/// runtime that cannot pull an image, or make a sandbox, says the same name four times. If that is not
/// enough, its beginning and its end are left.
pub fn brief(text: &str) -> String {
    let line = one_line(text);
    let count = line.chars().count();
    if count <= MAX_BRIEF {
        return line;
    }
    let told_once = without_repetition(&line);
    if told_once.chars().count() <= MAX_BRIEF {
        return told_once;
    }
    let end = MAX_BRIEF - BEGINNING - LEFT_OUT.chars().count() - 2;
    let beginning: String = line.chars().take(BEGINNING).collect();
    let end: String = line.chars().skip(count - end).collect();
    format!("{} {LEFT_OUT} {}", beginning.trim_end(), end.trim_start())
}

/// The line with each long word told once.
fn without_repetition(line: &str) -> String {
    let mut told = BTreeSet::new();
    let words = line.split(' ').map(|word| {
        let name = word.trim_matches(|c: char| c.is_ascii_punctuation());
        if name.chars().count() < LONG_WORD || told.insert(name) {
            return Cow::Borrowed(word);
        }
        Cow::Owned(word.replacen(name, LEFT_OUT, 1))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How many names a sentence lists at most.
const MAX_LISTED: usize = 5;

/// The first of these names, and how many more there are.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<&str> = names.iter().take(MAX_LISTED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MAX_LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(clipped("héé", 10), "héé");
        assert_eq!(clipped("ééééé", 8), "éé…");
        assert_eq!(clipped("ééééé", 9), "ééé…");
        assert_eq!(clipped("<html>", 18), "<html>", "six bytes, where it is stored, of each bracket");
        assert_eq!(clipped("<html>", 15), "<html…");
        assert_eq!(clipped("\"\"\"\"", 7), "\"\"…");
    }

    #[test]
    fn of_many_names_the_first_are_listed() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(listed(&names[..1]), "a");
        assert_eq!(listed(&names[..5]), "a, b, c, d, e");
        assert_eq!(listed(&names), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn a_line_holds_nothing_that_controls_a_terminal() {
        assert_eq!(one_line(" \u{1b}[31mred\0\r\nnext\u{7}\u{9b}2J \u{7f}é\t"), "[31mred next 2J é");
    }

    /// What kubelets, containerd, CRI-O and the network's plugins say of one of Kairos' own names, or of one
    /// pod.
    #[test]
    fn of_a_chain_of_errors_the_cause_is_told() {
        let image = "quay.io/kairos/opensuse:leap-15.6-standard-amd64-generic-v3.5.0-k3sv1.33.5-k3s1";
        let chain = |cause: &str| {
            format!(
                "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {cause}"
            )
        };
        let missing = chain(&format!("{image}: not found"));
        let backs_off = format!(
            "Back-off pulling image \"{image}\": ErrImagePull: rpc error: code = NotFound desc = {missing}"
        );
        let token = "https://quay.io/v2/auth?scope=repository%3Akairos%2Fopensuse%3Apull&service=quay.io";
        let refused = chain(&format!(
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to {token}: 401 Unauthorized"
        ));
        let id = "0123456789abcdef".repeat(4);
        let sandbox = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox";
        let flannel = format!(
            "{sandbox} \"{id}\": plugin type=\"flannel\" failed (add): failed to delegate add: failed to allocate for range 0: \
             no IP addresses available in range set: 10.42.3.1-10.42.3.254"
        );
        let pod = "kairos-system_os-upgrade-long-name-of-a-node.example.com-preflight-0";
        let multus = format!(
            "{sandbox} {pod}({id}): error adding pod {pod} to CNI network \"multus\": plugin type=\"multus-shim\" name=\"multus\" failed \
             (add): CmdAdd (shim): CNI request failed with status 400: 'ContainerID:\"{id}\" Netns:\"/var/run/netns/{id}\" \
             IfName:\"eth0\": [{pod}:ovn-kubernetes]: timed out waiting for OVS port binding'"
        );
        for (said, cause) in [
            (&missing, ": not found"),
            (&backs_off, ": not found"),
            (&refused, "401 Unauthorized"),
            (&flannel, "no IP addresses available in range set: 10.42.3.1-10.42.3.254"),
            (&multus, "timed out waiting for OVS port binding'"),
        ] {
            assert!(said.chars().count() > MAX_BRIEF, "{said}");
            let told = brief(said);
            assert!(told.ends_with(cause), "{told}");
            assert!(told.starts_with(&said[..60]) && told.chars().count() <= MAX_BRIEF, "{told}");
        }
        let told = format!(
            "failed to pull and unpack image \"{image}\": failed to resolve reference \"…\": …: not found"
        );
        assert_eq!(brief(&missing), told);
        assert_eq!(brief("short\ntext"), "short text");
        assert!(brief(&"é".repeat(10_000)).chars().count() <= MAX_BRIEF);
    }
}
