//! Sends a device what waits for it by the way that it is connected now.

use std::sync::Arc;

use schemas::names::DeviceId;

use crate::c2d::service::C2d;
use crate::commands::waiting::WaitingCommands;
use crate::error::ServiceError;
use crate::store::Store;
use crate::store::devices::{self, Device};
use crate::store::{cloud_messages, commands};

/// Redelivers messages and commands. Cheap to clone.
#[derive(Clone)]
pub struct Redelivery {
    store: Store,
    c2d: Arc<C2d>,
    waiting_commands: Arc<WaitingCommands>,
}

impl Redelivery {
    pub fn new(store: Store, c2d: Arc<C2d>, waiting_commands: Arc<WaitingCommands>) -> Self {
        Self { store, c2d, waiting_commands }
    }

    /// Sends the waiting messages and commands of a device that is behind another gateway now, or has left central's own
    /// listener.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub(crate) async fn redeliver(&self, device: DeviceId) -> Result<(), ServiceError> {
        let of = device.clone();
        let (found, sequences, rows) = self
            .store
            .read(move |c| {
                let waiting = (cloud_messages::sequences(c, &of)?, commands::waiting(c, &of)?);
                Ok::<_, ServiceError>((devices::get(c, &of)?, waiting.0, waiting.1))
            })
            .await?;
        let found = found.as_ref();
        self.c2d.deliver(&device, found.and_then(|device| device.gateway.as_ref()), sequences);
        self.waiting_commands.deliver(&device, found.and_then(Device::serving_gateway), rows);
        Ok(())
    }
}
