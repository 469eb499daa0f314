//! `status -w`: what changes, as it changes. On a terminal the tree is drawn over itself, with a bar;
//! elsewhere there is a line for each change.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    super::{
        connection::Connection,
        failure::{Code, Failure, Result},
        follow::{Scope, follow},
        nodes_seen,
        operation::Operation,
        screen::Screen,
        time,
    },
    tree::{self, Look},
};
use crate::api::{nodeop::Phase, text::one_line};

/// How often relative times are told anew.
const TICK: Duration = Duration::from_secs(1);
/// Rows of a terminal that are no nodes: the bar, headings, the prompt.
const OTHER_ROWS: usize = 6;

/// How many nodes that failed are told about in whole at the end.
const FAILURES: usize = 3;

/// Shows changes until what is followed is over.
pub async fn run(connection: &Connection, screen: &Screen, scope: &Scope, namespaces: bool) -> Result<Code> {
    let look = Look {
        now: Timestamp::now(),
        control_planes: nodes_seen::control_planes(connection).await,
        namespaces,
        whole: matches!(scope, Scope::One { .. }),
        rows: Some(
            screen.rows.map_or(tree::MOST, |rows| rows.saturating_sub(OTHER_ROWS).clamp(3, tree::MOST)),
        ),
    };
    let mut view = View::new(screen, look);
    let mut changes = pin!(follow(connection, scope));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut watched = Watched::default();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(all)) => {
                    view.changed(&all)?;
                    if let Some(code) = watched.see(&all, scope)? {
                        view.close(&all)?;
                        return Ok(code);
                    }
                }
                Some(Err(failure)) => return Err(failure),
                None => return Err(Failure::new("the watch has ended")),
            },
            _ = tick.tick() => view.tick(),
        }
    }
}

/// What has been seen of the operations that are followed.
#[derive(Debug, Default)]
pub struct Watched {
    /// Those that were not over when they were first seen: whether each has failed since.
    open: BTreeMap<String, Option<bool>>,
    seen: bool,
}

impl Watched {
    /// Takes the next state; says how it ended, once all are over.
    pub fn see(&mut self, all: &[Operation], scope: &Scope) -> Result<Option<Code>> {
        if let Scope::One { kind, namespace, name } = scope
            && all.is_empty()
        {
            let what = if self.seen { "was deleted" } else { "is not there any more" };
            return Err(Failure::new(format!("{kind} {namespace}/{name} {what}")));
        }
        self.seen = true;
        for operation in all {
            let known = self.open.get_mut(&operation.uid);
            match known {
                Some(end) => *end = operation.is_over().then(|| operation.has_failed()),
                None if !operation.is_over() || matches!(scope, Scope::One { .. }) => {
                    let end = operation.is_over().then(|| operation.has_failed());
                    self.open.insert(operation.uid.clone(), end);
                }
                None => {}
            }
        }
        // What is deleted does not keep anybody waiting.
        self.open.retain(|uid, end| end.is_some() || all.iter().any(|operation| operation.uid == *uid));
        let failed = self.open.values().any(|end| *end == Some(true));
        let over = self.open.values().all(Option::is_some);
        Ok(over.then_some(if failed { Code::Failed } else { Code::Done }))
    }
}

/// Where changes are shown.
struct View<'a> {
    screen: &'a Screen,
    look: Look,
    all: Vec<Operation>,
    drawn: Option<Drawn>,
    told: Told,
}

impl<'a> View<'a> {
    fn new(screen: &'a Screen, look: Look) -> Self {
        let drawn = screen.rows.map(|_| Drawn::new());
        Self { screen, look, all: Vec::new(), drawn, told: Told::default() }
    }

    fn changed(&mut self, all: &[Operation]) -> Result<()> {
        self.all = all.to_vec();
        if self.drawn.is_some() {
            self.tick();
            return Ok(());
        }
        let lines = self.told.changes(all, Timestamp::now(), self.look.namespaces);
        lines.iter().try_for_each(|line| self.screen.line(line))
    }

    /// Time passed.
    fn tick(&mut self) {
        self.look.now = Timestamp::now();
        if let Some(drawn) = &self.drawn {
            drawn.draw(&self.all, &self.look, self.screen);
        }
    }

    /// It is over: what is drawn is replaced by what stays.
    fn close(&mut self, all: &[Operation]) -> Result<()> {
        let Some(drawn) = self.drawn.take() else { return Ok(()) };
        drawn.clear();
        self.look.now = Timestamp::now();
        self.look.rows = Some(tree::MOST);
        tree::lines(all, &self.look, self.screen).iter().try_for_each(|line| self.screen.line(line))?;
        failures(all).iter().try_for_each(|why| self.screen.raw(&format!("{why}\n")))
    }
}

/// Why the first nodes failed, in whole: the tree is cut to the terminal's width, and what matters most then
/// is what a narrow one leaves out. Nothing is drawn over it any more, so the terminal may wrap it.
fn failures(all: &[Operation]) -> Vec<String> {
    let failed = |operation: &Operation| {
        let failed = operation.nodes.iter().filter(|(_, node)| node.phase == Phase::Failed);
        let lines = failed.filter_map(|(name, node)| Some((name.clone(), node.message.clone()?)));
        lines.take(FAILURES).collect::<Vec<_>>()
    };
    let lines = all.iter().filter(|operation| operation.has_failed()).flat_map(failed);
    lines.map(|(node, why)| format!("{node}: {}", one_line(&why))).collect()
}

/// A bar and the tree below it, drawn over themselves.
struct Drawn {
    place: MultiProgress,
    bar: ProgressBar,
    tree: ProgressBar,
}

impl Drawn {
    fn new() -> Self {
        let place = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let bar = place.add(ProgressBar::new(0));
        let style = ProgressStyle::with_template("{spinner} {bar:20} {pos}/{len} nodes")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("█▓░").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        bar.enable_steady_tick(TICK / 8);
        let tree = place.add(ProgressBar::new(0));
        tree.set_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self { place, bar, tree }
    }

    fn draw(&self, all: &[Operation], look: &Look, screen: &Screen) {
        // What was over before has no part in what moves; at the end all is over.
        let moves = all.iter().any(|operation| !operation.is_over());
        let open = all.iter().filter(|operation| !moves || !operation.is_over());
        let count = |number: i32| u64::try_from(number).unwrap_or(0);
        let (done, total) = open.fold((0, 0), |(done, total), operation| {
            let counts = &operation.counts;
            (done + count(counts.completed) + count(counts.failed), total + count(counts.total))
        });
        self.bar.set_length(total);
        self.bar.set_position(done);
        let lines = tree::lines(all, look, screen);
        let lines: Vec<String> = lines.iter().map(|line| screen.cut(line)).collect();
        self.tree.set_message(lines.join("\n"));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
        self.tree.finish_and_clear();
        // A terminal that has gone needs no clearing.
        let _ = self.place.clear();
    }
}

/// What has been told already, so that only what changed is told.
#[derive(Debug, Default)]
pub struct Told {
    /// Phase, nodes that are done, and message, by UID.
    operations: BTreeMap<String, (String, String, String)>,
    /// State and message, by UID and node.
    nodes: BTreeMap<(String, String), (String, String)>,
}

impl Told {
    /// A line for each change since the last time.
    pub fn changes(&mut self, all: &[Operation], now: Timestamp, namespaces: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for operation in all {
            let place = if namespaces { format!("{}/", operation.namespace) } else { String::new() };
            let name = format!("{place}{}", operation.short());
            for (node, status) in &operation.nodes {
                let next = (tree::state(status), status.message.clone().unwrap_or_default());
                let key = (operation.uid.clone(), node.clone());
                if self.nodes.get(&key) != Some(&next) {
                    lines.push(columns(&[&name, node, &next.0, &time::relative(now, &next.1)]));
                    self.nodes.insert(key, next);
                }
            }
            let done = operation.counts.done.clone();
            let next = (operation.phase_word(), done, operation.message.clone());
            if self.operations.get(&operation.uid) != Some(&next) {
                lines.push(columns(&[&name, &next.0, &next.1, &time::relative(now, &next.2)]));
                self.operations.insert(operation.uid.clone(), next);
            }
        }
        lines
    }
}

/// What there is to say, with two spaces between.
fn columns(parts: &[&str]) -> String {
    let said: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    said.join("  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::nodeop::NodeOp;

    #[test]
    fn at_the_end_the_first_nodes_that_failed_say_why_in_whole() {
        let long = format!("Job failed: {}", "no space left ".repeat(40));
        let entry = |phase: &str, message: &str| json!({"phase": phase, "message": message});
        let of = |phase: &str| {
            let nodes = json!({"n1": entry("Completed", "done"), "n2": entry("Failed", &long), "n3": entry("Failed", "b\nc"),
                "n4": entry("Failed", "d"), "n5": entry("Failed", "e")});
            let op: NodeOp =
                serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "ns", "uid": "u"},
                "spec": {}, "status": {"phase": phase, "message": "m", "nodeStatuses": nodes}}))
                .unwrap();
            Operation::of_op(&op)
        };
        let said = failures(&[of("Failed")]);
        assert_eq!(said, [format!("n2: {}", long.trim_end()), "n3: b c".into(), "n4: d".into()]);
        assert_eq!(failures(&[of("Running")]), Vec::<String>::new(), "it may still be repaired");
    }
}
