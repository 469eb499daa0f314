//! Times as people read and write them: `4m`, `3h ago`, `--timeout 1h30m`.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::text::one_line;

/// A length of time as kubectl's columns show it: one unit, or two where the second one matters.
pub fn brief(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{big}{unit}"),
        rest => format!("{big}{unit}{rest}{small}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// How long ago that was.
pub fn age(now: Timestamp, then: Timestamp) -> String {
    brief(now.duration_since(then))
}

/// A message on one line, with its times told from now: `since 2026-11-28T06:04:47Z` is hard to read, and
/// long. Clocks differ, so what seems to lie a little ahead is now.
pub fn relative(now: Timestamp, text: &str) -> String {
    let text = one_line(text);
    let words: Vec<&str> = text.split(' ').collect();
    let mut said: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let bare = word.trim_end_matches([':', ',', ';', ')', '.']);
        let Some(time) = stamp(bare) else {
            said.push(word.to_owned());
            continue;
        };
        let (tail, ahead) = (&word[bare.len()..], time.duration_since(now));
        let before = said.last().map(String::as_str).unwrap_or_default();
        match before.trim_start_matches('(') {
            "since" => {
                let open = if before.starts_with('(') { "(" } else { "" };
                said.pop();
                said.push(format!("{open}for {}{tail}", age(now, time)));
            }
            "until" if ahead.is_positive() => {
                said.pop();
                said.push(format!("{} left{tail}", brief(ahead)));
            }
            "until" if said.ends_with(&["has".into(), "until".into()]) => {
                said.truncate(said.len() - 2);
                said.push(format!("overdue for {}{tail}", age(now, time)));
            }
            _ if ahead.is_positive() => said.push(format!("in {}{tail}", brief(ahead))),
            _ => said.push(format!("{} ago{tail}", age(now, time))),
        }
    }
    said.join(" ")
}

/// An RFC 3339 time; a word that only looks like one is none.
fn stamp(word: &str) -> Option<Timestamp> {
    let looks_like_one = word.len() >= 20 && word.as_bytes().get(10) == Some(&b'T');
    if looks_like_one { word.parse().ok() } else { None }
}

/// A length of time as Go's tools take it: `90s`, `1h30m`; without a unit, seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no length of time: write 90s, 30m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        let part = u32::try_from(number).ok().and_then(|number| unit.checked_mul(number));
        sum = part.and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_reads_as_kubectl_shows_it() {
        let said = |seconds| brief(SignedDuration::from_secs(seconds));
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (900_000, "10d"),
        ] {
            assert_eq!(said(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_message_tells_its_times_from_now() {
        let now: Timestamp = "2026-11-28T06:05:00Z".parse().unwrap();
        for (text, said) in [
            (
                "draining: blocked: default/web since 2026-11-28T06:04:47Z: the budget",
                "draining: blocked: default/web for 13s: the budget",
            ),
            (
                "a/b (since 2026-11-28T06:04:00Z, has until 2026-11-28T06:05:30Z, held by x)",
                "a/b (for 60s, has 30s left, held by x)",
            ),
            (
                "a/b (since 2026-11-28T06:04:00Z, has until 2026-11-28T06:04:30Z, held by x)",
                "a/b (for 60s, overdue for 30s, held by x)",
            ),
            ("booted 2026-11-28T05:00:00Z.", "booted 65m ago."),
            ("tried again 2026-11-28T06:06:00Z", "tried again in 60s"),
            ("since v3.4.2-k3sv1.30.11+k3s1T", "since v3.4.2-k3sv1.30.11+k3s1T"),
            ("two\nlines\u{1b}[31m", "two lines [31m"),
            ("ends at since 2026-11-28T06:09:00Z", "ends at for 0s"),
        ] {
            assert_eq!(relative(now, text), said);
        }
    }

    #[test]
    fn a_timeout_is_written_as_go_writes_it() {
        for (text, seconds) in [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("90", 90), ("0", 0), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "5d", "-1s", "1h30", "99999999999999999999h", "9999999999h", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
