//! The page on the states of a node: the planner's own table, with a diagram in the language of Mermaid.

use std::fmt::Write;

use crate::plan::node::stage::{Stage, TRANSITIONS};

const HEAD: &str = "# States of a node

Every way that a node can take through an operation. A test holds every status that the operator plans against this
table. `status.nodeStatuses` shows a stage in the fields `phase` and `step`; an entry with `givenUp` is being given up,
whatever its step.

```mermaid
stateDiagram-v2
    [*] --> Pending
";

/// The page, without the header of generated files.
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    for (from, to, _) in TRANSITIONS {
        let _ = writeln!(text, "    {from} --> {to}");
    }
    text.push_str("    Completed --> [*]\n    Failed --> [*]\n```\n\n");
    text.push_str("| stage | what it means | what ends it |\n|---|---|---|\n");
    for stage in Stage::ALL {
        let ways = TRANSITIONS.iter().filter(|(from, ..)| *from == stage);
        let ends: Vec<String> = ways.map(|(_, to, when)| format!("{to}: {when}")).collect();
        let ends = if ends.is_empty() { "nothing: it is final".to_owned() } else { ends.join("<br>") };
        let _ = writeln!(text, "| {stage} | {} | {ends} |", stage.meaning());
    }
    text
}
