//! Prometheus' text format, version 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::Write as _;

use super::histogram::Distribution;
use super::{Metric, MetricKind};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Series of one metric; further ones are left out. A label comes from a manifest, a path of the API or a list in the code, so this
/// many are an error of ours, which must not fill the memory of Prometheus.
const SERIES_MAX: usize = 2_000;

/// The metrics of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    /// Labels of the metrics whose names are those of IoT Edge, as text.
    iot_edge_labels: String,
}

impl Exposition {
    /// Nothing as yet. Each metric that has a name of IoT Edge gets `iot_edge_labels`.
    pub fn new(iot_edge_labels: &[(&str, &str)]) -> Self {
        let mut labels = String::new();
        for (name, value) in iot_edge_labels {
            write_label(&mut labels, name, value);
        }
        Self { text: String::new(), iot_edge_labels: labels }
    }

    /// Begins a metric. Each one is begun once.
    pub fn metric(&mut self, metric: &'static Metric) -> Samples<'_> {
        let Metric { name, kind, help, .. } = metric;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        Samples { exposition: self, metric, count: 0 }
    }

    /// A metric with one sample and no labels of its own.
    pub fn value(&mut self, metric: &'static Metric, value: impl Into<SampleValue>) {
        self.metric(metric).add(&[], value);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleValue {
    Whole(u64),
    Real(f64),
}

impl From<u64> for SampleValue {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for SampleValue {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for SampleValue {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for SampleValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<std::time::Duration> for SampleValue {
    fn from(value: std::time::Duration) -> Self {
        Self::Real(value.as_secs_f64())
    }
}

/// The samples of one metric.
pub struct Samples<'a> {
    exposition: &'a mut Exposition,
    metric: &'static Metric,
    count: usize,
}

impl Samples<'_> {
    /// Adds a sample with the values of the metric's labels, in their order.
    pub fn add(&mut self, labels: &[&str], value: impl Into<SampleValue>) {
        debug_assert!(self.metric.kind != MetricKind::Histogram, "{}", self.metric.name);
        if self.is_full() {
            return;
        }
        let labels = self.labels(labels);
        self.line("", &labels, value.into());
    }

    /// Adds the samples of a histogram.
    pub fn distribution(&mut self, labels: &[&str], distribution: &Distribution) {
        debug_assert!(self.metric.kind == MetricKind::Histogram, "{}", self.metric.name);
        if self.is_full() {
            return;
        }
        let labels = self.labels(labels);
        let mut sum = 0;
        let bounds = distribution.bounds.iter().map(|bound| bound.as_secs_f64().to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(distribution.counts) {
            sum += count;
            let mut labels = labels.clone();
            write_label(&mut labels, "le", &bound);
            self.line("_bucket", &labels, sum.into());
        }
        self.line("_sum", &labels, distribution.sum.into());
        // Taken from the buckets: between two loads another observation may come, and the count must equal `+Inf`.
        self.line("_count", &labels, sum.into());
    }

    fn is_full(&mut self) -> bool {
        self.count += 1;
        self.count > SERIES_MAX
    }

    fn labels(&self, values: &[&str]) -> String {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let mut text = String::new();
        if self.metric.is_of_iot_edge() {
            text.push_str(&self.exposition.iot_edge_labels);
        }
        for (name, value) in self.metric.labels.iter().zip(values) {
            write_label(&mut text, name, value);
        }
        text
    }

    fn line(&mut self, suffix: &str, labels: &str, value: SampleValue) {
        let text = &mut self.exposition.text;
        let _ = write!(text, "{}{suffix}", self.metric.name);
        if !labels.is_empty() {
            let _ = write!(text, "{{{labels}}}");
        }
        let _ = match value {
            SampleValue::Whole(value) => writeln!(text, " {value}"),
            SampleValue::Real(value) => writeln!(text, " {value}"),
        };
    }
}

fn write_label(text: &mut String, name: &str, value: &str) {
    let comma = if text.is_empty() { "" } else { "," };
    let _ = write!(text, "{comma}{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Exposer;
    use super::super::histogram::{Histogram, LINK_BOUNDS};
    use super::*;

    static OURS: Metric = Metric {
        name: "lineside_queue_bytes",
        kind: MetricKind::Gauge,
        unit: "bytes",
        labels: &["queue"],
        exposer: Exposer::EdgeAgent,
        help: "Bytes.",
    };
    static OF_IOT_EDGE: Metric = Metric { name: "edgehub_x_seconds", kind: MetricKind::Histogram, ..PLAIN };
    const PLAIN: Metric = Metric {
        name: "",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[],
        exposer: Exposer::EdgeAgent,
        help: "Seconds.",
    };

    #[test]
    fn only_metrics_of_iot_edge_have_its_labels() {
        let mut exposition = Exposition::new(&[("iothub", "h"), ("edge_device", "gw")]);
        exposition.metric(&OURS).add(&["upstream@3"], 7_u64);
        let histogram = Histogram::new(&LINK_BOUNDS);
        histogram.observe(Duration::from_millis(40));
        exposition.metric(&OF_IOT_EDGE).distribution(&[], &histogram.distribution());
        let text = exposition.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "# HELP lineside_queue_bytes Bytes.",
                "# TYPE lineside_queue_bytes gauge",
                "lineside_queue_bytes{queue=\"upstream@3\"} 7",
                "# HELP edgehub_x_seconds Seconds.",
            ]
        );
        let of = "iothub=\"h\",edge_device=\"gw\"";
        assert!(
            lines.contains(&format!("edgehub_x_seconds_bucket{{{of},le=\"0.02\"}} 0").as_str()),
            "{text}"
        );
        assert!(
            lines.contains(&format!("edgehub_x_seconds_bucket{{{of},le=\"0.05\"}} 1").as_str()),
            "{text}"
        );
        assert!(
            lines.contains(&format!("edgehub_x_seconds_bucket{{{of},le=\"+Inf\"}} 1").as_str()),
            "{text}"
        );
        assert!(lines.contains(&format!("edgehub_x_seconds_sum{{{of}}} 0.04").as_str()), "{text}");
        assert!(lines.contains(&format!("edgehub_x_seconds_count{{{of}}} 1").as_str()), "{text}");
    }

    #[test]
    fn a_metric_has_a_bounded_number_of_series() {
        let mut exposition = Exposition::default();
        let mut samples = exposition.metric(&OURS);
        for number in 0..10 * SERIES_MAX {
            samples.add(&[&number.to_string()], 1_u64);
        }
        assert_eq!(exposition.into_text().lines().count(), 2 + SERIES_MAX);
    }

    /// Reads a sample's label back as Prometheus does.
    fn label(line: &str) -> String {
        let quoted = line.split_once("queue=\"").unwrap().1.rsplit_once("\"} 1").unwrap().0;
        let (mut text, mut characters) = (String::new(), quoted.chars());
        while let Some(c) = characters.next() {
            match c {
                '\\' => match characters.next().unwrap() {
                    'n' => text.push('\n'),
                    c => text.push(c),
                },
                '"' => panic!("an unescaped quote in {line}"),
                c => text.push(c),
            }
        }
        text
    }

    proptest! {
        #[test]
        fn no_label_ends_its_line_or_its_quotes(value in ".{0,40}|[\\\\\"\n\r}{,=]{0,20}") {
            let mut exposition = Exposition::default();
            exposition.metric(&OURS).add(&[&value], 1_u64);
            let text = exposition.into_text();
            let (_, sample) = text.split_once(" gauge\n").unwrap();
            prop_assert_eq!(sample.matches('\n').count(), 1);
            prop_assert_eq!(label(sample), value);
        }
    }
}
