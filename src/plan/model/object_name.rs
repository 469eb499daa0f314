//! Names of what we make: readable, deterministic, and a valid DNS label of at most 63 characters for any
//! input.
//!
//! The hash covers what the readable part may lose: the NodeOp's UID (a NodeOp made again under the same name
//! shares nothing with the old one), the node, what the object is for, and the attempt.

use std::borrow::Cow;

use crate::api::{hash::digits, names::cut};

/// Longest DNS label.
const MAX: usize = 63;
/// Names that there are for the account of a node's waiter.
const ACCOUNTS: usize = 3;
/// Hash digits at the end of a name: 40 bits, over the objects of one NodeOp and node.
const DIGITS: usize = 10;

fn hash(parts: &[&str]) -> String {
    digits(parts, DIGITS)
}

/// Lower-case letters, digits and dashes of `text`, not at its ends, at most `max` of them.
fn readable(text: &str, max: usize) -> Cow<'_, str> {
    let stays = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    // Names of objects are of small letters: of them no copy is made.
    if text.bytes().all(stays) {
        return Cow::Borrowed(within(text, max));
    }
    let mapped = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let mapped: String = text.to_lowercase().chars().map(mapped).collect();
    Cow::Owned(within(&mapped, max).to_owned())
}

/// As much of it as there is room for, without dashes at its ends.
fn within(text: &str, max: usize) -> &str {
    cut(text.trim_matches('-'), max).trim_matches('-')
}

/// Name of an object made for one NodeOp on one node. `kind` is `""` for the Job, else a word like `reboot`.
pub fn object(op: (&str, &str), node: &str, kind: &str, attempt: i32) -> String {
    let hash = hash_of(op.1, node, kind, attempt);
    let tail = if kind.is_empty() { hash } else { format!("{kind}-{hash}") };
    joined(op.0, node, &tail)
}

/// How its name ends.
fn hash_of(uid: &str, node: &str, kind: &str, attempt: i32) -> String {
    hash(&[uid, node, kind, &attempt.to_string()])
}

/// What is readable of both names, as far as there is room, and `tail`, which is unique.
fn joined(name: &str, node: &str, tail: &str) -> String {
    let room = MAX - tail.len() - 2;
    let node = readable(node, room / 2);
    let name = readable(name, room - node.len());
    let mut joined = String::with_capacity(MAX);
    for part in [&*name, &*node, tail].into_iter().filter(|part| !part.is_empty()) {
        if !joined.is_empty() {
            joined.push('-');
        }
        joined.push_str(part);
    }
    // A label that starts with a digit is fine since RFC 1123.
    joined
}

/// Under how many names an operation makes an object on a node at most, where those before are somebody
/// else's.
pub const MAX_ATTEMPTS: i32 = 50;

/// Which of the names of an object that is made for one NodeOp on one node this is, if it is one.
pub fn attempt(op: (&str, &str), node: &str, kind: &str, name: &str) -> Option<i32> {
    // Nearly all names are told apart by their ends.
    let (rest, end) = name.rsplit_once('-')?;
    if !rest.ends_with(kind) {
        return None;
    }
    let ends = |attempt: i32| end == hash_of(op.1, node, kind, attempt);
    (0..=MAX_ATTEMPTS).find(|attempt| ends(*attempt) && name == object(op, node, kind, *attempt))
}

/// Names of the ServiceAccount, Role and RoleBinding of a node's waiter: the first is taken that nothing of
/// somebody else has. They end as the Go operator's do, so that a policy finds both.
pub fn accounts(op: (&str, &str), node: &str) -> Vec<String> {
    let (name, uid) = op;
    let tail = |attempt: usize| format!("{}-reboot", hash(&[uid, node, "account", &attempt.to_string()]));
    (0..ACCOUNTS).map(|attempt| joined(name, node, &tail(attempt))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_what_may_stand_in_a_label_is_kept() {
        for (text, max, kept) in [
            ("edge-01", 63, "edge-01"),
            ("edge-01", 5, "edge"),
            ("-edge--01-", 63, "edge--01"),
            ("edge.example.com", 9, "edge-exam"),
            ("edge.example.com", 5, "edge"),
            ("Edge_ÄÖ.1", 63, "edge----1"),
            ("İx", 63, "i-x"),
            ("---", 63, ""),
            ("", 63, ""),
            ("edge", 0, ""),
        ] {
            assert_eq!(readable(text, max), kept, "{text}");
        }
    }

    fn valid(name: &str) -> bool {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        name.len() <= MAX
            && ends(name.chars().next())
            && ends(name.chars().last())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }

    #[test]
    fn any_input_gives_a_dns_label() {
        let long = "a.b".repeat(84);
        for op in ["upgrade", "upgrade-to-v3-5-0-fleet-europe-west", "a.b", long.as_str(), "x"] {
            for node in ["n1", "edge-01.rack.example.com", long.as_str(), "1.2.3.4", ""] {
                for kind in ["", "reboot", "preflight", "facts"] {
                    let name = object((op, "uid"), node, kind, 0);
                    assert!(valid(&name), "{name}");
                }
            }
        }
    }

    #[test]
    fn whatever_differs_gives_another_name() {
        let base = object(("op", "uid"), "n1", "", 0);
        assert_eq!(base, object(("op", "uid"), "n1", "", 0));
        let others = [
            object(("op", "uid2"), "n1", "", 0),
            object(("op", "uid"), "n2", "", 0),
            object(("op", "uid"), "n1", "reboot", 0),
            object(("op", "uid"), "n1", "", 1),
        ];
        assert!(others.iter().all(|other| *other != base), "{base} {others:?}");
        let (a, b) = ("a".repeat(250) + "x", "a".repeat(250) + "y");
        assert_ne!(object(("op", "uid"), &a, "", 0), object(("op", "uid"), &b, "", 0));
    }

    #[test]
    fn each_attempt_is_known_by_its_name() {
        let op = ("op", "uid");
        for kind in ["", "reboot", "preflight"] {
            let known = |number| attempt(op, "n1", kind, &object(op, "n1", kind, number));
            assert_eq!(
                [known(0), known(MAX_ATTEMPTS), known(MAX_ATTEMPTS + 1)],
                [Some(0), Some(MAX_ATTEMPTS), None]
            );
            let others = ["op-n1-x7k2q".to_owned(), "reboot".to_owned(), object(op, "n1", "facts", 0)];
            assert!(others.iter().all(|name| attempt(op, "n1", kind, name).is_none()));
        }
        assert_eq!(attempt(op, "n1", "", &object(op, "n1", "reboot", 0)), None);
    }

    #[test]
    fn no_two_nodes_and_no_two_nodeops_share_an_account() {
        let of = |name: &str, uid: &str, node: &str| accounts((name, uid), node);
        let one = of("mydb", "uid", "n1");
        let others = [of("mydb", "made-again", "n1"), of("mydb", "uid", "n2")].concat();
        assert!(one.iter().all(|name| name.starts_with("mydb-n1-") && !others.contains(name)), "{one:?}");
        assert!(one.len() == ACCOUNTS && one[0] != one[1] && one == of("mydb", "uid", "n1"));
        // Two nodes whose names differ where the readable part is cut off.
        let long = |end: &str| "a".repeat(250) + end;
        assert_ne!(of("mydb", "uid", &long("x"))[0], of("mydb", "uid", &long("y"))[0]);
        for name in ["a".repeat(253), "a.".repeat(126) + "b", "x".into()] {
            for node in [long("x"), "edge-01.rack.example.com".into(), "1.2.3.4".into()] {
                for account in of(&name, "uid", &node) {
                    assert!(valid(&account) && account.ends_with("-reboot"), "{account}");
                }
            }
        }
    }
}
