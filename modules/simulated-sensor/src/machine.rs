//! The simulated machine: every reading finds it a degree warmer, until it is hot and starts again.

use serde::Serialize;

/// Degrees Celsius of a machine that has just started.
const COLD: f64 = 21.0;
/// Degrees Celsius at which it starts again.
const HOT: f64 = 31.0;
/// Degrees from one reading to the next.
const STEP: f64 = 1.0;

/// A machine between [`COLD`] and [`HOT`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    temperature: f64,
}

/// A reading, in the shape of IoT Edge's simulated temperature sensor.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reading {
    machine: MachineReading,
    ambient: AmbientReading,
    time_created: String,
}

#[derive(Debug, Serialize)]
struct MachineReading {
    /// Degrees Celsius.
    temperature: f64,
    /// Bar; rises with the temperature.
    pressure: f64,
}

#[derive(Debug, Serialize)]
struct AmbientReading {
    /// Degrees Celsius.
    temperature: f64,
    /// Percent.
    humidity: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self { temperature: COLD }
    }
}

impl Machine {
    /// Reads and warms up. `noise` in -1..=1 is drawn by the caller; it moves what is read by at most a fifth of a
    /// degree. `time_created` is RFC 3339.
    pub(crate) fn measure(&mut self, noise: f64, time_created: String) -> Reading {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        let temperature = self.temperature + noise.clamp(-1.0, 1.0) / 5.0;
        self.temperature += STEP;
        if self.temperature >= HOT {
            self.temperature = COLD;
        }
        Reading {
            machine: MachineReading {
                temperature: hundredths(temperature),
                pressure: hundredths(1.0 + (temperature - COLD) / 10.0),
            },
            ambient: AmbientReading {
                temperature: hundredths(COLD + noise.clamp(-1.0, 1.0) / 2.0),
                humidity: 25,
            },
            time_created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_passes_25_degrees_within_ten_readings_and_starts_again() {
        for noise in [-1.0, 0.0, 1.0] {
            let mut machine = Machine::default();
            let mut read = || machine.measure(noise, String::new()).machine.temperature;
            let round: Vec<f64> = (0..10).map(|_| read()).collect();
            assert!(round[0] < 25.0 && round.is_sorted() && round[9] > 25.0, "{round:?}");
            assert!(read() < 25.0);
        }
    }

    #[test]
    fn a_reading_has_the_shape_of_iot_edges_sensor() {
        let reading = Machine::default().measure(0.0, "2026-11-23T16:11:52Z".into());
        assert_eq!(
            serde_json::to_value(reading).unwrap(),
            serde_json::json!({
                "machine": {"temperature": 21.0, "pressure": 1.0},
                "ambient": {"temperature": 21.0, "humidity": 25},
                "timeCreated": "2026-11-23T16:11:52Z",
            })
        );
    }
}
