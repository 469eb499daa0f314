//! The two text formats that Prometheus reads, which of them a request asks for, and how a family of our
//! table gets into either.
//!
//! They differ in what stands before a counter's samples, in units, and in the end: a text of one format
//! under the other's name is refused as a whole.

use std::fmt::{Error, Write};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, prometheus_text, text},
    metrics::MetricType,
    registry::{Metric, Registry, Unit},
};

use super::families::{Family, Kind};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4, which everything reads.
    Classic,
    OpenMetrics,
}

impl Format {
    /// The one to answer a request with that has this header `Accept`: OpenMetrics 1.0.0 where it is asked
    /// for, and nothing else is wanted more.
    pub fn wanted(accept: &str) -> Self {
        let (mut open, mut classic) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            let best = match (name.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => &mut open,
                ("text/plain", None | Some("0.0.4")) => &mut classic,
                _ => continue,
            };
            *best = f64::max(*best, weight);
        }
        if open > 0.0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The text of these registries, one after the other.
    pub fn text(self, registries: &[&Registry]) -> Result<String, Error> {
        let mut text = String::new();
        for registry in registries {
            match self {
                Self::Classic => prometheus_text::encode(&mut text, registry)?,
                Self::OpenMetrics => text::encode_registry(&mut text, registry)?,
            }
        }
        if self == Self::OpenMetrics {
            text::encode_eof(&mut text)?;
        }
        Ok(text)
    }
}

fn unit(family: &Family) -> Option<Unit> {
    family.unit().map(|_| Unit::Seconds)
}

/// Registers a metric as this family.
pub fn register(registry: &mut Registry, family: &Family, metric: impl Metric) {
    match unit(family) {
        Some(unit) => registry.register_with_unit(family.stem(), family.help, unit, metric),
        None => registry.register(family.stem(), family.help, metric),
    }
}

/// These values of the family's labels, with the labels' names.
pub fn labelled<const N: usize>(
    family: &Family,
    values: [&'static str; N],
) -> [(&'static str, &'static str); N] {
    debug_assert_eq!(family.labels.len(), N, "{}", family.name);
    std::array::from_fn(|at| (family.labels.get(at).copied().unwrap_or_default(), values[at]))
}

/// Writes gauges that are computed for this scrape, each with the values of the family's labels.
pub fn gauges<'a, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    rows: impl IntoIterator<Item = (Vec<&'a str>, V)>,
) -> Result<(), Error> {
    debug_assert_eq!(family.kind, Kind::Gauge, "{}", family.name);
    let (unit, mut help) = (unit(family), String::new());
    write!(help, "{}.", family.help)?;
    let mut written = encoder.encode_descriptor(family.stem(), &help, unit.as_ref(), MetricType::Gauge)?;
    for (values, value) in rows {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values).collect();
        written.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scraper_gets_the_format_that_it_asks_for() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for accept in [prometheus_2, prometheus_3, "Application/OpenMetrics-Text; Version=\"1.0.0\""] {
            assert_eq!(Format::wanted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.2,text/plain;q=0.9",
            "application/openmetrics-text;q=nonsense",
            ";;,=,",
        ] {
            assert_eq!(Format::wanted(accept), Format::Classic, "{accept}");
        }
    }
}
