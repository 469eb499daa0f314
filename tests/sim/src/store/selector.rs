//! Label and field selectors.

use std::borrow::Cow;

use serde_json::Value;

use super::Topic;
use crate::{
    json,
    server::error::{ApiError, ApiResult},
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

/// Which objects of a table a request is about.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// Only this namespace.
    pub namespace: Option<String>,
    labels: Vec<(String, Test)>,
    fields: Vec<(Field, Test)>,
}

/// A field, parsed once: each change of any object is held against the selectors of all watches.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    path: Vec<String>,
}

impl Field {
    fn of(name: String) -> Self {
        Self { path: name.split('.').map(str::to_owned).collect(), name }
    }

    fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        match self.path.iter().try_fold(object, |value, part| value.get(part)) {
            Some(Value::String(text)) => text.into(),
            Some(Value::Null) | None if self.name == "spec.unschedulable" => "false".into(),
            Some(Value::Null) | None => "".into(),
            Some(other) => other.to_string().into(),
        }
    }
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector` of a request.
    pub fn parse(namespace: Option<&str>, labels: &str, fields: &str) -> ApiResult<Self> {
        let labels: Vec<(String, Test)> =
            split(labels).into_iter().map(|term| label_term(&term)).collect::<ApiResult<_>>()?;
        check_labels(&labels)?;
        let field = |term: String| field_term(&term).map(|(name, test)| (Field::of(name), test));
        let fields = split(fields).into_iter().map(field).collect::<ApiResult<_>>()?;
        Ok(Self { namespace: namespace.map(str::to_owned), labels, fields })
    }

    /// Reads a `LabelSelector` object; one that is absent selects nothing, an empty one everything.
    pub fn of_object(selector: Option<&Value>) -> Option<Self> {
        let selector = selector?;
        let equal = json::map(selector, "/matchLabels").into_iter().flatten();
        let mut labels: Vec<(String, Test)> = equal
            .map(|(k, v)| (k.clone(), Test::In(vec![v.as_str().unwrap_or_default().to_owned()])))
            .collect();
        for term in json::list(selector, "/matchExpressions") {
            let values = json::texts(term, "/values").map(str::to_owned).collect();
            let test = match json::text(term, "/operator") {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                _ => Test::Absent,
            };
            labels.push((json::text(term, "/key").to_owned(), test));
        }
        Some(Self { namespace: None, labels, fields: Vec::new() })
    }

    /// The name, if the fields say `metadata.name=…`. Authorization of a list by name rests on it.
    pub fn name(&self) -> Option<&str> {
        self.fields.iter().find_map(|(field, test)| match test {
            Test::In(values) if field.name == "metadata.name" => values.first().map(String::as_str),
            Test::In(_) | Test::NotIn(_) | Test::Exists | Test::Absent => None,
        })
    }

    /// What of a table it is about, if that can be told of a change without a look at all that is selected.
    pub fn topic(&self) -> Option<Topic> {
        let mut equal = self.fields.iter().filter_map(|(field, test)| match test {
            Test::In(values) => Some((field.name.as_str(), values.first()?)),
            Test::NotIn(_) | Test::Exists | Test::Absent => None,
        });
        equal.find_map(|(field, value)| match field {
            "metadata.name" => Some(Topic::Name(value.clone())),
            "spec.nodeName" => Some(Topic::Node(value.clone())),
            _ => None,
        })
    }

    /// The fields that are asked for, so that unsupported ones can be refused.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(field, _)| field.name.as_str())
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let metadata = |of: &str| object.get("metadata").and_then(|metadata| metadata.get(of));
        let namespace = || metadata("namespace").and_then(Value::as_str).unwrap_or_default();
        self.fields.iter().all(|(field, test)| test.passes(Some(&field.value(object))))
            && self.namespace.as_ref().is_none_or(|ns| ns == namespace())
            && self.matches_labels(metadata("labels"))
    }

    /// Whether a map of labels is selected.
    pub fn matches_labels(&self, labels: Option<&Value>) -> bool {
        self.labels
            .iter()
            .all(|(key, test)| test.passes(labels.and_then(|l| l.get(key)).and_then(Value::as_str)))
    }
}

/// Refuses what no label can be.
fn check_labels(terms: &[(String, Test)]) -> ApiResult<()> {
    let fits = |text: &str| !text.contains(char::is_whitespace);
    for (key, test) in terms {
        let values = match test {
            Test::In(values) | Test::NotIn(values) => values.as_slice(),
            Test::Exists | Test::Absent => &[],
        };
        if let Some(odd) = [key].into_iter().chain(values).find(|text| !fits(text)) {
            return Err(ApiError::bad_request(format!("unable to parse requirement: {odd:?}")));
        }
    }
    Ok(())
}

/// Splits at commas that are not within parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut terms, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match (c, depth, terms.last_mut()) {
            (',', 0, _) => terms.push(String::new()),
            (_, _, Some(term)) => term.push(c),
            (_, _, None) => {}
        }
    }
    terms.iter().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()
}

fn label_term(term: &str) -> ApiResult<(String, Test)> {
    let set = |rest: &str| -> ApiResult<Vec<String>> {
        let inner = rest.trim().strip_prefix('(').and_then(|r| r.strip_suffix(')'));
        let inner =
            inner.ok_or_else(|| ApiError::bad_request(format!("unable to parse requirement: {term}")))?;
        Ok(inner.split(',').map(|v| v.trim().to_owned()).collect())
    };
    if let Some((key, rest)) = term.split_once(" notin ") {
        return Ok((key.trim().into(), Test::NotIn(set(rest)?)));
    }
    if let Some((key, rest)) = term.split_once(" in ") {
        return Ok((key.trim().into(), Test::In(set(rest)?)));
    }
    if let Ok(parsed) = field_term(term) {
        return Ok(parsed);
    }
    Ok(match term.strip_prefix('!') {
        Some(key) => (key.trim().into(), Test::Absent),
        None => (term.into(), Test::Exists),
    })
}

fn field_term(term: &str) -> ApiResult<(String, Test)> {
    if let Some((key, value)) = term.split_once("!=") {
        return Ok((key.trim().into(), Test::NotIn(vec![value.trim().into()])));
    }
    let (key, value) = term.split_once("==").or_else(|| term.split_once('=')).ok_or_else(|| {
        ApiError::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'"))
    })?;
    Ok((key.trim().into(), Test::In(vec![value.trim().into()])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selector;

    #[test]
    fn label_selectors_match_as_kubectl_writes_them() {
        let object = json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}});
        for (text, wanted) in [
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, db),!gone", true),
            ("app notin (web)", false),
            ("tier", true),
            ("gone", false),
            ("gone!=x", true),
        ] {
            assert_eq!(Selector::parse(None, text, "").unwrap().matches(&object), wanted, "{text}");
        }
    }

    #[test]
    fn field_selectors_read_any_path_and_give_the_name() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}});
        let selector = Selector::parse(None, "", "spec.nodeName=n1,metadata.name=a").unwrap();
        assert!(selector.matches(&object));
        assert_eq!(selector.name(), Some("a"));
        assert!(!Selector::parse(None, "", "spec.nodeName!=n1").unwrap().matches(&object));
    }
}
