//! A plan, printed: a row for each node in the order of their turns, and what stands in the way.

use serde_json::{Value, json};

use super::{
    super::{
        failure::Result,
        make::Admission,
        nodes_seen::counted,
        output::OutputArgs,
        screen::{Screen, Tone},
        table::Table,
        time,
    },
    Plan, preview,
};
use crate::{api::names, plan::model::snapshot::NodeView};
use k8s_openapi::jiff::Timestamp;

/// Nodes that are listed, unless all are asked for.
const MOST: usize = 50;

/// One node's row.
struct Row {
    turn: String,
    node: String,
    what: String,
    tone: Tone,
}

/// Prints the plan.
pub fn print(plan: &Plan, output: &OutputArgs, screen: &Screen) -> Result<()> {
    if !output.no_headers {
        screen.line(format!("{}  {}", plan.name, plan.what).trim_end())?;
    }
    if let Some(Admission::Refused(why)) = &plan.admission {
        screen.line(&screen.tint(Tone::Bad, &screen.cut(&format!("refused: {why}"))))?;
    }
    let now = Timestamp::now();
    match &plan.preview.none {
        Some(why) => screen.line(&time::relative(now, why))?,
        None => nodes(plan, output, screen, now)?,
    }
    for (node, drain) in &plan.drains {
        let left = if output.is_wide() { drain.left.as_slice() } else { &[] };
        let reasons = [
            ("blocked", drain.blocked.as_slice(), Tone::Bad),
            ("refused", &drain.refused, Tone::Bad),
            ("left", left, Tone::Plain),
        ];
        for (word, pods, tone) in reasons {
            for pod in pods {
                let line = format!("{word}: {node}: {}: {}", pod.pod, pod.reason);
                screen.line(&screen.tint(tone, &screen.cut(&line)))?;
            }
        }
    }
    for note in &plan.notes {
        screen.line(&format!("note: {note}"))?;
    }
    let (word, tone) = verdict(plan);
    screen.line(&screen.tint(tone, &screen.cut(&word)))
}

fn nodes(plan: &Plan, output: &OutputArgs, screen: &Screen, now: Timestamp) -> Result<()> {
    let rows = rows(plan, now);
    let most = if output.is_wide() { usize::MAX } else { MOST };
    let shown: Vec<&Row> = rows.iter().take(most).collect();
    let node = |row: &Row| plan.nodes.get(&row.node);
    let role =
        |row: &Row| node(row).filter(|node| node.has_control_plane_label()).map_or("", |_| "control plane");
    let release =
        |node: &NodeView| node.annotations.get(names::RELEASE).filter(|text| !text.is_empty()).cloned();
    let mut table = Table::new(&["TURN", "NODE"]);
    shown.iter().for_each(|row| table.row([row.turn.clone(), row.node.clone()]));
    // Where all are workers, or nothing is known of releases, a column would say nothing.
    if shown.iter().any(|row| !role(row).is_empty()) && screen.width.is_none_or(|width| width >= 60) {
        table.column("ROLE", shown.iter().map(|row| role(row).to_owned()));
    }
    if shown.iter().any(|row| node(row).and_then(release).is_some())
        && screen.width.is_none_or(|width| width >= 80)
    {
        table.column("RELEASE", shown.iter().map(|row| node(row).and_then(release).unwrap_or_default()));
    }
    table.column("WHAT", shown.iter().map(|row| row.what.clone()));
    let heading = usize::from(!output.no_headers);
    for (at, line) in table.lines(screen.width, !output.no_headers).iter().enumerate() {
        let tone = at.checked_sub(heading).and_then(|at| shown.get(at)).map_or(Tone::Plain, |row| row.tone);
        screen.line(&screen.tint(tone, line))?;
    }
    let more = rows.len() - shown.len() + plan.preview.more;
    if more > 0 {
        screen.line(&format!("… and {more} more (-o wide shows all)"))?;
    }
    Ok(())
}

fn rows(plan: &Plan, now: Timestamp) -> Vec<Row> {
    let row =
        |turn: &str, node: &str, what: String, tone| Row { turn: turn.into(), node: node.into(), what, tone };
    let preview = &plan.preview;
    let mut rows = Vec::new();
    rows.extend(preview.under_way.iter().map(|node| row("now", node, "under way".into(), Tone::Moving)));
    for (at, turn) in preview.turns.iter().enumerate() {
        let turn_of = (at + 1).to_string();
        rows.extend(turn.iter().map(|node| {
            let blocked = plan.drains.get(node).is_some_and(super::DrainPreview::is_blocked);
            row(&turn_of, node, drain(plan, node), if blocked { Tone::Bad } else { Tone::Plain })
        }));
    }
    let waits = preview.waits.iter();
    rows.extend(waits.map(|(node, why)| row("-", node, time::relative(now, why), Tone::Moving)));
    let skipped = preview.skipped.iter();
    rows.extend(skipped.map(|(node, why)| row("-", node, format!("will be skipped: {why}"), Tone::Faint)));
    rows.extend(preview.done.iter().map(|node| row("-", node, "done".into(), Tone::Faint)));
    rows
}

/// What a drain would do to a node.
fn drain(plan: &Plan, node: &str) -> String {
    let Some(drain) = plan.drains.get(node) else { return String::new() };
    let parts = [
        (drain.blocked.len(), "blocked"),
        (drain.refused.len(), "refused"),
        (drain.evicted.len(), "evicted"),
        (drain.ending.len(), "ending"),
        (drain.left.len(), "left"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    match (parts.is_empty(), &drain.not_tried) {
        (true, Some(_)) => "drain: not known".into(),
        (true, None) => "drain: no pods".into(),
        (false, _) => format!("drain: {}", parts.join(", ")),
    }
}

fn verdict(plan: &Plan) -> (String, Tone) {
    let preview = &plan.preview;
    let taken = preview::taken(preview).len() + preview.more;
    let mut parts = Vec::new();
    if matches!(plan.admission, Some(Admission::Refused(_))) {
        parts.push("the API server refuses it".to_owned());
    }
    if preview.none.is_some() {
        parts.push("no node is chosen".into());
    }
    if !preview.waits.is_empty() {
        parts.push(format!("{} would wait", counted(preview.waits.len())));
    }
    let blocked = plan.drains.values().filter(|drain| drain.is_blocked()).count();
    if blocked > 0 {
        parts.push(format!("the drain of {} would be blocked", counted(blocked)));
    }
    if parts.is_empty() {
        let skipped = preview.skipped.len();
        let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        return (format!("it would run: {}{skipped}", counted(taken)), Tone::Good);
    }
    (format!("it would not run through: {}", parts.join(", ")), Tone::Bad)
}

/// The plan for programs.
pub fn value(plan: &Plan) -> Value {
    let preview = &plan.preview;
    let reasons = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(node, reason)| json!({"node": node, "reason": reason})).collect::<Vec<_>>()
    };
    let refused = match &plan.admission {
        Some(Admission::Refused(why)) => Some(why),
        Some(Admission::Admitted | Admission::NotTried(_)) | None => None,
    };
    json!({
        "kind": plan.kind.to_string(),
        "name": plan.name,
        "blocked": plan.is_blocked(),
        "refused": refused,
        "nodes": preview::total(preview),
        "underWay": preview.under_way,
        "turns": preview.turns,
        "more": preview.more,
        "waits": reasons(&preview.waits),
        "skipped": reasons(&preview.skipped),
        "done": preview.done,
        "none": preview.none,
        "drains": plan.drains,
        "notes": plan.notes,
    })
}
