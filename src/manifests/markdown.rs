//! Tables and headings as Markdown has them.

use std::fmt::Write;

/// A table. Cells may hold anything that stands on one line.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = line(head.iter().map(|cell| (*cell).to_owned()));
    text.push_str(&line(head.iter().map(|_| "---".to_owned())));
    for row in rows {
        text.push_str(&line(row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " "))));
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let mut text = String::from("|");
    for cell in cells {
        // Writing to a String cannot fail.
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
    text
}

/// A word as code.
pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_ends_neither_its_row_nor_itself() {
        let rows = [vec!["a|b".to_owned(), "one\ntwo".to_owned()], vec![String::new(), code("x")]];
        assert_eq!(
            table(&["field", "meaning"], &rows),
            "| field | meaning |\n| --- | --- |\n| a\\|b | one two |\n|  | `x` |\n"
        );
    }
}
