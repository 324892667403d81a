//! What both programs expose to Prometheus: the metrics by name ([`names`]), their text ([`exposition`]) and times that are counted
//! in buckets ([`histogram`]). Values are collected when Prometheus scrapes; see docs/operating/metrics.md.

pub mod exposition;
pub mod histogram;
pub mod names;

/// Which program exposes a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposer {
    EdgeAgent,
    Central,
    Both,
}

impl Exposer {
    /// True if `program` exposes what this one does.
    pub fn includes(self, program: Self) -> bool {
        self == Self::Both || self == program
    }
}

/// The type that Prometheus knows a metric by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the program runs.
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric: everything but its values.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    /// What its values count, for example `bytes`.
    pub unit: &'static str,
    /// The names of its own labels, in the order of the values of a sample.
    pub labels: &'static [&'static str],
    pub exposer: Exposer,
    /// One sentence. It is the HELP line and the description in the documentation.
    pub help: &'static str,
}

impl Metric {
    /// True if Azure IoT Edge exposes a metric of this name. Those have the labels that IoT Edge gives to all of its own.
    pub fn is_of_iot_edge(&self) -> bool {
        ["edgehub_", "edgeAgent_"].iter().any(|prefix| self.name.starts_with(prefix))
    }
}
