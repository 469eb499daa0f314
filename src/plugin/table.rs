//! Tables as kubectl prints them: no lines, two spaces between columns, nothing behind the last one.

use super::{
    failure::Result,
    screen::{Screen, columns, cut, pad},
};

/// Spaces between two columns.
const GAP: usize = 2;
/// No column but the last is cut to less than this.
const LEAST: usize = 6;

/// Rows under a heading.
#[derive(Debug, Default)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as there are columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.heading.len());
        self.rows.push(cells.into());
    }

    /// Adds one more column, with a cell for each row.
    pub fn column(&mut self, heading: &'static str, cells: impl IntoIterator<Item = String>) {
        self.heading.push(heading);
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }

    /// Prints it, cut to the screen.
    pub fn print(&self, screen: &Screen, with_heading: bool) -> Result<()> {
        self.lines(screen.width, with_heading).iter().try_for_each(|line| screen.line(line))
    }

    /// Its lines. Where they are wider than the screen the last column is cut, and if that is not enough, so
    /// are the others, the widest first.
    pub fn lines(&self, width: Option<usize>, with_heading: bool) -> Vec<String> {
        let heading: Vec<String> = self.heading.iter().map(|&name| name.to_owned()).collect();
        let rows: Vec<&Vec<String>> =
            with_heading.then_some(&heading).into_iter().chain(&self.rows).collect();
        let mut widths: Vec<usize> = (0..self.heading.len())
            .map(|at| rows.iter().map(|row| columns(&row[at])).max().unwrap_or(0))
            .collect();
        if let Some(width) = width {
            narrow(&mut widths, width);
        }
        rows.into_iter()
            .map(|row| {
                let cells =
                    row.iter().zip(&widths).map(|(cell, width)| pad(&cut(cell, *width), *width + GAP));
                let line = cells.collect::<String>();
                let line = line.trim_end();
                width.map_or_else(|| line.to_owned(), |width| cut(line, width))
            })
            .collect()
    }
}

/// Makes columns narrower until they fit, or can be made no narrower.
fn narrow(widths: &mut [usize], width: usize) {
    let Some((last, others)) = widths.split_last_mut() else { return };
    let over = |others: &[usize], last: usize| {
        (others.iter().map(|width| width + GAP).sum::<usize>() + last).saturating_sub(width)
    };
    *last -= over(others, *last).min(last.saturating_sub(2 * LEAST));
    while over(others, *last) > 0 {
        let Some(widest) = others.iter_mut().max().filter(|widest| **widest > LEAST) else { return };
        *widest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "PHASE", "MESSAGE"]);
        table.row(["up1".into(), "Running".into(), "draining: blocked: default/web for 3s".into()]);
        table.row([
            "ip-10-0-3-17.eu-central-1.compute.internal".into(),
            String::new(),
            "größer als ein Fenster".into(),
        ]);
        table
    }

    #[test]
    fn what_has_room_is_whole_and_ends_without_spaces() {
        let lines = table().lines(None, true);
        assert_eq!(lines[0], format!("NAME{}PHASE    MESSAGE", " ".repeat(40)));
        assert!(lines[1].ends_with("for 3s") && lines[1].starts_with("up1 "), "{lines:?}");
        assert_eq!(table().lines(None, false).len(), 2);
    }

    #[test]
    fn no_line_is_longer_than_the_screen_and_what_is_cut_says_so() {
        for width in [20, 40, 60, 80] {
            let lines = table().lines(Some(width), true);
            assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:#?}");
            assert!(lines[1].ends_with('…'), "{width}: {lines:#?}");
        }
        assert!(
            table().lines(Some(40), true)[1].contains("Running  draining"),
            "{:#?}",
            table().lines(Some(40), true)
        );
    }
}
