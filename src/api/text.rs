//! Texts of others in our statuses and Events: on one line, and with a limit.

/// `text`, cut to at most `most` bytes between two characters.
pub fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = "…";
    format!("{}{mark}", super::names::cut(text, most.saturating_sub(mark.len())))
}

/// Somebody's text on one line. A container's output may hold anything, and whoever reads a message in a
/// terminal would have that obey it: what controls a terminal becomes a space, as a line's end does.
pub fn one_line(text: &str) -> String {
    let parts = text.split(|c: char| c.is_whitespace() || c.is_control());
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// How many names a sentence lists at most.
const MAX_LISTED: usize = 5;

/// The first of these names, and how many more there are.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<&str> = names.iter().take(MAX_LISTED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MAX_LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(clipped("héé", 10), "héé");
        assert_eq!(clipped("ééééé", 8), "éé…");
        assert_eq!(clipped("ééééé", 9), "ééé…");
    }

    #[test]
    fn of_many_names_the_first_are_listed() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(listed(&names[..1]), "a");
        assert_eq!(listed(&names[..5]), "a, b, c, d, e");
        assert_eq!(listed(&names), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn a_line_holds_nothing_that_controls_a_terminal() {
        assert_eq!(one_line(" \u{1b}[31mred\0\r\nnext\u{7}\u{9b}2J \u{7f}é\t"), "[31mred next 2J é");
    }
}
