//! `-o`: which form an answer has.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    failure::{Failure, Result},
    operation::Operation,
    screen::Screen,
};

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Kyaml,
    Name,
}

/// How the answer is to be printed.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// The form of the answer
    #[arg(short = 'o', long = "output", id = "output", value_enum, value_name = "FORM")]
    pub kind: Option<Output>,
    /// Tables without their heading
    #[arg(long)]
    pub no_headers: bool,
}

impl OutputArgs {
    /// Whether objects are asked for, of which there may be none.
    pub fn is_object(&self) -> bool {
        matches!(self.kind, Some(Output::Json | Output::Yaml | Output::Kyaml | Output::Name))
    }

    pub fn is_wide(&self) -> bool {
        self.kind == Some(Output::Wide)
    }

    /// Prints operations as the objects that they are; several are a list, as with kubectl.
    pub fn objects(&self, all: &[Operation], one: bool, screen: &Screen) -> Result<()> {
        if self.kind == Some(Output::Name) {
            let name = |operation: &Operation| format!("{}/{}\n", operation.kind.resource(), operation.name);
            return screen.raw(&all.iter().map(name).collect::<String>());
        }
        let objects: Vec<&Value> = all.iter().map(|operation| &operation.object).collect();
        self.value(&if one { json!(objects[0]) } else { list(&json!(objects)) }, screen)
    }

    /// Prints any value as JSON, KYAML or YAML.
    pub fn value(&self, value: &Value, screen: &Screen) -> Result<()> {
        screen.raw(&match self.kind {
            Some(Output::Json) => json_text(value),
            Some(Output::Kyaml) => format!("---\n{}\n", kyaml(value, 0)),
            None | Some(Output::Yaml | Output::Table | Output::Wide | Output::Name) => yaml_text(value)?,
        })
    }
}

fn list(items: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A value as YAML.
pub fn yaml_text(value: &Value) -> Result<String> {
    let text =
        serde_saphyr::to_string(value).map_err(|error| Failure::new(format!("writing YAML: {error}")))?;
    Ok(if text.ends_with('\n') { text } else { format!("{text}\n") })
}

/// A value as KYAML: YAML in which indentation means nothing and no word is taken for something else, since
/// there are brackets around all that is nested and quotes around all text (KEP-5295).
fn kyaml(value: &Value, depth: usize) -> String {
    let (outer, inner) = ("  ".repeat(depth), "  ".repeat(depth + 1));
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Object(fields) if fields.is_empty() => "{}".into(),
        Value::Object(fields) => {
            let line = |(name, value): (&String, &Value)| {
                format!("{inner}{}: {},\n", key(name), kyaml(value, depth + 1))
            };
            format!("{{\n{}{outer}}}", fields.iter().map(line).collect::<String>())
        }
        // Brackets of what is nested in a list stand together with the list's own.
        Value::Array(items) if items.iter().all(|item| item.is_object() || item.is_array()) => {
            let items: Vec<_> = items.iter().map(|item| kyaml(item, depth)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Array(items) => {
            let line = |item| format!("{inner}{},\n", kyaml(item, depth + 1));
            format!("[\n{}{outer}]", items.iter().map(line).collect::<String>())
        }
    }
}

/// A key, in quotes if any reader of YAML could take it for something else.
fn key(name: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !WORDS.contains(&name.to_ascii_lowercase().as_str());
    if plain { name.to_owned() } else { quoted(name) }
}

/// Text in quotes, in one line, with all that is not printed or ends a line for some reader as its number.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kyaml_is_yaml_with_brackets_around_all_that_is_nested_and_quotes_around_all_text() {
        let value = json!({
            "kind": "NodeOp", "paused": false, "generation": -3, "none": null, "no": "no", "1": {}, "a b": [],
            "labels": {"kairos.io/managed": "true", "~": "\"\\"}, "args": ["-c", "a: b\n\t# c"],
            "conditions": [{"type": "Ready"}, {"status": [["x"]]}],
        });
        let text = "{
  \"1\": {},
  \"a b\": [],
  args: [
    \"-c\",
    \"a: b\\n\\t# c\",
  ],
  conditions: [{
    type: \"Ready\",
  }, {
    status: [[
      \"x\",
    ]],
  }],
  generation: -3,
  kind: \"NodeOp\",
  labels: {
    kairos.io/managed: \"true\",
    \"~\": \"\\\"\\\\\",
  },
  \"no\": \"no\",
  none: null,
  paused: false,
}";
        assert_eq!(kyaml(&value, 0), text);
        assert_eq!(serde_saphyr::from_str::<Value>(&kyaml(&value, 0)).unwrap(), value);
    }

    #[test]
    fn any_text_is_read_back_from_kyaml_as_it_was() {
        for text in [
            "",
            " ",
            "null",
            "1e3",
            "0x1f",
            "é\u{1f600}",
            "\0\u{7f}\u{85}\u{2028}\u{feff}\u{ffff}\r\n",
            "'",
            "%a",
            "- b",
        ] {
            let value = json!({text: [text, [text], {text: text}], "on": text});
            let read = serde_saphyr::from_str::<Value>(&format!("---\n{}\n", kyaml(&value, 0)));
            assert_eq!(read.unwrap(), value, "{text:?}");
        }
    }
}
