//! What the filter decides: whether a reading is an alarm, and whether a limit can be taken.

use schemas::twin::Section;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::warn;

/// Degrees Celsius until an operator says otherwise (the limit of IoT Edge's sample).
const LIMIT: f64 = 25.0;

/// The limit in force, and how many readings made no sense.
#[derive(Debug)]
pub(crate) struct Filter {
    limit: f64,
    malformed: u64,
}

/// What a reading is.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Not above the limit.
    Normal {
        /// Degrees Celsius.
        temperature: f64,
    },
    /// Above the limit.
    Alarm {
        /// Degrees Celsius.
        temperature: f64,
    },
    /// No reading: `machine.temperature` is not there, or no number.
    Malformed {
        /// How many have been so far.
        count: u64,
    },
}

#[derive(Deserialize)]
struct Reading {
    machine: MachineReading,
}

#[derive(Deserialize)]
struct MachineReading {
    temperature: f64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { limit: LIMIT, malformed: 0 }
    }
}

impl Filter {
    /// The limit in force, in degrees Celsius.
    pub(crate) fn limit(&self) -> f64 {
        self.limit
    }

    /// Checks a reading.
    pub(crate) fn apply(&mut self, payload: &[u8]) -> Verdict {
        match serde_json::from_slice::<Reading>(payload) {
            Ok(Reading { machine: MachineReading { temperature } }) if temperature > self.limit => {
                Verdict::Alarm { temperature }
            }
            Ok(Reading { machine: MachineReading { temperature } }) => Verdict::Normal { temperature },
            Err(_) => {
                self.malformed += 1;
                Verdict::Malformed { count: self.malformed }
            }
        }
    }

    /// Takes `temperatureLimit` from the desired properties and gives what to report. A wrong one changes nothing, and
    /// the report says why; a good one takes the complaint away.
    pub(crate) fn configure(&mut self, desired: &Section) -> Map<String, Value> {
        let mut error = Value::Null;
        match desired.properties.get("temperatureLimit") {
            None => self.limit = LIMIT,
            Some(found) => match found.as_f64() {
                Some(limit) => self.limit = limit,
                None => {
                    let text =
                        format!("found {found}; write a number of degrees Celsius; {} is kept", self.limit);
                    warn!(error = text, "temperatureLimit refused");
                    error = json!(text);
                }
            },
        }
        let mut report = Map::new();
        report.insert("temperatureLimit".into(), json!(self.limit));
        report.insert("errors".into(), json!({"temperatureLimit": error}));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(properties: Value) -> Section {
        Section { version: 1, properties: properties.as_object().cloned().unwrap() }
    }

    #[test]
    fn a_reading_above_the_limit_is_an_alarm_and_one_at_it_is_not() {
        let mut filter = Filter::default();
        let mut apply = |temperature: f64| {
            filter
                .apply(json!({"machine": {"temperature": temperature, "pressure": 1}}).to_string().as_bytes())
        };
        assert_eq!(apply(25.0), Verdict::Normal { temperature: 25.0 });
        assert_eq!(apply(25.1), Verdict::Alarm { temperature: 25.1 });
    }

    #[test]
    fn what_is_no_reading_is_counted() {
        let mut filter = Filter::default();
        for (index, payload) in
            ["", "{}", "not json", r#"{"machine": {"temperature": "hot"}}"#].iter().enumerate()
        {
            assert_eq!(filter.apply(payload.as_bytes()), Verdict::Malformed { count: index as u64 + 1 });
        }
    }

    #[test]
    fn a_limit_is_taken_and_reported_and_a_wrong_one_is_refused_with_the_old_one_kept() {
        let mut filter = Filter::default();
        let report = filter.configure(&desired(json!({"temperatureLimit": 28})));
        assert_eq!(json!(report), json!({"temperatureLimit": 28.0, "errors": {"temperatureLimit": null}}));
        let report = filter.configure(&desired(json!({"temperatureLimit": "28"})));
        assert_eq!(filter.limit(), 28.0);
        assert_eq!(
            report["errors"]["temperatureLimit"],
            r#"found "28"; write a number of degrees Celsius; 28 is kept"#
        );
        filter.configure(&desired(json!({})));
        assert_eq!(filter.limit(), LIMIT);
    }
}
