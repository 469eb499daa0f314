//! A strict reader of the two text formats of Prometheus: what it takes, every scraper takes.

use std::collections::{BTreeMap, BTreeSet};

/// A scrape: the samples, each with its labels as they are written, and the families.
pub struct Scrape {
    samples: BTreeMap<String, f64>,
    /// The type by the name.
    pub families: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads Prometheus' own format, or OpenMetrics.
    pub fn read(text: &str, open: bool) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'));
        let mut lines: Vec<&str> = text.lines().collect();
        if open {
            assert_eq!(lines.pop(), Some("# EOF"), "it ends so");
        }
        let mut scrape = Self { samples: BTreeMap::new(), families: BTreeMap::new() };
        let (mut family, mut unit, mut help) = (String::new(), None, String::new());
        for line in lines {
            assert!(!line.is_empty());
            if let Some(rest) = line.strip_prefix("# ") {
                let (what, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                let (name, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                match what {
                    "HELP" => (family, unit, help) = (String::new(), None, name.to_owned()),
                    "TYPE" => {
                        assert_eq!(help, name, "the help comes first");
                        let of_open = ["unknown", "info", "stateset", "gaugehistogram"];
                        assert!(
                            ["counter", "gauge", "histogram"].contains(&rest)
                                || (open && of_open.contains(&rest))
                        );
                        assert_eq!(scrape.families.insert(name.into(), rest.into()), None, "{name} twice");
                        name.clone_into(&mut family);
                    }
                    "UNIT" => {
                        assert!(open && family == name && family.ends_with(&format!("_{rest}")), "{line}");
                        unit = Some(rest);
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            scrape.sample(line, &family, open);
            assert!(unit.is_some() || !open || !family.ends_with("_seconds"), "{family} has no unit");
        }
        scrape.histograms();
        scrape
    }

    fn sample(&mut self, line: &str, family: &str, open: bool) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        let suffixes: &[&str] = match (self.families.get(family).map(String::as_str), open) {
            (Some("counter"), true) => &["_total"],
            (Some("info"), true) => &["_info"],
            (Some("histogram"), _) => &["_bucket", "_sum", "_count"],
            (Some(_), _) => &[""],
            (None, _) => panic!("{line}: of no family"),
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line}: in {family}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
            let mut seen = BTreeSet::new();
            let mut rest = labels;
            while !rest.is_empty() {
                let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(seen.insert(label), "{line}: {label} twice");
                let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("{line}"));
                assert!(!value.contains('\\'), "{line}: nothing of ours is escaped");
                rest = after.strip_prefix(',').unwrap_or(after);
                assert!(after.is_empty() || !rest.is_empty(), "{line}");
            }
        }
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(self.samples.insert(series.into(), value), None, "{series} twice");
    }

    /// Buckets grow, and the last one has all.
    fn histograms(&self) {
        for name in self.families.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (series, value) in self.of(&format!("{name}_bucket")) {
                let (before, rest) = series.split_once("le=\"").unwrap();
                let (bound, after) = rest.split_once('"').unwrap();
                let others =
                    format!("{before}{after}").replace("{,", "{").replace(",}", "}").replace("{}", "");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                buckets.entry(others.replace("_bucket", "_count")).or_default().push((bound, value));
            }
            assert!(!buckets.is_empty(), "{name}");
            for (count, mut of) in buckets {
                of.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(of.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{count}: {of:?}");
                let last = of.last().unwrap();
                assert_eq!((last.0, Some(&last.1)), (f64::INFINITY, self.samples.get(&count)), "{count}");
            }
        }
    }

    /// The samples whose name is this.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of = self.samples.iter().filter(move |(series, _)| series.split('{').next() == Some(name));
        of.map(|(series, value)| (series.as_str(), *value))
    }

    /// The value of the one sample of that name that has all these labels, if there is one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has =
            |series: &str| labels.iter().all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")));
        let mut found = self.of(name).filter(|(series, _)| has(series)).map(|(_, value)| value);
        let value = found.next();
        assert_eq!(found.next(), None, "{name} {labels:?} is not one sample");
        value
    }
}
