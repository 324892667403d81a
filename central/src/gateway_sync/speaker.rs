//! Who may speak for whom, of many at once.

use rusqlite::Connection;
use schemas::generation::Generation;
use schemas::names::{DeviceId, Identity};

use crate::access::authorize::{Way, authorize, is_current_module, own};
use crate::error::ServiceError;

/// [`authorize`] for many: the speaker's own registration is read once, however many of its modules it names.
pub(super) struct Speaker<'c> {
    c: &'c Connection,
    id: &'c DeviceId,
    way: Way,
    /// Whether the speaker may name modules of its own.
    may_name_modules: Option<bool>,
}

impl<'c> Speaker<'c> {
    pub(super) fn new(c: &'c Connection, id: &'c DeviceId, way: Way) -> Self {
        Self { c, id, way, may_name_modules: None }
    }

    /// # Errors
    /// As [`authorize`].
    pub(super) fn authorize(
        &mut self,
        of: &Identity,
        generation: Option<Generation>,
    ) -> Result<(), ServiceError> {
        let is_plain =
            of.device == *self.id && of.module.is_some() && matches!(self.way, Way::Presence | Way::Loss);
        if !is_plain || self.may_name_modules == Some(false) {
            return authorize(self.c, self.id, of, self.way, generation);
        }
        if self.may_name_modules.is_none() {
            let checked = own(self.c, self.id, of.module.as_ref(), self.way, None);
            self.may_name_modules = Some(checked.is_ok());
            checked?;
        }
        match &of.module {
            Some(module) => is_current_module(self.c, self.id, module, generation),
            None => Ok(()),
        }
    }
}
