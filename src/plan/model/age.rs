//! In which order objects were created. Those of one second, as of a restore, by namespace and name, in which
//! numbers count as such: `to-3-9` comes before `to-3-10`.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

/// What orders an object among those of its kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age<'a> {
    created: Option<Timestamp>,
    namespace: Option<&'a String>,
    parts: Vec<Part<'a>>,
    /// Which tells `to-3-9` from `to-3-09`.
    name: &'a str,
}

/// A part of a name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    /// How many digits it has, without zeros before it, and which: a longer number is a larger one.
    Number(usize, &'a str),
    Text(&'a str),
}

/// When an object was created, and what tells it from others of that second.
pub fn age(meta: &ObjectMeta) -> Age<'_> {
    let name = meta.name.as_deref().unwrap_or_default();
    let created = meta.creation_timestamp.as_ref().map(|time| time.0);
    Age { created, namespace: meta.namespace.as_ref(), parts: parts(name), name }
}

fn parts(name: &str) -> Vec<Part<'_>> {
    let (mut rest, mut parts) = (name, Vec::new());
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let digits = part.trim_start_matches('0');
        parts.push(if is_number { Part::Number(digits.len(), digits) } else { Part::Text(part) });
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn objects_of_one_second_are_in_the_order_of_the_numbers_in_their_names() {
        let meta = |second: i64, namespace: &str, name: &str| ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            creation_timestamp: Some(Time(Timestamp::from_second(second).unwrap())),
            ..ObjectMeta::default()
        };
        let ordered = [
            meta(0, "b", "z"),
            meta(1, "a", ""),
            meta(1, "a", "kairos-v3.9.0"),
            meta(1, "a", "kairos-v3.10.0"),
            meta(1, "a", "to-3-09"),
            meta(1, "a", "to-3-9"),
            meta(1, "a", "to-3-9-b"),
            meta(1, "a", "to-3-10"),
            meta(1, "a", "to-123456789012345678901234567890"),
            meta(1, "b", "a"),
        ];
        for (one, other) in ordered.iter().zip(&ordered[1..]) {
            assert!(age(one) < age(other), "{one:?} {other:?}");
        }
    }
}
