//! Times that others write, read as near as they can be held.
//!
//! Kubernetes takes and keeps times that our calendar ends before: the last two hours of the year 9999, and,
//! by a zone or by a grace period, later ones. One field of one object would make the list that it stands in
//! unreadable, for ever. So such a time is the last, or the first, that there is: that a field is there can
//! mean as much as what it says, as with `deletionTimestamp`.

use std::fmt;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// A time that somebody else has written.
#[derive(Clone, Debug)]
pub(super) struct Near(pub(super) Time);

impl<'de> Deserialize<'de> for Near {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Nearest;

        impl Visitor<'_> for Nearest {
            type Value = Near;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Near, E> {
                Ok(Near(Time(nearest(text))))
            }
        }

        deserializer.deserialize_str(Nearest)
    }
}

/// A time before the first year begins with a minus sign.
fn nearest(text: &str) -> Timestamp {
    let end = if text.starts_with('-') { Timestamp::MIN } else { Timestamp::MAX };
    text.parse().unwrap_or(end)
}

/// For a field that may not be there.
pub(super) fn near<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    Ok(Option::<Near>::deserialize(deserializer)?.map(|near| near.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_takes_and_the_calendar_does_not_hold_is_its_end() {
        for (text, read) in [
            ("2026-05-28T20:26:40Z", "2026-05-28T20:26:40Z".parse().unwrap()),
            ("2026-05-28T20:26:40.123456Z", "2026-05-28T20:26:40.123456Z".parse().unwrap()),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z".parse().unwrap()),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z".parse().unwrap()),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z".parse().unwrap()),
            ("9999-12-31T23:59:59Z", Timestamp::MAX),
            ("10000-01-01T04:59:59Z", Timestamp::MAX),
            ("33658-09-27T01:46:40Z", Timestamp::MAX),
            ("-001-12-31T19:00:00Z", Timestamp::MIN),
        ] {
            assert_eq!(nearest(text), read, "{text}");
        }
    }

    /// What is written of such a time can be read by everybody.
    #[test]
    fn the_end_is_a_time_like_others() {
        let written = serde_json::to_string(&Time(Timestamp::MAX)).unwrap();
        assert_eq!(written, r#""9999-12-30T22:00:00Z""#);
        assert!(serde_json::from_str::<Time>(&written).is_ok());
    }
}
