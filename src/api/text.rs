//! Texts of others in our statuses and Events, which have a limit.

/// `text`, cut to at most `most` bytes between two characters.
pub fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = "…";
    format!("{}{mark}", super::names::cut(text, most.saturating_sub(mark.len())))
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
}
