//! YAML that a YAML 1.1 reader (every Kubernetes server and kubectl) takes as it was meant.

use anyhow::Context;
use serde::Serialize;
use serde_json::{Number, Value};

/// One document. The writer quotes what YAML 1.1 would take for a boolean or a number (`on`, `no`, `1_000`).
pub(super) fn document<T: Serialize>(object: &T) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(object).context("serializing a manifest")?;
    whole_numbers(&mut value);
    let options = serde_saphyr::ser_options! { yaml_12: false, prefer_block_scalars: false };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, &value, options).context("writing YAML")?;
    Ok(text)
}

/// A schema's bounds are floats in k8s-openapi; `minimum: 0.0` would differ from what a server gives back.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(float) = whole {
                #[expect(clippy::cast_possible_truncation, reason = "whole, and below what an i64 holds")]
                let whole = float as i64;
                *number = Number::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_that_yaml_1_1_reads_as_something_else_are_quoted() {
        for text in [
            "on",
            "off",
            "y",
            "n",
            "yes",
            "No",
            "~",
            "null",
            "0x1f",
            "017",
            "0o17",
            "1_000",
            "12:30:45",
            "1e3",
            ".5",
            "",
            "2026-01-01",
            "=",
        ] {
            let document = document(&json!({ "a": text })).unwrap();
            assert!(
                document.contains(&format!("a: \"{text}\"")) || document.contains(&format!("a: '{text}'")),
                "{document}"
            );
        }
    }

    #[test]
    fn bounds_are_whole_numbers() {
        assert_eq!(
            document(&json!({ "minimum": 0.0, "maximum": 1.5, "least": -1.0 })).unwrap(),
            "least: -1\nmaximum: 1.5\nminimum: 0\n"
        );
    }
}
