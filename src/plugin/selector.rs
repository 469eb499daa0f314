//! `-l`: a selector of nodes as kubectl's users write it, `a=b,c!=d,e in (f,g),!h`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Reads a selector; what it says is the API server's to judge.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    for part in split(text) {
        let part = part.trim();
        let wrong = || format!("{part:?} is no part of a selector: write a=b, a!=b, a in (b,c), a or !a");
        let (key, operator, values) = requirement(part).ok_or_else(wrong)?;
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!<>".contains(c)) {
            return Err(wrong());
        }
        if operator == "=" {
            let labels = selector.match_labels.get_or_insert_default();
            let value = values.into_iter().next().unwrap_or_default();
            // All parts of a selector hold at once, and a map has room for one of them.
            if let Some(before) = labels.get(key).filter(|before| **before != value) {
                return Err(format!(
                    "{key} is asked to be both {before} and {value}, which no node is: for either, write {key} in ({before},{value})"
                ));
            }
            labels.insert(key.into(), value);
            continue;
        }
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values).filter(|values| !values.is_empty()),
        });
    }
    if selector == LabelSelector::default() { Err("the selector is empty".into()) } else { Ok(selector) }
}

/// Key, operator and values of one part.
fn requirement(part: &str) -> Option<(&str, &'static str, Vec<String>)> {
    if let Some((key, value)) = part.split_once("!=") {
        return Some((key.trim(), "NotIn", vec![value.trim().into()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some((key.trim(), "=", vec![value.trim().into()]));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.trim_end().strip_suffix(')')?.split(',').map(|value| value.trim().to_owned());
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => "In",
            "notin" => "NotIn",
            _ => return None,
        };
        return Some((key.trim(), operator, values.collect()));
    }
    part.strip_prefix('!')
        .map_or(Some((part, "Exists", Vec::new())), |key| Some((key.trim(), "DoesNotExist", Vec::new())))
}

/// The parts between commas, but for those within parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::selector::describe;

    #[test]
    fn a_selector_reads_as_kubectl_reads_it() {
        for (text, same) in [
            ("a=b", "a=b"),
            (
                "kairos.io/managed==true, zone in (a, b),c!=d",
                "kairos.io/managed=true,zone in (a,b),c notin (d)",
            ),
            ("role notin (x),e,!f", "role notin (x),e,!f"),
            ("a=", "a="),
        ] {
            assert_eq!(parse(text).map(|selector| describe(&selector)), Ok(same.into()), "{text}");
        }
        for text in ["", " ", "a near (b)", "a in (b", "=b", "a,,b", "a b", "a>1", "a<1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// To kubectl all parts hold at once. `matchLabels` has room for one value of a key.
    #[test]
    fn a_label_that_is_asked_to_be_two_things_is_refused_by_its_name() {
        assert_eq!(parse("a=b,c=d,a==b").map(|selector| describe(&selector)), Ok("a=b,c=d".into()));
        let error = parse("a=b,a=c").unwrap_err();
        assert!(error.contains("a is asked to be both b and c"), "{error}");
    }
}
