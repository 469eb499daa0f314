//! Texts of others in our statuses and Events, which have a limit.

/// `text`, cut to at most `most` bytes between two characters.
pub fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = "…";
    let at = (0..=most - mark.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{mark}", &text[..at])
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
