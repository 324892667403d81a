//! What a gateway says of a message in the message's properties: its place in the gateway's queue, and when it was accepted.

use schemas::bag::{PropertyBag, system};
use schemas::generation::{Generation, GenerationError};
use schemas::names::DeviceId;

use crate::store::telemetry::Place;

/// The longest id of a gateway's queue: a gateway makes UUIDs.
const QUEUE_ID_BYTES_MAX: usize = 128;

/// What a gateway says of a message.
#[derive(Debug, Default)]
pub(crate) struct GatewayProperties {
    /// Its place in the gateway's queue.
    pub(crate) place: Option<Place>,
    /// When the gateway accepted it.
    pub(crate) enqueued_ms: Option<u64>,
    /// Which of the devices of its name sent it.
    pub(crate) generation: Option<Generation>,
}

/// Why a gateway's properties are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayPropertyError {
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error("{name}: found `{found}`; write a number")]
    NotANumber { name: &'static str, found: String },
    #[error("{}: found {bytes} bytes; {QUEUE_ID_BYTES_MAX} are allowed", system::LINESIDE_QUEUE)]
    LongQueue { bytes: usize },
    #[error("{}: found {sequence}; {} is the most", system::LINESIDE_SEQUENCE, i64::MAX)]
    LargeSequence { sequence: u64 },
    #[error("{} and {} come together", system::LINESIDE_QUEUE, system::LINESIDE_SEQUENCE)]
    HalfPlace,
}

impl GatewayProperties {
    /// Takes the link's properties out of a bag. They count only from a gateway; from others they are left out. If a property
    /// occurs several times, the last counts, which the gateway put behind whatever the device had written: a device could
    /// make later messages look like resends otherwise.
    ///
    /// # Errors
    /// [`GatewayPropertyError`] when a property of a gateway is invalid.
    pub(crate) fn take(
        bag: &mut PropertyBag,
        gateway: Option<&DeviceId>,
    ) -> Result<Self, GatewayPropertyError> {
        let mut take = |name: &str| {
            let last = bag.iter().filter(|(key, _)| *key == name).last();
            let value = last.map(|(_, value)| value.unwrap_or("").to_owned());
            bag.remove(name);
            value
        };
        let queue = take(system::LINESIDE_QUEUE);
        let sequence = take(system::LINESIDE_SEQUENCE);
        let enqueued_ms = take(system::LINESIDE_ENQUEUED_MS);
        let generation = take(system::LINESIDE_GENERATION);
        let Some(gateway) = gateway else { return Ok(Self::default()) };
        let generation = generation.map(|text| text.parse()).transpose()?;
        let enqueued_ms = number(system::LINESIDE_ENQUEUED_MS, enqueued_ms)?;
        let place = match (queue, number(system::LINESIDE_SEQUENCE, sequence)?) {
            (None, None) => None,
            (Some(queue), Some(_)) if queue.len() > QUEUE_ID_BYTES_MAX => {
                return Err(GatewayPropertyError::LongQueue { bytes: queue.len() });
            }
            (Some(_), Some(sequence)) if i64::try_from(sequence).is_err() => {
                return Err(GatewayPropertyError::LargeSequence { sequence });
            }
            (Some(queue), Some(sequence)) => Some(Place { gateway: gateway.clone(), queue, sequence }),
            _ => return Err(GatewayPropertyError::HalfPlace),
        };
        Ok(Self { place, enqueued_ms, generation })
    }
}

fn number(name: &'static str, text: Option<String>) -> Result<Option<u64>, GatewayPropertyError> {
    let Some(found) = text else { return Ok(None) };
    found.parse().map(Some).map_err(|_| GatewayPropertyError::NotANumber { name, found })
}
