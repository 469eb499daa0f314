//! How a story is shown: on a terminal a bar and a line per node, drawn over itself; elsewhere a line per
//! change.

use std::io::{IsTerminal, Write};

use super::story::{NodeStory, Story};

/// What puts a terminal back as it was: the cursor shows, long lines wrap.
pub fn restore() -> &'static str {
    if std::io::stdout().is_terminal() { "\x1b[?25h\x1b[?7h" } else { "" }
}

const BAR: usize = 40;

/// Where it is shown.
#[derive(Debug)]
pub struct View {
    terminal: bool,
    drawn: usize,
}

impl View {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0 }
    }

    /// Something changed.
    pub fn changed(&mut self, story: &Story, lines: &[String]) {
        if self.terminal {
            return self.draw(story);
        }
        for line in lines {
            println!("{line}");
        }
    }

    /// Time passed.
    pub fn tick(&mut self, story: &Story) {
        if self.terminal && !story.nodes.is_empty() {
            self.draw(story);
        }
    }

    /// Nothing more will be drawn.
    pub fn close(&mut self, story: &Story) {
        if self.terminal {
            self.draw(story);
            print!("{}", restore());
        }
    }

    fn draw(&mut self, story: &Story) {
        let lines = frame(story);
        let mut text = String::from("\x1b[?25l\x1b[?7l");
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        let mut out = std::io::stdout().lock();
        // A terminal that went away is no reason to stop.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// The bar and the nodes' lines.
fn frame(story: &Story) -> Vec<String> {
    let (done, all) = story.done();
    let full = (BAR * done).checked_div(all).unwrap_or_default();
    let bar: String = "█".repeat(full) + &"░".repeat(BAR - full);
    let mut lines = vec![format!("{bar} {done}/{all}  {:.0} s", story.elapsed().as_secs_f64())];
    lines.extend(story.nodes.iter().map(|(name, node)| line(story, name, node)));
    lines
}

fn line(story: &Story, name: &str, node: &NodeStory) -> String {
    let (mark, colour) = match node.phase.as_str() {
        "Completed" => ("✓", 32),
        "Failed" => ("✗", 31),
        "Running" | "Preflight" => ("●", 33),
        _ => ("·", 90),
    };
    let time =
        node.time(story.elapsed()).map(|time| format!("{:.1} s", time.as_secs_f64())).unwrap_or_default();
    let role = if story.control_planes.contains(name) { "control plane" } else { "" };
    let step = if node.step.is_empty() { &node.phase } else { &node.step };
    format!("\x1b[{colour}m{mark} {name:<4}\x1b[0m {role:<13} {step:<10} {time:>7}  {}", node.message)
}
