//! Where a verb writes: how wide that is, whether it has colours, whether it can be drawn over.
//!
//! On a terminal a line is cut with `…` and never wrapped. What is piped is whole, unless COLUMNS says how
//! wide its reader is.

use std::io::{self, IsTerminal, Write};

use console::{Style, Term};

use super::failure::Result;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Moving,
    Faint,
}

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    /// Columns, if lines are to be cut.
    pub width: Option<usize>,
    /// Rows, if it can be drawn over.
    pub rows: Option<usize>,
    colour: bool,
}

impl Screen {
    /// Standard output as the environment says it is.
    pub fn stdout(color: Color) -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let size = terminal.then(|| Term::stdout().size());
        // https://no-color.org: present and not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !dumb && !plain,
        };
        Self {
            width: size.map(|(_, columns)| usize::from(columns)).or(columns).filter(|width| *width > 0),
            rows: size.map(|(rows, _)| usize::from(rows)).filter(|_| !dumb),
            colour,
        }
    }

    /// A line, cut to the width.
    pub fn line(&self, text: &str) -> Result<()> {
        Ok(writeln!(io::stdout().lock(), "{}", self.cut(text))?)
    }

    /// Text as it is: an object, or what somebody else wrote.
    pub fn raw(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// As much of a line as there is room for.
    pub fn cut(&self, text: &str) -> String {
        self.width.map_or_else(|| text.to_owned(), |width| cut(text, width))
    }

    /// Text in the colour of its meaning.
    pub fn tint(&self, tone: Tone, text: &str) -> String {
        let style = Style::new().force_styling(self.colour);
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => style.green(),
            Tone::Bad => style.red(),
            Tone::Moving => style.yellow(),
            Tone::Faint => style.dim(),
        };
        style.apply_to(text).to_string()
    }
}

/// As much of `text` as fits into `width` columns, with `…` at the end if that is not all of it. Colours take
/// no room.
pub fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

/// How many columns a text takes.
pub fn columns(text: &str) -> usize {
    console::measure_text_width(text)
}

/// `text`, with spaces up to `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}
