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
        matches!(self.kind, Some(Output::Json | Output::Yaml | Output::Name))
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

    /// Prints any value as JSON or YAML.
    pub fn value(&self, value: &Value, screen: &Screen) -> Result<()> {
        screen.raw(&if self.kind == Some(Output::Json) { json_text(value) } else { yaml_text(value)? })
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
